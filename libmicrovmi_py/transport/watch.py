# SPDX-License-Identifier: Apache-2.0
"""Long work that somebody watches: he is told how far it is, and may end it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from libmicrovmi_py.errors import CancelledError, TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline, limited

REPORT_EVERY = 0.05
"""Seconds between two reports, so that a machine that stands is not kept waiting by who is told of it."""


class Watch:
    """``progress`` is called with what is done and what is to be done, in bytes, on the thread that does the work.

    It ends the work by returning ``False`` (``None`` goes on), or by raising. ``timeout`` is in seconds, ``None`` for
    none. ``ended`` is asked as well: it raises if there is nobody left whom the work is for.
    """

    def __init__(
        self,
        progress: Callable[[int, int], object] | None = None,
        timeout: float | None = None,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self._progress = progress
        self._ended = ended
        self._timeout = timeout
        self._deadline = None if timeout is None else Deadline(timeout)
        self._next = 0.0

    def limited(self) -> AbstractContextManager[None]:
        """No wait of this thread within the block is longer than the time that is left. What is to be undone is undone
        outside of it."""
        return nullcontext() if self._deadline is None else limited(self._deadline.remaining)

    def check(self) -> None:
        """Raise ``TimeoutExpiredError`` if the time is over, and what ``ended`` raises."""
        if self._ended is not None:
            self._ended()
        if self._deadline is not None and self._deadline.expired:
            raise TimeoutExpiredError(f"it took more than the {self._timeout:g} s that it was allowed")

    def due(self) -> None:
        """The next report is told, however soon it comes after the last one."""
        self._next = 0.0

    def report(self, done: int, total: int) -> None:
        """Tell how far it is, as often as it makes sense: call it often. Raises as :meth:`check`, ``CancelledError``
        if the caller ends it, and what his function raises."""
        self.check()
        now = time.monotonic()
        if self._progress is None or (now < self._next and done < total):
            return
        if self._progress(done, total) is False:
            raise CancelledError("the caller ended it")
        self._next = time.monotonic() + REPORT_EVERY
