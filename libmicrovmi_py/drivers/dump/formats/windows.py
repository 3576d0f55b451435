# SPDX-License-Identifier: Apache-2.0
"""Windows crash dumps of all memory or of a part of it, of 64-bit and of 32-bit machines.

8 KiB of header (DUMP_HEADER64; 4 KiB of 32 bits), and what the type of the dump says: the pages of the header's runs; a
bitmap with a header of its own, and its pages; or a table of ranges with a header of its own, and their pages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import pairwise

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.bitmap import runs
from libmicrovmi_py.drivers.dump.contents import Contents, Processors
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.layout import Extent, joined, once
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.windows_registers import CONTEXTS, registers_of
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE, PHYSICAL_BITS, Architecture

BEGINS = (b"PAGEDU64", b"PAGEDUMP")


class _Header(NamedTuple):
    """A header of ``size`` bytes, and where in it is what.

    ``counts`` are those of its runs and of their pages, ``run`` is the first page of a run and how many it has;
    ``table`` is cr3.
    """

    bits: int
    size: int
    table: struct.Struct
    machine: int
    runs: int
    counts: struct.Struct
    run: struct.Struct
    context: int
    type: int


_RUNS_SIZE = 700
_TABLE = 0x10
_WIDE = _Header(64, 0x2000, struct.Struct("<Q"), 0x30, 0x88, struct.Struct("<I4xQ"), struct.Struct("<2Q"), 0x348, 0xF98)
_NARROW = _Header(32, 0x1000, struct.Struct("<I"), 0x20, 0x64, struct.Struct("<2I"), struct.Struct("<2I"), 0x320, 0xF88)
_PAE = 0x5C
_MACHINES = {0x8664: "x86_64", 0x14C: "i386", 0xAA64: "aarch64"}

_FULL, _OLD_KERNEL, _BITMAPS = 1, 2, (2, 5, 6, 7)
_KERNEL, _KERNEL_AND_USER, _COMPLETE = 8, 9, 10
_BITMAP = struct.Struct("<8s24x3Q")
_OLD_BITMAP = struct.Struct("<8s4x3I")
_RANGES, _RANGE, _FIRST_RANGE = struct.Struct("<I8s4x2QI4xQ"), struct.Struct("<2Q"), 0x20
_CHUNK = 64 << 10


def probe(image: Image) -> Probe:
    """By the signature of a header."""
    return Probe(Sure.CERTAIN, f"a {_header_of(image).bits}-bit Windows crash dump")


def _header_of(image: Image) -> _Header:
    for magic, header in zip(BEGINS, (_WIDE, _NARROW), strict=True):
        if image.start.startswith(magic):
            return header
    raise image.damaged("there is no header of a Windows crash dump")


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    header = _header_of(image)
    content = image.read(0, header.size, "the header")
    (kind,) = struct.unpack_from("<I", content, header.type)
    if kind == _FULL:
        extents = _extents(image, _runs(image, header, content), header.size)
    elif kind in _BITMAPS:
        extents = _of_bitmap(image, header, kind)
    elif kind in (_KERNEL, _KERNEL_AND_USER, _COMPLETE) and header.bits == 64:
        extents = _of_ranges(image, header, kind)
    else:
        raise image.refused(f"a Windows crash dump of type {kind}", "make a full one, or one with a bitmap")
    machine, _ = struct.unpack_from("<2I", content, header.machine)
    name = _MACHINES.get(machine, "")
    if header.bits == 32 and content[_PAE] == 1:
        name += "-pae"
    return Contents(extents, _processors(image, header, content), producer="Windows", machine=name)


def _runs(image: Image, header: _Header, content: bytes) -> Iterator[tuple[int, int]]:
    """(first, one past the last) of the header's runs, which are sorted."""
    count, pages = header.counts.unpack_from(content, header.runs)
    begin = header.runs + header.counts.size
    if not 0 < count <= (_RUNS_SIZE - header.counts.size) // header.run.size:
        raise image.damaged(f"its header has {count} runs of memory")
    table = header.run.iter_unpack(content[begin : begin + header.run.size * count])
    found = [(base, base + length) for base, length in table]
    if sum(end - first for first, end in found) != pages:
        raise image.damaged(f"its header has {pages:#x} pages in all, and others in its runs")
    if any(one[1] > other[0] for one, other in pairwise(found)):
        raise image.damaged("its runs of memory overlap or are not in order")
    yield from found


def _of_bitmap(image: Image, header: _Header, kind: int) -> list[Extent]:
    content = image.read(header.size, _BITMAP.size, "the header of the bitmap")
    magic, first, present, bits = _BITMAP.unpack(content)
    if magic not in (b"SDMPDUMP", b"FDMPDUMP"):
        raise image.damaged(f"there is no header of a bitmap at {header.size:#x}")
    if kind == _OLD_KERNEL and _is_old(content):
        raise image.refused("a kernel dump of a Windows before 8", "make a full dump, or convert it with a debugger")
    start = header.size + _BITMAP.size
    if first < start + -(-bits // 8):
        raise image.damaged(f"the bitmap of {bits:#x} pages reaches into the pages, which begin at {first:#x}")
    return _all_of(image, _extents(image, runs(image, start, bits), first), present)


def _all_of(image: Image, extents: list[Extent], pages: int) -> list[Extent]:
    """The extents, if they are so many pages as the header of the bitmap, or of the ranges, says."""
    found = sum(extent.size for extent in extents) >> PAGE_SHIFT
    if found != pages and not image.opening.missing:
        image.amiss(f"it has {found:#x} pages, not {pages:#x} as a header says")
    return extents


def _is_old(content: bytes) -> bool:
    """Whether the header of a bitmap is as it was first: 32 bits each for where pages begin, its size, their count."""
    _, first, size, pages = _OLD_BITMAP.unpack_from(content)
    return bool(first % PAGE_SIZE == 0 and min(first, size, pages) > 0)


def _of_ranges(image: Image, header: _Header, kind: int) -> list[Extent]:
    """The pages of a table of ranges, one range after the other. A complete dump says how many pages there are."""
    content = image.read(header.size, _RANGES.size, "the header of the ranges")
    mark, magic, size, first, _, pages = _RANGES.unpack(content)
    if (mark, magic) != (0x40, b"RDMPDUMP"):
        raise image.damaged(f"there is no header of ranges at {header.size:#x}")
    if first != header.size + _FIRST_RANGE + size or size % _RANGE.size or size < _RANGE.size:
        raise image.damaged(f"its ranges have {size:#x} bytes, and its pages begin at {first:#x}")
    image.check(header.size, first - header.size, "the table of ranges")
    complete = kind == _COMPLETE
    table = _ranges(image, header.size + _RANGES.size, first, pages if complete else None)
    extents = _extents(image, table, first)
    if complete:
        _all_of(image, extents, pages)
    try:
        return once(extents)
    except ValueError as err:
        raise image.damaged(str(err)) from None


def _ranges(image: Image, position: int, end: int, total: int | None) -> Iterator[tuple[int, int]]:
    """(first, one past the last) of the ranges between two offsets, up to one of page 0, or to so many pages."""
    found = 0
    while position < end:
        chunk = image.read(position, min(_CHUNK, end - position), "the table of ranges")
        for first, count in _RANGE.iter_unpack(chunk):
            if first == 0 or found == total:
                return
            yield first, first + count
            found += count
        position += len(chunk)


def _extents(image: Image, found: Iterable[tuple[int, int]], offset: int) -> list[Extent]:
    """The pages of all runs one after the other in the file, from ``offset`` on."""
    extents: list[Extent] = []
    for first, end in found:
        size = (end - first) << PAGE_SHIFT
        if end << PAGE_SHIFT > 1 << PHYSICAL_BITS or len(extents) == MAX_PIECES:
            raise image.damaged(f"its memory goes up to page {end:#x} in {len(extents) + 1} runs")
        there = image.clipped(offset, size, f"memory from page {first:#x} on")
        extents.append(Extent(first << PAGE_SHIFT, there, offset))
        offset += size
    return joined(extent for extent in extents if extent.size)


def _processors(image: Image, header: _Header, content: bytes) -> Processors:
    """The number of processors, and the registers of the one that wrote the dump, whichever it was."""
    machine, count = struct.unpack_from("<2I", content, header.machine)
    context = CONTEXTS.get(machine)
    if context is None:
        return Processors()
    if not 0 < count <= 0xFFFF:
        raise image.damaged(f"its header has {count} processors")
    found = registers_of(context, content, header.context)
    if context.architecture is Architecture.X86:
        found["cr3"] = header.table.unpack_from(content, _TABLE)[0]
    return Processors(count, [VcpuState(context.architecture, found)])
