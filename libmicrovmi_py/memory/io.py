# SPDX-License-Identifier: Apache-2.0
"""Memory as a file: two streams, plain and padded, each with a cursor between 0 and the maximum address."""

from __future__ import annotations

import abc
import io

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import AccessError, InvalidArgumentError, NotMappedError
from libmicrovmi_py.memory.physical import PhysicalMemory
from libmicrovmi_py.transport.native import native

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_CHUNK = 1 << 20
_SEEK_SET, _SEEK_DATA, _SEEK_HOLE = 0, 3, 4  # as os has them on Linux


class Cursor:
    """A position and its lock, in C: what C callers move without Python is the same cursor.

    As a context manager it holds the lock; ``position`` may be set only then.
    """

    def __init__(self) -> None:
        ffi, self._lib = native()
        self.pointer = ffi.gc(self._lib.mvi_cursor_new(), self._lib.mvi_cursor_free)

    def __enter__(self) -> Cursor:
        self._lib.mvi_cursor_lock(self.pointer)
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.mvi_cursor_unlock(self.pointer)

    @property
    def position(self) -> int:
        """Bytes from address 0."""
        return int(self._lib.mvi_cursor_get(self.pointer))

    @position.setter
    def position(self, value: int) -> None:
        self._lib.mvi_cursor_set(self.pointer, value)


class _MemoryStream(io.RawIOBase):
    """What the two streams share: a cursor that saturates, guarded by a lock.

    Closing a stream leaves the driver open. Positions are guest-physical addresses in bytes. ``physical`` is the
    driver's memory by address where somebody has it already: pages that it keeps serve the stream as well.
    """

    _padded = False

    def __init__(self, driver: Driver, physical: PhysicalMemory | None = None) -> None:
        self._memory = physical or PhysicalMemory(driver)
        self._cursor = Cursor()
        direct = self._memory.direct
        self._direct = direct.stream(self._cursor.pointer, self._padded) if direct else None
        if self._direct is not None:
            # Until close(), an attribute of this name hides the method: it reads directly, and saves a call of Python.
            vars(self)["readinto"] = self._direct.readinto

    @property
    def max_addr(self) -> int:
        """Where the stream ends: one past the last byte of RAM."""
        return self._memory.max_addr

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the cursor and return it; every offset is accepted, the result stays within 0 and the maximum.

        Besides the usual, ``os.SEEK_DATA`` and ``os.SEEK_HOLE`` move to the first byte at or after the address
        ``offset`` that may hold something, or that does not exist or is known to be zero.
        """
        direct = self._direct
        if direct is None or not _SEEK_SET <= whence <= _SEEK_HOLE:
            return self._seek(offset, whence)
        try:
            return direct.seek(offset, whence)
        except OverflowError:  # more than 64 bits
            return self._seek(offset, whence)

    def _seek(self, offset: int, whence: int) -> int:
        self._check_open()
        with self._cursor as cursor:
            cursor.position = min(max(self._target(cursor.position, offset, whence), 0), self.max_addr)
            return cursor.position

    def _target(self, position: int, offset: int, whence: int) -> int:
        if whence in (_SEEK_DATA, _SEEK_HOLE):
            return self._memory.find(offset, whence == _SEEK_HOLE)
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: position, io.SEEK_END: self.max_addr}
        if whence not in starts:
            raise InvalidArgumentError(f"whence is {whence}: use 0 (start), 1 (current), 2 (end), 3 (data) or 4 (hole)")
        return starts[whence] + offset

    def tell(self) -> int:
        self._check_open()
        return self._cursor.position

    @property
    def cursor(self) -> Cursor:
        """The position and its lock."""
        return self._cursor

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes, as :meth:`readinto` reads them; without a size, or a negative one, all that is left."""
        if size is None or size < 0:
            return self.readall()
        direct = self._direct
        return direct.read(size) if direct is not None else super().read(size) or b""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read at the cursor, move it and return the count: 0 only at the maximum address or for an empty buffer."""
        return self._read_at(None, memoryview(buffer).cast("B"))

    def read_on(self, position: int, view: memoryview) -> int:
        """As :meth:`readinto`, if the cursor still is at ``position``, where a part ended that was read; else 0."""
        return self._read_at(position, view)

    def _read_at(self, expected: int | None, view: memoryview) -> int:
        self._check_open()
        with self._cursor as cursor:
            position = cursor.position
            if expected not in (None, position):
                return 0
            view = view[: max(self.max_addr - position, 0)]
            try:
                done = self._read(position, view)
            except AccessError as err:
                cursor.position = position + err.completed
                raise
            cursor.position = position + done
        return done

    def readall(self) -> bytes:
        """Everything from the cursor to the maximum address; the plain stream stops before a hole."""
        self._check_open()
        pieces: list[bytes] = []
        try:
            while piece := self.read(_CHUNK):
                pieces.append(piece)
        except NotMappedError:
            if not pieces:
                raise
        return b"".join(pieces)

    def close(self) -> None:
        """Close the stream and leave the driver open."""
        vars(self).pop("readinto", None)
        self._direct = None
        super().close()

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
        with self._cursor as cursor:
            position = cursor.position
            try:
                self._memory.write_from(position, view)
            except AccessError as err:
                cursor.position = position + err.completed
                raise
            cursor.position = position + len(view)
        return len(view)

    def _read(self, address: int, view: memoryview) -> int:
        done = self._memory.read_into(address, view)
        if done == 0 and len(view) > 0:
            self._memory.read_exactly_into(address, view)
        return done


class PaddedMemory(_MemoryStream):
    """The padded stream: memory that does not exist reads as zeros. It cannot be written."""

    _padded = True

    def write(self, data: ReadableBuffer, /) -> int:
        raise io.UnsupportedOperation("padded memory cannot be written: use the plain memory")

    def _read(self, address: int, view: memoryview) -> int:
        self._memory.read_padded_into(address, view)
        return len(view)
