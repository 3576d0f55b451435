# SPDX-License-Identifier: Apache-2.0
"""ELF cores of whole machines: QEMU's dump-guest-memory, libvirt's dump --memory-only, VirtualBox, kernels' vmcores.

A PT_LOAD is memory from p_paddr on, a PT_NOTE holds registers. 32 and 64 bits, little-endian. Segments may be in any
order and overlap, as those of QEMU with ``paging`` and those of a kernel's vmcore do: the first one holds. /proc/kcore
has the kernel's virtual areas as well, which are nowhere (p_paddr has all bits set).
"""

from __future__ import annotations

import struct

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump import notes
from libmicrovmi_py.drivers.dump.contents import Contents, Processors
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.layout import Extent, laid_out
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.model import PHYSICAL_BITS, Architecture

BEGINS = (b"\x7fELF",)

_ET_CORE, _PT_LOAD, _PT_NOTE, _PN_XNUM = 4, 1, 4, 0xFFFF
_INCOMPLETE = 1
"""What makedumpfile sets among the header's flags, of which x86 has none of its own, when the disk is full."""
_WAY_OUT = "name the dump of the machine's memory"
_X86 = (3, 62)  # EM_386, EM_X86_64
_NAMES = {3: "i386", 8: "mips", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 258: "loongarch64"}
_MACHINES = {**dict.fromkeys(_X86, Architecture.X86), 183: Architecture.AARCH64}


class _Class(NamedTuple):
    """How a class of files is laid out: header, section header up to sh_info, program header with its order."""

    wide: bool
    header: struct.Struct
    section: struct.Struct
    segment: struct.Struct
    order: tuple[int, ...]


_CLASSES = {
    1: _Class(
        False, struct.Struct("<16x2H4x4x3I2x2H"), struct.Struct("<28xI8x"), struct.Struct("<8I"), (0, 1, 2, 3, 4, 5)
    ),
    2: _Class(
        True, struct.Struct("<16x2H4x8x2QI2x2H"), struct.Struct("<44xI16x"), struct.Struct("<2I6Q"), (0, 2, 3, 4, 5, 6)
    ),
}
"""By EI_CLASS; ``order`` is where p_type, p_offset, p_vaddr, p_paddr, p_filesz and p_memsz are."""


class _Segment(NamedTuple):
    kind: int
    offset: int
    virtual: int
    address: int
    size: int
    in_memory: int


def probe(image: Image) -> Probe:
    """By its signature, which cores of another layout have as well; what kind of core it is, reading it tells."""
    return Probe(Sure.LIKELY, "an ELF file")


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    ident = image.read(0, 16, "the ELF header")
    if not ident.startswith(b"\x7fELF") or ident[4] not in _CLASSES:
        raise image.damaged("there is no ELF header of 32 or 64 bits")
    if ident[5] != 1:
        raise image.refused("a big-endian ELF core (s390x, ppc64)", "only little-endian ones are read")
    layout = _CLASSES[ident[4]]
    machine, segments = _segments(image, layout)
    loads = _loads(image, segments, layout)
    processors = _processors(image, segments, layout.wide, _MACHINES.get(machine))
    there = [(load, image.clipped(load.offset, load.size, f"memory from {load.address:#x} on")) for load in loads]
    extents = laid_out(Extent(load.address, size, load.offset) for load, size in there)
    name = _NAMES.get(machine, f"ELF machine {machine}")
    if processors.hypervisor and any(load.virtual not in (0, load.address) for load in loads):
        return Contents(extents, processors, whole=False, producer=processors.producer, machine=name)
    exists = [(load.address, load.address + max(load.size, load.in_memory)) for load in loads]
    believed = all(end <= 1 << PHYSICAL_BITS for _, end in exists)
    whole = all(load.in_memory <= size for load, size in there)
    known = exists if believed else None
    return Contents(extents, processors, known, whole, producer=processors.producer, machine=name)


def _segments(image: Image, layout: _Class) -> tuple[int, list[_Segment]]:
    """The machine that the file is of, and its program headers."""
    content = image.read(0, layout.header.size, "the ELF header")
    kind, machine, table, sections, flags, entry, count = layout.header.unpack(content)
    if kind != _ET_CORE:
        raise image.refused("an ELF file but no core (a program or a library)", _WAY_OUT)
    if machine in _X86 and flags & _INCOMPLETE:
        image.amiss("it says that it was not finished")
    if count == _PN_XNUM:
        (count,) = layout.section.unpack(image.read(sections, layout.section.size, "the number of segments"))
    if count and entry != layout.segment.size:
        raise image.damaged(f"program headers have {entry} bytes, not {layout.segment.size}")
    if count > MAX_PIECES:
        raise image.refused(f"an ELF core of {count} segments", f"there may be {MAX_PIECES}: make it with fewer")
    size = image.clipped(table, count * layout.segment.size, f"{count} program headers")
    size -= size % layout.segment.size
    rows = layout.segment.iter_unpack(image.read(table, size, "program headers"))
    return machine, [_Segment(*(row[place] for place in layout.order)) for row in rows]


def _loads(image: Image, segments: list[_Segment], layout: _Class) -> list[_Segment]:
    """The segments with memory in the file; what exceeds that (p_memsz) was left out of the dump."""
    nowhere = (1 << (64 if layout.wide else 32)) - 1
    given = [segment for segment in segments if segment.kind == _PT_LOAD and segment.size]
    loads = [segment for segment in given if segment.address != nowhere or not segment.virtual]
    if not segments:
        raise image.refused("an ELF core without segments", _WAY_OUT)
    if not loads:
        raise image.refused("an ELF core without memory", _WAY_OUT)
    if len(loads) > 1 and all(load.address == 0 for load in loads):
        raise image.refused("the core of a process, not of a machine", _WAY_OUT)
    for load in loads:
        if load.address + load.size > 1 << PHYSICAL_BITS:
            raise image.damaged(f"memory would be at {load.address:#x}, {load.size:#x} bytes")
    return loads


def _processors(image: Image, segments: list[_Segment], wide: bool, machine: Architecture | None) -> Processors:
    places = [(segment.offset, segment.size) for segment in segments if segment.kind == _PT_NOTE]
    if sum(size for _, size in places) > notes.MAX_SIZE:
        raise image.damaged("its notes are longer than any machine's")
    content = b"".join(image.read(offset, image.clipped(offset, size, "notes"), "notes") for offset, size in places)
    try:
        return notes.processors(content, wide=wide, machine=machine)
    except ValueError as err:
        image.amiss(str(err))
        return Processors()
