# SPDX-License-Identifier: Apache-2.0
"""File descriptors that live as long as somebody uses them, and never have the number of a standard stream."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from types import TracebackType

from libmicrovmi_py.errors import IoError

_STANDARD = (0, 1, 2)

_ROOM = 8
"""Descriptors that opening a machine takes at a time."""

_lock = threading.Lock()
_held: list[int] = []
_users = 0


class StandardStreamsHeld:
    """A context in which files, sockets and mappings are opened: none gets a number from 0 to 2.

    Where the program has closed its standard streams, it would take what we open for them, and print into it. Each that
    is closed is held by a placeholder that refuses reads and writes, until the last such context ends. A call from C
    has done the same before it came here.
    """

    __slots__ = ("_entered",)

    def __enter__(self) -> None:
        global _users
        with _lock:
            self._entered = _users > 0 or not _all_open()
            if self._entered:
                _fill()
                _users += 1

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        global _users
        if not self._entered:
            return
        with _lock:
            _users -= 1
            while not _users and _held:
                _drop(_held.pop())


def _all_open() -> bool:
    try:
        for number in _STANDARD:
            os.get_inheritable(number)
    except OSError:
        return False
    return True


def _fill() -> None:
    """Take the numbers from 0 to 2 that are free: a new descriptor always gets the lowest free number."""
    while not _all_open():
        number = os.open("/", os.O_PATH | os.O_CLOEXEC)
        if number in _STANDARD:
            _held.append(number)
        else:  # the program has opened one at this moment
            os.close(number)


def _drop(number: int) -> None:
    """Close a placeholder, unless the program has put something else there meanwhile."""
    with contextlib.suppress(OSError):
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_PATH:
            os.close(number)


def check_room() -> None:
    """Raise ``IoError`` unless a few descriptors are left.

    Python's import system takes a folder that it cannot open for an empty one, and remembers it.
    """
    taken: list[int] = []
    try:
        taken.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
        while len(taken) < _ROOM:
            taken.append(os.dup(taken[0]))
    except OSError as err:
        raise IoError(f"no file descriptors left to open a machine with: {err.strerror}") from err
    finally:
        for number in taken:
            os.close(number)


class OwnedFd:
    """A file descriptor that is closed when the last reference to this object goes.

    Whoever uses ``number`` holds a reference meanwhile, so that no other thread can close it, and the kernel hand out
    its number anew, in the middle of a call.
    """

    __slots__ = ("_close", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._close: Callable[[int], None] = os.close

    @classmethod
    def open(cls, path: str, flags: int) -> OwnedFd:
        """Open ``path``; the descriptor is not inherited. Raises ``OSError``."""
        with StandardStreamsHeld():
            return cls(os.open(path, flags | os.O_CLOEXEC))

    def __del__(self) -> None:
        self._close(self.number)


def read_regular(path: str, largest: int) -> bytes:
    """All of a regular file of ``largest`` bytes at the most. Raises ``OSError``, and ``ValueError`` for another."""
    fd = OwnedFd.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    status = os.fstat(fd.number)
    if not stat.S_ISREG(status.st_mode) or status.st_size > largest:
        raise ValueError("not a text file")
    return os.pread(fd.number, largest, 0)
