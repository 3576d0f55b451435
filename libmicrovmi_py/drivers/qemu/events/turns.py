# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is with a machine that is listened to: one thread's at a time, also while it waits for the machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from libmicrovmi_py.declare import TypeVar

T = TypeVar("T")


class Turns:
    """A lock, as a context, that a thread may have for long in :meth:`wait`: who else wants it has it given up.

    A thread that has it may take it again. Who waits for it holds the door meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._door = threading.Lock()
        self._wake: Callable[[], None] | None = None  # who waits

    def __enter__(self) -> None:
        if self._lock.acquire(blocking=False):
            return
        with self._door:
            if wake := self._wake:
                wake()
            self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self._lock.release()

    @contextmanager
    def last(self) -> Iterator[None]:
        """As the context, for who comes again and again: those go first who wait already."""
        with self._door:
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def wait(self, work: Callable[[float], T], seconds: float, wake: Callable[[], None]) -> T:
        """``work(seconds)``, which ends at once when ``wake`` is called from another thread."""
        self._wake = wake
        try:
            return work(0.0 if self._door.locked() else seconds)  # who came there before did not wake
        finally:
            self._wake = None
