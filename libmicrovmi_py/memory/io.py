# SPDX-License-Identifier: Apache-2.0
"""Memory as a file: two streams, plain and padded, each with a cursor between 0 and the maximum address."""

from __future__ import annotations

import abc
import io
import threading
from typing import TYPE_CHECKING

from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import AccessError, InvalidArgumentError, NotMappedError
from libmicrovmi_py.memory.physical import PhysicalMemory, read_exactly

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_CHUNK = 1 << 20


class _MemoryStream(io.RawIOBase):
    """What the two streams share: a cursor that saturates, guarded by a lock.

    Closing a stream leaves the driver open. Positions are guest-physical addresses in bytes.
    """

    def __init__(self, driver: Driver) -> None:
        self._memory = PhysicalMemory(driver)
        self._lock = threading.Lock()
        self._position = 0

    @property
    def max_addr(self) -> int:
        """Where the stream ends: one past the last byte of RAM."""
        return self._memory.max_addr

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the cursor and return it; every offset is accepted, the result stays within 0 and the maximum."""
        self._check_open()
        with self._lock:
            starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.max_addr}
            if whence not in starts:
                raise InvalidArgumentError(f"whence is {whence}: use 0 (start), 1 (current) or 2 (end)")
            self._position = min(max(starts[whence] + offset, 0), self.max_addr)
            return self._position

    def tell(self) -> int:
        self._check_open()
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read at the cursor, move it and return the count: 0 only at the maximum address or for an empty buffer."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        with self._lock:
            view = view[: max(self.max_addr - self._position, 0)]
            try:
                done = self._read(self._position, view)
            except AccessError as err:
                self._position += err.completed
                raise
            self._position += done
        return done

    def readall(self) -> bytes:
        """Everything from the cursor to the maximum address; the plain stream stops before a hole."""
        content = bytearray()
        while True:
            chunk = bytearray(min(_CHUNK, max(self.max_addr - self.tell(), 0)))
            try:
                done = self.readinto(chunk)
            except NotMappedError:
                if not content:
                    raise
                return bytes(content)
            content += memoryview(chunk)[:done]
            if done == 0:
                return bytes(content)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed memory stream")

    @abc.abstractmethod
    def _read(self, address: int, view: memoryview) -> int:
        """Fill ``view``, which ends at the maximum address at the latest, and return how much is valid."""


class Memory(_MemoryStream):
    """The plain stream: a read stops before memory that does not exist.

    A read whose first byte does not exist raises ``NotMappedError`` and leaves the cursor: seek to go on, or use
    :class:`PaddedMemory`. A buffered reader on top loses what it had read before such a hole.
    """

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write at the cursor, all or nothing, move it and return the count.

        Raises ``NotMappedError`` (also across the maximum address) or ``ReadOnlyError``; nothing is then written.
        """
        self._check_open()
        view = memoryview(data).cast("B")
        with self._lock:
            try:
                self._memory.write_from(self._position, view)
            except AccessError as err:
                self._position += err.completed
                raise
            self._position += len(view)
        return len(view)

    def _read(self, address: int, view: memoryview) -> int:
        done = self._memory.read_into(address, view)
        if done == 0 and len(view) > 0:
            read_exactly(self._memory, address, view)
        return done


class PaddedMemory(_MemoryStream):
    """The padded stream: memory that does not exist reads as zeros. It cannot be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        raise io.UnsupportedOperation("padded memory cannot be written: use the plain memory")

    def _read(self, address: int, view: memoryview) -> int:
        self._memory.read_padded_into(address, view)
        return len(view)
