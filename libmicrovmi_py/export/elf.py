# SPDX-License-Identifier: Apache-2.0
"""ELF cores of whole machines, as hypervisors write them, and kernels that crash: memory by physical address, notes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.export.layout import Layout, Segment, joined
from libmicrovmi_py.export.notes import notes, states_of
from libmicrovmi_py.export.virtual import NOWHERE, GuestKernel, Text, direct_map, text_of
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import PAGE_SIZE, U64_MAX, Architecture

_HEADER = struct.Struct("<16s2HI3QI6H")
_PROGRAM = struct.Struct("<2I6Q")
_SECTION = struct.Struct("<44xI16x")
"""The first section header: where there are more segments than the header has room for, it has their number."""

_IDENT = b"\x7fELF\x02\x01\x01"
_ET_CORE, _PT_LOAD, _PT_NOTE, _PN_XNUM, _READ_WRITE_EXECUTE = 4, 1, 4, 0xFFFF, 7
_MACHINES = {Architecture.X86: 62, Architecture.AARCH64: 183}


class _Load(NamedTuple):
    """A PT_LOAD: where in the file, its first virtual (0: none) and physical address, bytes."""

    offset: int
    virtual: int
    address: int
    size: int

    def row(self) -> bytes:
        """The program header."""
        place = (self.offset, self.virtual, self.address)
        return _PROGRAM.pack(_PT_LOAD, _READ_WRITE_EXECUTE, *place, self.size, self.size, PAGE_SIZE)


def elf(machine: Microvmi, kernel: GuestKernel | None = None) -> Layout:
    """All memory that exists, and the registers of all vCPUs where they are known, at the moment of this call.

    With the guest's ``kernel`` there is VMCOREINFO, memory has the virtual addresses that the kernel has it at, and a
    segment more is the kernel's text by those that it is linked for.
    """
    note = notes(states_of(machine), kernel.vmcoreinfo if kernel else None)
    ranges = joined(machine.memory_map(), U64_MAX + 1)
    text = text_of(kernel, ranges) if kernel else None
    places = {start: NOWHERE + start for start, _ in ranges} | direct_map(kernel, ranges) if kernel else {}
    count = 1 + len(ranges) + (text is not None)
    sections = 64 if count >= _PN_XNUM else 0
    place = _HEADER.size + sections + count * _PROGRAM.size
    loads = list(_loads(ranges, places, _aligned(place + len(note))))
    rows = [load.row() for load in loads] + ([_within(loads, text).row()] if text else [])
    head = _header(_MACHINES[machine.driver.architecture], count)
    head += _PROGRAM.pack(_PT_NOTE, 0, place, 0, 0, len(note), len(note), 4) + b"".join(rows) + note
    segments = [Segment(0, len(head), head)] + [Segment(load.offset, load.size, None, load.address) for load in loads]
    return Layout(machine, segments, segments[-1].end)


def _header(machine: int, count: int) -> bytes:
    """The ELF header; behind it, if there are too many segments for it, a section header that has their number."""
    many = count >= _PN_XNUM
    table = _HEADER.size + (_SECTION.size if many else 0)
    sizes = (_HEADER.size, _PROGRAM.size, min(count, _PN_XNUM), _SECTION.size, int(many), 0)
    header = _HEADER.pack(_IDENT, _ET_CORE, machine, 1, 0, table, _HEADER.size if many else 0, 0, *sizes)
    return header + (_SECTION.pack(count) if many else b"")


def _loads(ranges: Sequence[tuple[int, int]], places: Mapping[int, int], offset: int) -> Iterator[_Load]:
    for start, end in ranges:
        yield _Load(offset, places.get(start, 0), start, end - start)
        offset = _aligned(offset + end - start)


def _aligned(offset: int) -> int:
    return -(-offset // PAGE_SIZE) * PAGE_SIZE


def _within(loads: Sequence[_Load], part: Text) -> _Load:
    """The same memory at its place in the file."""
    whole = next(load for load in loads if load.address <= part.address < load.address + load.size)
    return _Load(whole.offset + part.address - whole.address, *part)
