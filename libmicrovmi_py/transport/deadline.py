# SPDX-License-Identifier: Apache-2.0
"""Time limits that several waits share."""

from __future__ import annotations

import time

_LONGEST = 1e6
"""Seconds; no system call takes much more."""


class Deadline:
    """A point in time until which an operation may take, shared by all its waits."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = min(seconds, _LONGEST)
        self._end = time.monotonic() + self.seconds

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
