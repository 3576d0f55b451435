# SPDX-License-Identifier: Apache-2.0
"""Time limits that several waits share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 1e6
"""Seconds; no system call takes much more."""


_thread = threading.local()
"""``end``: no deadline that this thread makes at present is later."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """No :class:`Deadline` that this thread makes within the block is later than ``seconds`` from now."""
    before = vars(_thread).copy()
    _thread.end = Deadline(seconds)._end
    try:
        yield
    finally:
        vars(_thread).clear()
        vars(_thread).update(before)


class Deadline:
    """A point in time until which an operation may take, shared by all its waits."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        now = time.monotonic()
        self._end = min(now + min(seconds, _LONGEST), getattr(_thread, "end", now + _LONGEST))
        self.seconds = max(self._end - now, 0.0)

    @property
    def remaining(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining == 0.0

    def share(self, parts: int) -> Deadline:
        """A deadline after an equal part of the time left."""
        return Deadline(self.remaining / max(1, parts))
