# SPDX-License-Identifier: Apache-2.0
"""Xen's cores of HVM and PVH domains: ``xl dump-core``. An ELF file of sections, without segments.

``.note.Xen`` has the header, ``.xen_prstatus`` the registers, ``.xen_pages`` the pages, and behind them ``.xen_pfn``
the number of each: ascending, and all ones for those at the end that were not found.
https://xenbits.xen.org/docs/unstable/misc/dump-core-format.txt.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.drivers.dump.contents import Contents, Processors
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.layout import Extent, joined
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.xendomain import DomainKinds, runs
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE, PHYSICAL_BITS, Architecture

if TYPE_CHECKING:
    from libmicrovmi_py.arch.state import VcpuState

BEGINS = ((1, b"ELF\x02\x01\x01"),)
"""Behind the byte that other ELF files are found by."""

_ELF = struct.Struct("<16x2H20xQ8x4H")
"""Type, machine, where the sections are told, how many segments, how long a section's header is, how many there are,
and which of them has their names."""
_SECTION = struct.Struct("<I20x2Q24x")
_NOTE = struct.Struct("<3I4s")
_CORE, _X86, _AARCH64 = 4, 62, 183
_NAMES = {_X86: "x86_64", _AARCH64: "aarch64"}
_MOST_SECTIONS = 64
_MOST_NAMES = 1 << 16
_MOST_NOTES = 1 << 16
_MOST_VCPUS = 1 << 12
_NOTHING, _HEADER, _VERSION, _FORMAT = range(0x2000000, 0x2000004)
_FULL, _PARAVIRTUAL = 0xF00FEBEE, 0xF00FEBED
_AT_ONCE = 1 << 16
_VCPU = 5168
_ONLINE = 1 << 5
_WAY_OUT = "open the domain itself, or save its memory in another way"


class _Header(NamedTuple):
    magic: int
    vcpus: int
    pages: int
    page_size: int


class _Section(NamedTuple):
    offset: int
    size: int


_USER = ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi")
_LAYOUT = [
    (520, "<Q", _USER),
    (
        648,
        "<Q",
        ("rip", "cs_selector", "rflags", "rsp", *(f"{name}_selector" for name in ("ss", "es", "ds", "fs", "gs"))),
    ),
    (4984, "<Q", ("cr0",)),
    (5000, "<Q", ("cr2", "cr3", "cr4")),
    (5048, "<Q", ("dr0", "dr1", "dr2", "dr3")),
    (5096, "<Q", ("dr6", "dr7")),
    (5144, "<Q", ("fs_base", "kernel_gs_base", "gs_base")),
]
"""Where in a vCPU's state which registers are; of a selector there are the first 16 bits."""


def probe(image: Image) -> Probe | None:
    """A core without segments, with the first of Xen's notes, which says nothing else."""
    if len(image.start) < _ELF.size:
        return None
    kind, _, _, segments, *_ = _ELF.unpack_from(image.start)
    if kind != _CORE or segments or _NOTE.pack(4, 0, _NOTHING, b"Xen\0") not in image.start:
        return None
    return Probe(Sure.CERTAIN, "a core of a Xen domain")


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    _, machine, *_ = _ELF.unpack(image.read(0, _ELF.size, "the ELF header"))
    sections = _sections(image)
    told = _notes(image, _named(image, sections, ".note.Xen"))
    header = _header(image, told)
    extents = _extents(image, sections, header)
    exists = [(extent.start, extent.end) for extent in extents]
    whole = sum(extent.size for extent in extents) == header.pages * PAGE_SIZE
    processors, kinds = Processors(), None
    if machine == _X86:
        states = list(_states(image, _named(image, sections, ".xen_prstatus"), header))
        processors, kinds = Processors(len(states), states, producer="Xen"), DomainKinds(exists)
    name = _NAMES.get(machine, f"ELF machine {machine}")
    return Contents(extents, processors, exists, whole, producer=_producer(told), machine=name, kinds=kinds)


def _sections(image: Image) -> dict[str, _Section]:
    """The sections by their names."""
    _, _, table, _, size, count, names = _ELF.unpack(image.read(0, _ELF.size, "the ELF header"))
    if size != _SECTION.size or not names < count <= _MOST_SECTIONS:
        raise image.damaged(f"it would have {count} sections, told in {size} bytes each")
    rows = list(_SECTION.iter_unpack(image.read(table, count * size, "the headers of sections")))
    _, place, length = rows[names]
    if length > _MOST_NAMES:
        raise image.damaged(f"the names of its sections would have {length:#x} bytes")
    texts = image.read(place, length, "the names of sections")
    return {_text(texts, place): _Section(offset, length) for place, offset, length in rows}


def _text(texts: bytes, place: int) -> str:
    return texts[place:].partition(b"\0")[0].decode("ascii", "replace")


def _named(image: Image, sections: Mapping[str, _Section], name: str) -> _Section:
    """A section that has to be there. Raises ``IoError`` unless it is, and lies in the file."""
    if name not in sections:
        raise image.damaged(f"it has no section {name}")
    image.check(*sections[name], f"the section {name}")
    return sections[name]


def _notes(image: Image, section: _Section) -> dict[int, bytes]:
    """Xen's notes by their types. Raises ``IoError`` for those that do not fit."""
    if section.size > _MOST_NOTES:
        raise image.damaged("its notes are longer than any domain's")
    content, found, position = image.read(*section, "notes"), {}, 0
    while position + _NOTE.size <= len(content):
        name_size, size, kind, name = _NOTE.unpack_from(content, position)
        position += _NOTE.size
        if name_size != 4 or name != b"Xen\0" or position + size > len(content):
            raise image.damaged(f"there is no note of Xen at {section.offset + position - _NOTE.size:#x}")
        found[kind] = content[position : position + size]
        position += size + -size % 4
    return found


def _header(image: Image, told: Mapping[int, bytes]) -> _Header:
    """Raises ``IoError``, ``DriverUnavailableError`` for a domain of another kind."""
    if len(told.get(_HEADER, b"")) < 32 or len(told.get(_FORMAT, b"")) < 8:
        raise image.damaged("the note that says what it holds is missing")
    header = _Header(*struct.unpack_from("<4Q", told[_HEADER]))
    major, minor = divmod(int.from_bytes(told[_FORMAT][:8], "little"), 1 << 32)
    if major:
        raise image.refused(f"a core of a Xen domain of version {major}.{minor}", _WAY_OUT)
    if header.magic == _PARAVIRTUAL:
        raise image.refused("a core of a paravirtual Xen domain", "only those of HVM and PVH domains are read")
    if header.magic != _FULL or header.page_size != PAGE_SIZE:
        raise image.damaged(f"its kind is {header.magic:#x}, its pages have {header.page_size:#x} bytes")
    return header


def _producer(told: Mapping[int, bytes]) -> str:
    major, minor = struct.unpack_from("<2Q", told.get(_VERSION, b"").ljust(16, b"\0"))
    return f"Xen {major}.{minor}" if major else "Xen"


def _extents(image: Image, sections: Mapping[str, _Section], header: _Header) -> list[Extent]:
    """Where which frames are."""
    pages, numbers = (_named(image, sections, name) for name in (".xen_pages", ".xen_pfn"))
    if (pages.size, numbers.size) != (header.pages * PAGE_SIZE, header.pages * 8):
        raise image.damaged(
            f"{header.pages:#x} pages would have {pages.size:#x} bytes, their numbers {numbers.size:#x}"
        )
    found: list[Extent] = []
    for index, first, count in _runs(image, numbers):
        if (found and first << PAGE_SHIFT < found[-1].end) or first + count > 1 << PHYSICAL_BITS - PAGE_SHIFT:
            raise image.damaged(f"frame {first:#x} is not in its order, or beyond all memory")
        found.append(Extent(first << PAGE_SHIFT, count << PAGE_SHIFT, pages.offset + (index << PAGE_SHIFT)))
        if len(found) > MAX_PIECES:
            raise image.refused(f"a core of a Xen domain of more than {MAX_PIECES} pieces", _WAY_OUT)
    return joined(found)


def _runs(image: Image, numbers: _Section) -> Iterator[tuple[int, int, int]]:
    """(index, first, count) of pages whose frames follow each other."""
    for begin in range(0, numbers.size, _AT_ONCE):
        size = min(_AT_ONCE, numbers.size - begin)
        content = words("Q", image.read(numbers.offset + begin, size, "the numbers of frames"))
        for index, first, count in runs(content):
            yield begin // 8 + index, first, count


def _states(image: Image, section: _Section, header: _Header) -> Iterator[VcpuState]:
    """The registers of each vCPU; nothing of one that was offline."""
    from libmicrovmi_py.arch.state import VcpuState

    if section.size != header.vcpus * _VCPU or header.vcpus > _MOST_VCPUS:
        raise image.damaged(f"{header.vcpus} vCPUs would have {section.size:#x} bytes")
    for vcpu in range(header.vcpus):
        content = image.read(section.offset + vcpu * _VCPU, _VCPU, f"the registers of vCPU {vcpu}")
        online = content[512] & _ONLINE
        yield VcpuState(Architecture.X86, _registers(content) if online else {})


def _registers(content: bytes) -> dict[str, int]:
    found = {
        name: value & (0xFFFF if name.endswith("_selector") else (1 << 64) - 1)
        for offset, form, names in _LAYOUT
        for name, (value,) in zip(
            names, struct.iter_unpack(form, content[offset : offset + 8 * len(names)]), strict=True
        )
    }
    if found["cs_selector"] & 3:
        return found
    # In the kernel Xen keeps the base of gs in the place of the kernel's, and the other one in that of the user's.
    return {**found, "gs_base": found["kernel_gs_base"], "kernel_gs_base": found["gs_base"]}
