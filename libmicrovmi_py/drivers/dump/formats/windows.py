# SPDX-License-Identifier: Apache-2.0
"""Windows crash dumps of 64-bit machines: full, and those with a bitmap of pages (full, kernel, automatic).

8 KiB of header (DUMP_HEADER64), then the pages of all runs; or a bitmap with a header of its own, and its pages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import pairwise

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.arch.x86.registers import CODE_AND_DATA, DEBUG, ENCODED
from libmicrovmi_py.drivers.dump.bitmap import runs
from libmicrovmi_py.drivers.dump.contents import Contents, Processors
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.known import FORMATS
from libmicrovmi_py.drivers.dump.layout import Extent, joined
from libmicrovmi_py.model import PAGE_SHIFT, PHYSICAL_BITS, Architecture

_MAGIC = FORMATS["windows"]
_HEADER_SIZE = 0x2000
_DTB, _MACHINE, _RUNS, _CONTEXT, _TYPE = 0x10, 0x30, 0x88, 0x348, 0xF98
_MAX_RUNS = (700 - 16) // 16
_FULL, _BITMAPS = 1, (2, 5, 6, 7)
_BITMAP = struct.Struct("<8s24x3Q")
_AMD64, _CONTEXT_AMD64 = 0x8664, 0x100000
_REGISTERS = struct.Struct("<48xI4x6HI6Q17Q")
_NAMES = (*(f"{name}_selector" for name in CODE_AND_DATA), "rflags", *DEBUG, *ENCODED, "rip")
_CONTROL = ("cs_selector", "ss_selector", "rip", "rsp", "rflags")
_SEGMENTS = ("ds_selector", "es_selector", "fs_selector", "gs_selector")
_PARTS = {
    1: _CONTROL,
    2: tuple(name for name in ENCODED if name != "rsp"),
    4: _SEGMENTS,
    0x10: DEBUG,
}
"""Which registers a context has, by the bits of its flags."""


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    header = image.read(0, _HEADER_SIZE, "the header")
    if not header.startswith(_MAGIC):
        raise image.damaged("there is no header of a 64-bit Windows crash dump")
    (kind,) = struct.unpack_from("<I", header, _TYPE)
    if kind == _FULL:
        extents = _extents(image, _runs(image, header), _HEADER_SIZE)
    elif kind in _BITMAPS:
        extents = _of_bitmap(image)
    else:
        raise image.refused(f"a Windows crash dump of type {kind}", "make a full one, or one with a bitmap")
    return Contents(extents, _processors(image, header))


def _runs(image: Image, header: bytes) -> Iterator[tuple[int, int]]:
    """(first, one past the last) of the header's runs, which are sorted."""
    count, pages = struct.unpack_from("<I4xQ", header, _RUNS)
    if not 0 < count <= _MAX_RUNS:
        raise image.damaged(f"its header has {count} runs of memory")
    table = struct.iter_unpack("<2Q", header[_RUNS + 16 : _RUNS + 16 + 16 * count])
    found = [(base, base + length) for base, length in table]
    if sum(end - first for first, end in found) != pages:
        raise image.damaged(f"its header has {pages:#x} pages in all, and others in its runs")
    if any(one[1] > other[0] for one, other in pairwise(found)):
        raise image.damaged("its runs of memory overlap or are not in order")
    yield from found


def _of_bitmap(image: Image) -> list[Extent]:
    magic, first, present, bits = _BITMAP.unpack(image.read(_HEADER_SIZE, _BITMAP.size, "the header of the bitmap"))
    if magic not in (b"SDMPDUMP", b"FDMPDUMP"):
        raise image.damaged(f"there is no header of a bitmap at {_HEADER_SIZE:#x}")
    start = _HEADER_SIZE + _BITMAP.size
    if first < start + -(-bits // 8):
        raise image.damaged(f"the bitmap of {bits:#x} pages reaches into the pages, which begin at {first:#x}")
    extents = _extents(image, runs(image, start, bits), first)
    found = sum(extent.size for extent in extents) >> PAGE_SHIFT
    if found != present:
        raise image.damaged(f"the bitmap has {found:#x} pages, not {present:#x} as its header says")
    return extents


def _extents(image: Image, found: Iterable[tuple[int, int]], offset: int) -> list[Extent]:
    """The pages of all runs one after the other in the file, from ``offset`` on."""
    extents: list[Extent] = []
    for first, end in found:
        size = (end - first) << PAGE_SHIFT
        if end << PAGE_SHIFT > 1 << PHYSICAL_BITS or len(extents) == MAX_PIECES:
            raise image.damaged(f"its memory goes up to page {end:#x} in {len(extents) + 1} runs")
        image.check(offset, size, f"memory from page {first:#x} on")
        extents.append(Extent(first << PAGE_SHIFT, size, offset))
        offset += size
    return joined(extent for extent in extents if extent.size)


def _processors(image: Image, header: bytes) -> Processors:
    """The number of processors, and the registers of the one that wrote the dump, whichever it was."""
    machine, count = struct.unpack_from("<2I", header, _MACHINE)
    if machine != _AMD64:
        return Processors()
    if not 0 < count <= 0xFFFF:
        raise image.damaged(f"its header has {count} processors")
    (table,) = struct.unpack_from("<Q", header, _DTB)
    flags, *values = _REGISTERS.unpack_from(header, _CONTEXT)
    known = dict(zip(_NAMES, values, strict=True))
    parts = _PARTS.items() if flags & _CONTEXT_AMD64 else ()
    found = {name: known[name] for bit, names in parts if flags & bit for name in names}
    return Processors(count, [VcpuState(Architecture.X86, {"cr3": table, **found})])
