# SPDX-License-Identifier: Apache-2.0
"""The memory of another process, through ``/proc/PID/mem``."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

from libmicrovmi_py.errors import (
    AccessError,
    InvalidContextError,
    IoError,
    NotMappedError,
    VmGoneError,
)
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.processes import Process, denied

Transfer = Callable[[int, "list[memoryview]", int], int]


class ProcessMemory:
    """Bytes at the virtual addresses of a process: an offset in this source is an address there.

    Opened for reading; for writing at the first write. Reads and writes run without Python's lock and side by side.
    ``pid`` is the process. Once the process has ended every access is a ``VmGoneError``.
    """

    writable = True

    def __init__(self, process: Process) -> None:
        """Raises ``PermissionDeniedError`` or ``VmGoneError``."""
        self._process = process
        self._lock = threading.Lock()
        self._reader: OwnedFd | None = self._open(os.O_RDONLY)
        self._writer: OwnedFd | None = None

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from address ``offset``.

        Raises ``NotMappedError`` where nothing is mapped, ``VmGoneError``, ``IoError``, ``InvalidContextError`` after
        ``close()``; ``completed`` of the first three is the length of the valid prefix.
        """
        reader = self._reader
        if reader is None:
            raise closed()
        self._transfer(os.preadv, reader, offset, buffer)

    def write_from(self, offset: int, data: memoryview) -> None:
        """Write ``data`` at address ``offset``. Raises as :meth:`read_into`, and ``PermissionDeniedError``."""
        self._transfer(os.pwritev, self._for_writing(), offset, data)

    def close(self) -> None:
        """Release the process; an access under way in another thread ends normally."""
        with self._lock:
            self._reader = self._writer = None

    def _open(self, flags: int) -> OwnedFd:
        path = self._process.path("mem")
        try:
            fd = OwnedFd.open(path, flags)
        except PermissionError as err:
            raise denied(path) from err
        except OSError as err:
            raise self._gone() from err
        if not self._process.alive:
            raise self._gone()
        return fd

    def _for_writing(self) -> OwnedFd:
        with self._lock:
            if self._reader is None:
                raise closed()
            if self._writer is None:
                self._writer = self._open(os.O_RDWR)
            return self._writer

    def _transfer(self, call: Transfer, fd: OwnedFd, address: int, buffer: memoryview) -> None:
        done, size = 0, len(buffer)
        while done < size:
            try:
                count = call(fd.number, [buffer[done:]], address + done)
            except OSError as err:
                raise self._failed(err, address + done, size, done) from err
            if count == 0:
                raise self._gone(size, done)
            done += count

    def _failed(self, err: OSError, address: int, size: int, done: int) -> AccessError:
        if not self._process.alive:
            return self._gone(size, done)
        if err.errno in (errno.EIO, errno.EFAULT):
            text = f"process {self.pid} has no memory at its address {address:#x}"
            return NotMappedError(text, requested=size, completed=done)
        return IoError(f"process {self.pid}: {err.strerror}", requested=size, completed=done)

    def _gone(self, size: int = 0, done: int = 0) -> VmGoneError:
        return VmGoneError(f"process {self.pid} ended", requested=size, completed=done)


def closed() -> InvalidContextError:
    """The error for a source that was closed."""
    return InvalidContextError("the machine was closed")
