# SPDX-License-Identifier: Apache-2.0
"""Virtual memory as files: an address space, and windows of it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, Protocol
from libmicrovmi_py.errors import AccessError, InvalidArgumentError, NotMappedError, NotSupportedError, was_closed
from libmicrovmi_py.memory.batch import Result
from libmicrovmi_py.memory.mapped import mapped
from libmicrovmi_py.memory.physical import PhysicalMemory
from libmicrovmi_py.memory.translation import Space, check_virtual, translation_of
from libmicrovmi_py.memory.virtual_direct import DirectVirtual
from libmicrovmi_py.memory.virtual_frames import FrameVirtual
from libmicrovmi_py.paging import PageTables, Translation, VirtualRange

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

VirtualMemory = DirectVirtual | FrameVirtual
"""Memory by virtual address; addresses are 0 to 2**64 - 1, and nothing goes on at 0 behind the last."""

_END = 1 << 64
_CHUNK = 1 << 20
_LONGEST_WINDOW = (1 << 63) - 1


def virtual_memory(physical: PhysicalMemory, space: Space) -> VirtualMemory:
    """The memory that page tables in ``physical`` map. Raises ``InvalidArgumentError`` for what no processor has."""
    if physical.direct is not None:
        return DirectVirtual(physical.direct, space)
    assert physical.frames is not None
    return FrameVirtual(physical.frames, space)


class _Closable(Protocol):
    @property
    def closed(self) -> bool: ...


class _VirtualFile(io.RawIOBase):
    """What an address space and a window share: a position, with a lock, in bytes from where the file starts."""

    def __init__(self, physical: PhysicalMemory, memory: VirtualMemory, start: int, size: int, padded: bool) -> None:
        self._physical = physical
        self._open: _Closable = physical  # looked at by every call: the machine, and after close() the file itself
        self._memory = memory
        self._read_some = memory.read_some
        self._start = start
        self._size = size
        self._padded = padded
        self._position = 0
        self._lock = threading.Lock()

    def _check(self) -> None:
        if self._open.closed:
            self._refuse()

    def _refuse(self) -> None:
        raise ValueError("I/O operation on a closed file of virtual memory") if self.closed else was_closed()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return not self._padded

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to an offset and return the position; every offset is accepted, the position stays within the file."""
        if self._open.closed:
            self._refuse()
        if whence:
            return self._seek(offset, whence)
        if not 0 <= offset <= self._size:
            offset = min(max(offset, 0), self._size)
        self._position = offset
        return offset

    def _seek(self, offset: int, whence: int) -> int:
        if whence not in (io.SEEK_CUR, io.SEEK_END):
            raise InvalidArgumentError(f"whence is {whence}: use 0 (start), 1 (current) or 2 (end)")
        with self._lock:
            start = self._position if whence == io.SEEK_CUR else self._size
            self._position = position = min(max(start + offset, 0), self._size)
        return position

    def tell(self) -> int:
        self._check()
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes, as :meth:`readinto` reads them; without a size, or a negative one, all that is left."""
        if self._open.closed:
            self._refuse()
        if size is None or size < 0:
            return self.readall()
        with self._lock:
            position = self._position
            if size > self._size - position:
                size = self._size - position
            if self._padded or not size:
                content = bytearray(size)
                self._fill(position, memoryview(content))
                return bytes(content)
            try:
                found = self._read_some(self._start + position, size)
            except AccessError as err:
                self._position = position + err.completed
                raise
            self._position = position + len(found)
        return found

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read at the position, move it and return the count.

        A read stops before memory that is not mapped; one whose first byte is not raises ``NotMappedError`` and leaves
        the position. In a padded window such memory is zeros.
        """
        self._check()
        view = memoryview(buffer).cast("B")
        with self._lock:
            left = self._size - self._position
            return self._fill(self._position, view if len(view) <= left else view[:left])

    def _fill(self, position: int, view: memoryview) -> int:
        address, memory = self._start + position, self._memory
        if not view:
            return 0
        try:
            if self._padded:
                memory.read_padded_into(address, view)
                done = len(view)
            elif not (done := memory.read_into(address, view)):
                memory.read_exactly_into(address, view)
                done = len(view)
        except AccessError as err:
            self._position = position + err.completed
            raise
        self._position = position + done
        return done

    def readall(self) -> bytes:
        """Everything from the position on, up to memory that is not mapped."""
        pieces: list[bytes] = []
        try:
            while piece := self.read(_CHUNK):
                pieces.append(piece)
        except NotMappedError:
            if not pieces:
                raise
        return b"".join(pieces)

    def write(self, data: ReadableBuffer, /) -> int:
        """Write at the position, all or nothing, whatever the rights of the pages; move it and return the count.

        Raises ``NotMappedError`` (also across the end of the file) or ``ReadOnlyError``; nothing is then written.
        """
        if self._padded:
            raise io.UnsupportedOperation("a padded window cannot be written")
        self._check()
        view = memoryview(data).cast("B")
        with self._lock:
            position = self._position
            address = self._start + position
            if len(view) > self._size - position:
                end = self._start + self._size
                raise NotMappedError(f"the file ends at {end:#x}", address=end, requested=len(view))
            try:
                self._memory.write_from(address, view)
            except AccessError as err:
                self._position = position + err.completed
                raise
            self._position = position + len(view)
        return len(view)

    def close(self) -> None:
        """Close the file, and leave the machine open."""
        super().close()
        self._open = self


class Window(_VirtualFile):
    """A part of an address space as a file whose position 0 is the part's start.

    ``io.BufferedReader`` goes on top, as on any raw file: it cannot seek beyond 2**63, where kernels are.
    """

    def __repr__(self) -> str:
        padded = ", padded" if self._padded else ""
        return f"<Window {self._start:#x} to {self._start + self._size:#x}{padded}>"


class AddressSpace(_VirtualFile):
    """The virtual memory that page tables map: by address, and as a file whose positions are virtual addresses.

    It is made by :meth:`Microvmi.address_space`, and is good as long as that machine is open: ``tables`` are numbers,
    and do not end with the process whose tables they name. What the tables allow is told by :meth:`translate` and not
    looked at by reads and writes. Addresses are 0 to 2**64 - 1; any other is an ``InvalidArgumentError``. The errors of
    memory that is not mapped have the ``translation`` at which they stopped. All methods may be called from any
    thread.
    """

    def __init__(self, physical: PhysicalMemory, tables: PageTables) -> None:
        super().__init__(physical, virtual_memory(physical, Space(tables)), 0, _END, padded=False)
        self.tables = tables

    def translate(self, address: int) -> Translation:
        """What becomes of a virtual address; one that is not mapped is told as well, with the reason."""
        self._check()
        return translation_of(self._memory.translate(address))

    def read_virtual(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``; ``NotMappedError`` (with ``completed``) unless all are mapped."""
        self._check()
        check_virtual(address)
        if size < 0:
            raise ValueError(f"a read of {size} bytes")
        return self._memory.read(address, size)

    def read_virtual_into(self, address: int, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` up to the first byte that is not mapped and return that length, 0 included."""
        self._check()
        return self._memory.read_into(address, memoryview(buffer).cast("B"))

    def read_virtual_exactly_into(self, address: int, buffer: WriteableBuffer) -> None:
        """Fill ``buffer``; ``NotMappedError`` (with ``completed``, the valid prefix) unless all of it is mapped."""
        self._check()
        self._memory.read_exactly_into(address, memoryview(buffer).cast("B"))

    def read_virtual_padded_into(self, address: int, buffer: WriteableBuffer) -> None:
        """Fill ``buffer``; what is not mapped, or mapped to what is no memory, is zeros."""
        self._check()
        self._memory.read_padded_into(address, memoryview(buffer).cast("B"))

    def read_batch(self, requests: Sequence[tuple[int, WriteableBuffer]]) -> list[Result]:
        """Fill many (virtual address, buffer) pairs in as few trips as can be.

        A result each: ``done``, the length of the valid prefix, and ``error``, ``None`` if that is all.
        """
        self._check()
        return self._memory.read_batch(requests)

    def mapped(self, start: int = 0, end: int = _END) -> Iterator[VirtualRange]:
        """What is mapped from ``start`` up to and without ``end``, ascending.

        A range is of pages that are neighbours in both spaces, of the same size and with the same rights, as many as
        there are. The tables of a machine that runs are read as the iterator gets there. Raises
        ``InvalidArgumentError`` for addresses beyond 64 bits; the iterator raises what reading a table raises. A table
        that is no memory maps nothing.
        """
        self._check()
        return mapped(self._physical, Space(self.tables), start, end, self._check)

    def write_virtual(self, address: int, data: ReadableBuffer) -> None:
        """Write ``data`` at ``address``, all or nothing, whatever the rights of the pages."""
        self._check()
        self._memory.write_from(address, memoryview(data).cast("B"))

    def window(self, start: int, size: int | None = None, *, padded: bool = False) -> Window:
        """A file of ``size`` bytes from ``start`` on; by default as many as there are, 2**63 - 1 at the most.

        ``padded``: what is not mapped reads as zeros; such a file cannot be written.
        """
        self._check()
        check_virtual(start)
        most = min(_END - start, _LONGEST_WINDOW)
        if size is None:
            size = most
        if not 0 <= size <= most:
            raise InvalidArgumentError(f"a window of {size:#x} bytes from {start:#x} on: at most {most:#x} are there")
        return Window(self._physical, self._memory, start, size, padded)

    def twin(self) -> AddressSpace:
        """The other address space of the same process, where an x86 kernel isolates its tables (KPTI).

        Raises ``NotSupportedError`` if the page table beside this one is not its twin.
        """
        self._check()
        return AddressSpace(self._physical, twin_tables(self._physical, self.tables))

    def __repr__(self) -> str:
        return f"<AddressSpace {self.tables.paging.name} {self.tables.base:#x}>"


def twin_tables(physical: PhysicalMemory, tables: PageTables) -> PageTables:
    """The page tables of :meth:`AddressSpace.twin`."""
    from libmicrovmi_py.arch.x86 import paging

    try:
        return paging.twin_tables(tables, physical.read)
    except NotMappedError as err:
        raise NotSupportedError(f"the page table beside {tables.base:#x} is no memory: it has no twin") from err
