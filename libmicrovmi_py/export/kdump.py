# SPDX-License-Identifier: Apache-2.0
"""kdump-compressed files, as makedumpfile writes them: every page is compressed by itself, one stands for all of zeros.

Header, sub header with notes, two bitmaps of pages (those that exist, those that are in the file: the same), then 24
bytes for each page (offset, size, flags), then pages. https://github.com/makedumpfile/makedumpfile, diskdump_mod.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.export.layout import Extent, Layout, Segment, filled, joined, pieces
from libmicrovmi_py.export.notes import notes, states_of
from libmicrovmi_py.model import PAGE_SIZE, U64_MAX, Architecture
from libmicrovmi_py.transport.foreign import load

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from libmicrovmi_py.export.virtual import GuestKernel
    from libmicrovmi_py.machine.microvmi import Microvmi

    Put = Callable[[int, ReadableBuffer], None]
    """Writes bytes of the file from an offset on."""

_HEADER = struct.Struct("<8si65s65s65s65s65s65s6x16x10I")
"""The header of a 64-bit program: signature, version, six names of the system, time, status, sizes, counts."""
_SUB_HEADER = struct.Struct("<Q2i2Q2Q2Q2Q3Q")
"""Where the kernel lies, dump level, split, frames, VMCOREINFO, notes, what was erased, frames once more."""
_DESCRIPTOR = struct.Struct("<Q2I8x")
_VERSION, _WITHOUT_ZEROS = 6, 1
_MACHINES = {Architecture.X86: "x86_64", Architecture.AARCH64: "aarch64"}
_ZLIB, _ZSTD = 0x1, 0x20
_LEVEL = 1
"""Of both compressions the fastest, as makedumpfile has it."""
_AT_ONCE = 1 << 20
"""So many bytes are gathered before they are written."""

Pack = Callable[[memoryview], bytes]
"""Compresses a page."""


def _zlib() -> Pack:
    import zlib

    return lambda page: zlib.compress(page, _LEVEL)


def _zstd() -> Pack:
    """Raises ``DriverUnavailableError`` without the system's library."""
    ffi, lib = load(
        ("libzstd.so.1",),
        """
        void *ZSTD_createCCtx(void);
        size_t ZSTD_freeCCtx(void *);
        size_t ZSTD_compressCCtx(void *, void *, size_t, const void *, size_t, int);
        """,
    )
    context = ffi.gc(lib.ZSTD_createCCtx(), lib.ZSTD_freeCCtx)
    room = ffi.new("char[]", PAGE_SIZE)

    def pack(page: memoryview) -> bytes:
        size = lib.ZSTD_compressCCtx(context, room, PAGE_SIZE, ffi.from_buffer(page), PAGE_SIZE, _LEVEL)
        return bytes(ffi.buffer(room, size)) if size < PAGE_SIZE else bytes(page)  # an error is larger than any size

    return pack


PACKINGS: Mapping[str, tuple[int, Callable[[], Pack]]] = {"zlib": (_ZLIB, _zlib), "zstd": (_ZSTD, _zstd)}
"""By name: the flag of a page, and what makes the function that compresses one."""


class Kdump:
    """All memory that exists, the registers of all vCPUs as they are now, and VMCOREINFO of the guest's ``kernel``.

    ``limit`` is what the file cannot become larger than; ``memory`` is how much there is. Both in bytes.
    """

    def __init__(self, machine: Microvmi, packing: str, kernel: GuestKernel | None = None) -> None:
        """``packing`` is one of :data:`PACKINGS`. Raises ``DriverUnavailableError`` without its library."""
        self._flag, make = PACKINGS[packing]
        self._pack = make()
        self._runs = list(_whole_pages(joined(machine.memory_map(), U64_MAX + 1)))
        self._end = self._runs[-1][1] if self._runs else 0
        self._layout = Layout(
            machine, [Segment(start, end - start, None, start) for start, end in self._runs], self._end
        )
        self.memory = sum(end - start for start, end in self._runs)
        self._vmcoreinfo = (kernel.vmcoreinfo if kernel else None) or b""
        self._system = _system(machine.driver.architecture, kernel)
        self._place = kernel.phys_base & U64_MAX if kernel else 0
        states = states_of(machine)
        self._vcpus = max(len(states), 1)
        self._notes = notes(states, self._vmcoreinfo)
        self._sub = -(-(_SUB_HEADER.size + len(self._notes)) // PAGE_SIZE)
        self._half = -(-self._end // (_Bitmap.BITS * PAGE_SIZE))
        self._bitmaps = (1 + self._sub) * PAGE_SIZE
        self._table = self._bitmaps + 2 * self._half * PAGE_SIZE
        self._data = self._table + self.memory // PAGE_SIZE * _DESCRIPTOR.size
        self.limit = self._data + PAGE_SIZE + self.memory

    def write(self, put: Put, report: Callable[[int], object], *, holes: bool) -> tuple[int, int]:
        """Write the file, and tell ``report`` how much memory is done.

        ``holes``: bits of which a whole page is zeros need not be written, as in a file where nothing was.
        Returns the file's size, and how many bytes of memory are not zeros by whole pages.
        """
        put(0, self._header().ljust(PAGE_SIZE, b"\0"))
        put(PAGE_SIZE, self._sub_header() + self._notes)
        for number in range(2):
            bitmap = _Bitmap(put, self._bitmaps + number * self._half * PAGE_SIZE, holes=holes)
            for start, end in self._runs:
                bitmap.add(start // PAGE_SIZE, end // PAGE_SIZE)
            bitmap.flush()
        return _Pages(put, self._pack, self._flag, self._table, self._data).write(self._layout, self._runs, report)

    def _header(self) -> bytes:
        pages, there = self._end // PAGE_SIZE, self.memory // PAGE_SIZE
        sizes = (self._flag, PAGE_SIZE, self._sub, 2 * self._half)
        counts = (min(number, 0xFFFFFFFF) for number in (pages, there, 0, there, 0, self._vcpus))
        return _HEADER.pack(b"KDUMP   ", _VERSION, *self._system, *sizes, *counts)

    def _sub_header(self) -> bytes:
        begin = PAGE_SIZE + _SUB_HEADER.size
        told = (begin + self._notes.rindex(self._vmcoreinfo), len(self._vmcoreinfo)) if self._vmcoreinfo else (0, 0)
        note = (begin, len(self._notes)) if self._notes else (0, 0)
        return _SUB_HEADER.pack(self._place, _WITHOUT_ZEROS, 0, 0, 0, *told, *note, 0, 0, 0, 0, self._end // PAGE_SIZE)


class _Pages:
    """The table and the pages behind it, of which the first is that of zeros."""

    def __init__(self, put: Put, pack: Pack, flag: int, table: int, data: int) -> None:
        self._pack = pack
        self._flag = flag
        self._table, self._data = _Gathered(put, table), _Gathered(put, data)
        self._zeros = self._added(memoryview(bytes(PAGE_SIZE)))

    def _added(self, page: memoryview) -> bytes:
        """The descriptor of a page that is now in the file. What does not become smaller stays as it is."""
        packed, place = self._pack(page), self._data.end
        smaller = len(packed) < PAGE_SIZE
        self._data.add(packed if smaller else page)
        return _DESCRIPTOR.pack(place, len(packed) if smaller else PAGE_SIZE, self._flag if smaller else 0)

    def write(
        self, layout: Layout, runs: Iterable[tuple[int, int]], report: Callable[[int], object]
    ) -> tuple[int, int]:
        """Write all pages of these (start, end); where the file ends, and the bytes of pages that are not zeros."""
        done = data = 0
        for start, end in runs:
            at = start
            for address, piece in pieces(layout, _may_hold_something(layout, start, end)):
                self._add_zeros(address - at)
                data += self._add(piece)
                at = address + len(piece)
                report(done + at - start)
            self._add_zeros(end - at)
            done += end - start
            report(done)
        self._table.flush()
        self._data.flush()
        return self._data.end, data

    def _add(self, piece: memoryview) -> int:
        """These pages follow; the bytes of those that are not zeros."""
        at = 0
        for start, end in filled(piece):
            self._add_zeros(start - at)
            for page in range(start, end, PAGE_SIZE):
                self._table.add(self._added(piece[page : page + PAGE_SIZE]))
            at = end
        self._add_zeros(len(piece) - at)
        return sum(end - start for start, end in filled(piece))

    def _add_zeros(self, size: int) -> None:
        """So many bytes of zeros follow."""
        count = size // PAGE_SIZE
        while count > 0:
            some = min(count, _AT_ONCE // _DESCRIPTOR.size)
            self._table.add(self._zeros * some)
            count -= some


def _system(architecture: Architecture, kernel: GuestKernel | None) -> Sequence[bytes]:
    """What ``uname`` says in a guest, as far as it is known. None is empty, as libkdumpfile believes no other."""
    release, _, build = (kernel.release, *kernel.banner.partition(" #")[1:]) if kernel else ("", "", "")
    names = ("Linux" if kernel else "", "", release, build and f"#{build}", _MACHINES[architecture], "")
    return [name.encode("ascii", "replace")[:64] or b"(none)" for name in names]


def _may_hold_something(layout: Layout, start: int, end: int) -> Iterator[Extent]:
    """The extents of whole pages within these addresses that are not known to be zeros."""
    data = ((extent.offset, extent.end) for extent in layout.extents(start, end - start) if not extent.hole)
    return (Extent(begin, until - begin, False) for begin, until in _whole_pages(data))


def _whole_pages(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(start, end) of the pages that these ascending ranges touch, each page once."""
    done = 0
    for start, end in ranges:
        begin, done = max(start // PAGE_SIZE * PAGE_SIZE, done), -(-end // PAGE_SIZE) * PAGE_SIZE
        if begin < done:
            yield begin, done


class _Gathered:
    """Bytes one behind the other from an offset of the file on; ``end`` is where the next are."""

    def __init__(self, put: Put, offset: int) -> None:
        self._put = put
        self._content = bytearray()
        self.end = offset

    def add(self, content: ReadableBuffer) -> None:
        before = len(self._content)
        self._content += content
        self.end += len(self._content) - before
        if len(self._content) >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if self._content:
            self._put(self.end - len(self._content), self._content)
            self._content = bytearray()


class _Bitmap:
    """A bit a page from an offset of the file on. Runs of ones are added in ascending order; a block is in memory."""

    BITS = 8 * PAGE_SIZE

    def __init__(self, put: Put, offset: int, *, holes: bool) -> None:
        self._put = put
        self._offset = offset
        self._holes = holes
        self._block = self._ones = 0

    def add(self, first: int, end: int) -> None:
        """The pages from ``first`` to before ``end`` are there."""
        while first < end:
            block, bit = divmod(first, self.BITS)
            if block != self._block:
                self._go_on_at(block)
            until = min(end - block * self.BITS, self.BITS)
            self._ones |= (1 << until) - (1 << bit)
            first = block * self.BITS + until

    def _go_on_at(self, block: int) -> None:
        """Write this block, and those between the two."""
        self.flush()
        for skipped in range(self._block + 1, block) if not self._holes else ():
            self._block = skipped
            self.flush()
        self._block = block

    def flush(self) -> None:
        if self._ones or not self._holes:
            self._put(self._offset + self._block * PAGE_SIZE, self._ones.to_bytes(PAGE_SIZE, "little"))
            self._ones = 0
