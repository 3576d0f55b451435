# SPDX-License-Identifier: Apache-2.0
"""A part of a file mapped into this process."""

from __future__ import annotations

import mmap
import os
import stat
import threading

from libmicrovmi_py.errors import (
    InvalidContextError,
    IoError,
    PermissionDeniedError,
    ReadOnlyError,
)
from libmicrovmi_py.model import PAGE_SIZE
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.reach import Reach


class HostMapping:
    """``size`` bytes of a regular file from byte ``offset``, mapped shared: what others write is seen at once.

    ``writable`` is whether it may be written at all: the file is then opened anew for that, with this process's rights,
    so whoever maps another process's file says so only if that process may write it. Mapped for reading only; the first
    write makes a second, writable mapping. A mapping goes when the last user of it does, so that closing is safe while
    another thread reads. Touching what is gone of a file that became shorter ends the process (SIGBUS), as does a hole
    on a file system that is full: reads do not look first.
    """

    def __init__(self, fd: OwnedFd, offset: int, size: int, *, writable: bool) -> None:
        """Raises ``OSError`` or ``ValueError`` when the file cannot be mapped that way."""
        self.size = size
        self.writable = writable
        self._offset = offset
        self._lock = threading.Lock()
        self._fd: OwnedFd | None = fd
        self._readable: _Window | None = _Window(fd, offset, size, mmap.PROT_READ)
        self._changeable: _Window | None = None

    @classmethod
    def of_file(
        cls, target: str | OwnedFd, offset: int = 0, size: int | None = None, *, writable: bool = False
    ) -> HostMapping:
        """Map ``size`` bytes (all up to the end if ``None``) of a path or of an open file.

        Raises ``PermissionDeniedError``, or ``IoError`` for a file that is not there, not regular, empty or too short.
        """
        try:
            fd = OwnedFd.open(target, os.O_RDONLY | os.O_NONBLOCK) if isinstance(target, str) else target
            status = os.fstat(fd.number)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("not a regular file")
            return cls(fd, offset, status.st_size - offset if size is None else size, writable=writable)
        except PermissionError as err:
            raise PermissionDeniedError(f"{target}: {err.strerror}") from err
        except (OSError, ValueError) as err:
            raise IoError(f"{target}: cannot be mapped: {getattr(err, 'strerror', None) or err}") from err

    def reach(self) -> Reach:
        """The mapping, and the writable one once there is one. Whoever holds it keeps the pages.

        Raises ``InvalidContextError`` after ``close()``.
        """
        with self._lock:
            readable, fd = self._readable, self._fd
            if readable is None:
                raise InvalidContextError("the machine was closed")
            writable = self._changeable.view if self._changeable else None
            return Reach(view=readable.view, writable=writable, fd=fd, offset=self._offset)

    def open_for_writing(self) -> None:
        """Make the writable mapping.

        Raises ``ReadOnlyError``, ``PermissionDeniedError`` if the file may only be read, ``InvalidContextError`` once
        closed.
        """
        if not self.writable:
            raise ReadOnlyError("this machine's memory cannot be written: it is open read-only")
        with self._lock:
            if self._fd is None:
                raise InvalidContextError("the machine was closed")
            if self._changeable is None:
                self._changeable = self._map_for_writing(self._fd)

    def close(self) -> None:
        """Release the file; an access under way in another thread ends normally."""
        with self._lock:
            self._fd = self._readable = self._changeable = None

    def _map_for_writing(self, readable: OwnedFd) -> _Window:
        try:
            fd = OwnedFd.open(f"/proc/self/fd/{readable.number}", os.O_RDWR)
            return _Window(fd, self._offset, self.size, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as err:
            raise PermissionDeniedError(f"the file behind this memory cannot be written: {err.strerror}") from err


class _Window:
    """One mapping. It starts and ends on the file's blocks, which are the pages of a hugetlbfs."""

    __slots__ = ("pages", "view")

    def __init__(self, fd: OwnedFd, offset: int, size: int, protection: int) -> None:
        status = os.fstat(fd.number)
        block = status.st_blksize if status.st_blksize % PAGE_SIZE == 0 else PAGE_SIZE
        start = offset - offset % block
        end = min(-(-(offset + size) // block) * block, status.st_size)
        if not 0 < size <= end - offset:
            raise ValueError(f"{size} bytes from {offset:#x} are not in its {status.st_size} bytes")
        with StandardStreamsHeld():  # the module keeps a descriptor of its own
            self.pages = mmap.mmap(fd.number, end - start, mmap.MAP_SHARED, protection, offset=start)
        self.view = memoryview(self.pages)[offset - start : offset - start + size]
