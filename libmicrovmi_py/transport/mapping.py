# SPDX-License-Identifier: Apache-2.0
"""A part of a file, mapped into this process or read by system calls."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import threading

from libmicrovmi_py.errors import (
    IoError,
    PermissionDeniedError,
    ReadOnlyError,
    was_closed,
)
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.life import Life
from libmicrovmi_py.transport.reach import Reach

_UNMAPPABLE = (errno.ENODEV, errno.EIO, errno.ENOMEM)
"""A file system that maps nothing, /proc, and too many bytes."""


class HostMapping:
    """``size`` bytes of a file or block device from byte ``offset``, mapped shared: what others write is seen at once.

    ``writable`` is whether it may be written at all: the file is then opened anew for that, with this process's rights,
    so whoever maps another process's file says so only if that process may write it. Mapped for reading only; the first
    write makes a second, writable mapping. A mapping goes when the last user of it does, so that closing is safe while
    another thread reads. Touching what is gone of a file that became shorter ends the process (SIGBUS), as does a hole
    on a file system that is full: large reads look first, which leaves a moment. With ``mapped`` false nothing is
    mapped, every access is a system call, and neither can happen.

    ``life`` is the process whose memory this is: once it has ended nothing is written. ``image`` is for a file that
    nobody has in use: it is mapped when its bytes are wanted, no read touches a hole of it, and one that cannot be
    mapped, as /proc/kcore, is read by system calls.
    """

    def __init__(
        self,
        fd: OwnedFd,
        offset: int,
        size: int,
        *,
        writable: bool,
        mapped: bool = True,
        life: Life | None = None,
        image: bool = False,
    ) -> None:
        """Raises ``OSError`` or ``ValueError`` when the file cannot be mapped that way."""
        self.size = size
        self.writable = writable
        self.offset = offset
        self._life = life
        self._name: str | OwnedFd = fd
        self._image = image
        self._lock = threading.Lock()
        self._fd: OwnedFd | None = fd
        self._writer: OwnedFd | None = None
        self._readable = _Window(fd, offset, size, mmap.PROT_READ) if mapped and not image else None
        self._changeable: _Window | None = None
        self._mapped = mapped
        self._regular = stat.S_ISREG(os.fstat(fd.number).st_mode)  # a device has no holes, and fstat no length for it

    @classmethod
    def of_file(
        cls,
        target: str | OwnedFd,
        offset: int = 0,
        size: int | None = None,
        *,
        writable: bool = False,
        mapped: bool = True,
        image: bool = False,
    ) -> HostMapping:
        """Map ``size`` bytes (all up to the end if ``None``) of a path or of an open file.

        Raises ``PermissionDeniedError``, or ``IoError`` for a file that is not there, empty or too short, or neither
        regular nor a block device.
        """
        try:
            fd = OwnedFd.open(target, os.O_RDONLY | os.O_NONBLOCK) if isinstance(target, str) else target
            mode = os.fstat(fd.number).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise ValueError("not a regular file or block device")
            there = _length(fd)
            if not there:
                raise ValueError("it is empty")
            length = there - offset if size is None else size
            if not 0 < length <= there - offset:
                raise ValueError(f"{length} bytes from {offset:#x} are not in its {there} bytes")
            made = cls(fd, offset, length, writable=writable, mapped=mapped, image=image)
            made._name = target
            return made
        except PermissionError as err:
            raise PermissionDeniedError(f"{target}: {err.strerror}") from err
        except (OSError, ValueError) as err:
            raise _not_mappable(target, err) from err

    def reach(self) -> Reach:
        """The mapping, and the writable one once there is one. Whoever holds it keeps the pages.

        Raises ``InvalidContextError`` after ``close()``.
        """
        with self._lock:
            if self._fd is None:
                raise was_closed()
            if self._image and self._mapped and self._readable is None:
                self._map_image(self._fd)
            return Reach(
                view=self._readable.view if self._readable else None,
                writable=self._changeable.view if self._changeable else None,
                fd=self._fd if self._regular or not self._mapped else None,
                writer=self._writer,
                offset=self.offset,
                pidfd=self._life.pidfd if self._life else None,
                image=self._image and self._regular,
            )

    def _map_image(self, fd: OwnedFd) -> None:
        """Map it now; one that has no pages that could be mapped, or too many, is not."""
        try:
            self._readable = _Window(fd, self.offset, self.size, mmap.PROT_READ)
        except (OSError, ValueError) as err:
            if getattr(err, "errno", None) not in _UNMAPPABLE:
                raise _not_mappable(self._name, err) from err
            self._mapped = False

    def file(self) -> OwnedFd:
        """The open file. Raises ``InvalidContextError`` after ``close()``."""
        with self._lock:
            if self._fd is None:
                raise was_closed()
            return self._fd

    def open_for_writing(self) -> None:
        """Make the writable mapping, or open the file for writing where nothing is mapped.

        Raises ``ReadOnlyError``, ``PermissionDeniedError`` if the file may only be read, ``InvalidContextError`` once
        closed.
        """
        if not self.writable:
            raise ReadOnlyError("this machine's memory cannot be written: it is open read-only")
        with self._lock:
            if self._fd is None:
                raise was_closed()
            if self._changeable is None and self._writer is None:
                self._start_writing(self._fd)

    def close(self) -> None:
        """Release the file; an access under way in another thread ends normally."""
        with self._lock:
            self._fd = self._writer = self._readable = self._changeable = None

    def _start_writing(self, readable: OwnedFd) -> None:
        try:
            fd = OwnedFd.open(f"/proc/self/fd/{readable.number}", os.O_RDWR)
            if self._mapped:
                self._changeable = _Window(fd, self.offset, self.size, mmap.PROT_READ | mmap.PROT_WRITE)
            else:
                self._writer = fd
        except OSError as err:
            raise PermissionDeniedError(f"the file behind this memory cannot be written: {err.strerror}") from err


class _Window:
    """One mapping. It starts and ends on the file's blocks, which are the pages of a hugetlbfs, or on the host's pages.

    These are of 4, 16 or 64 KiB on AArch64.
    """

    __slots__ = ("pages", "view")

    def __init__(self, fd: OwnedFd, offset: int, size: int, protection: int) -> None:
        blocks, length = os.fstat(fd.number).st_blksize, _length(fd)
        block = blocks if blocks % mmap.PAGESIZE == 0 else mmap.PAGESIZE
        start = offset - offset % block
        end = min(-(-(offset + size) // block) * block, length)
        if not 0 < size <= end - offset:
            raise ValueError(f"{size} bytes from {offset:#x} are not in its {length} bytes")
        with StandardStreamsHeld():  # the module keeps a descriptor of its own
            self.pages = mmap.mmap(fd.number, end - start, mmap.MAP_SHARED, protection, offset=start)
        self.view = memoryview(self.pages)[offset - start : offset - start + size]


def _not_mappable(target: str | OwnedFd, err: Exception) -> IoError:
    return IoError(f"{target}: cannot be mapped: {getattr(err, 'strerror', None) or err}")


def _length(fd: OwnedFd) -> int:
    """Bytes of a file; ``fstat`` does not know those of a block device."""
    return os.lseek(fd.number, 0, os.SEEK_END)
