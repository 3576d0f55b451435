# SPDX-License-Identifier: Apache-2.0
"""Writes dump files byte by byte, as their specifications have them; it knows nothing of the library.

Memory is a mapping from guest-physical addresses to bytes. QEMU writes Windows crash dumps of Windows guests only, and
here is no VirtualBox: those files are only known from here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

Memory = Mapping[int, bytes]
PAGE = 4096


def lime(memory: Memory) -> bytes:
    """LiME, version 1."""
    return b"".join(
        struct.pack("<4sIQQ8x", b"EMiL", 1, start, start + len(content) - 1) + content
        for start, content in memory.items()
    )


# ------------------------------------------------------------------------------------------------------------------ ELF


def elf(
    memory: Memory,
    notes: bytes = b"",
    *,
    bits: int = 64,
    machine: int = 62,
    many: bool = False,
    order: str = "<",
    sizes: Mapping[int, int] | None = None,
    virtual: int | None = None,
) -> bytes:
    """An ELF core: the notes, then all memory; ``many`` counts the segments in a section header, as PN_XNUM says.

    ``sizes`` are those in memory (p_memsz) of segments that are longer there, ``virtual`` is added to p_vaddr.
    """
    header, entry, section = (64, 56, 64) if bits == 64 else (52, 32, 40)
    count = len(memory) + 1
    table = header + (section if many else 0)
    data = table + count * entry
    segments = [(4, data, 0, 0, len(notes), len(notes))]
    offset = data + len(notes)
    for start, content in memory.items():
        place = 0 if virtual is None else start + virtual
        segments.append((1, offset, place, start, len(content), (sizes or {}).get(start, len(content))))
        offset += len(content)
    number = 0xFFFF if many else count
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    words = "HHIQQQIHHHHHH" if bits == 64 else "HHIIIIIHHHHHH"
    head = struct.pack(
        order + words, 4, machine, 1, 0, table, header if many else 0, 0, header, entry, number, section, int(many), 0
    )
    rows = b"".join(_segment(bits, order, *segment) for segment in segments)
    extra = _section(bits, order, count) if many else b""
    return ident + head + extra + rows + notes + b"".join(memory.values())


def _segment(bits: int, order: str, kind: int, *words: int) -> bytes:
    if bits == 64:
        return struct.pack(order + "IIQQQQQQ", kind, 0, *words, 0)
    return struct.pack(order + "8I", kind, *words, 0, 0)


def _section(bits: int, order: str, info: int) -> bytes:
    word = "Q" if bits == 64 else "I"
    return struct.pack(f"{order}II{word}{word}{word}{word}II{word}{word}", 0, 0, 0, 0, 0, 0, 0, info, 0, 0)


def note(name: bytes, kind: int, content: bytes) -> bytes:
    """A note with its name and content padded to 4 bytes."""
    ended = name + b"\0"
    return struct.pack("<3I", len(ended), len(content), kind) + _padded(ended, 4) + _padded(content, 4)


def _padded(content: bytes, step: int) -> bytes:
    return content + bytes(-len(content) % step)


GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *(f"r{n}" for n in range(8, 16)), "rip", "rflags")
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss")


def values(vcpu: int) -> dict[str, Any]:
    """Different registers for every vCPU: a segment is (base, limit, selector), a table (base, limit)."""
    found: dict[str, Any] = {
        name: 0x1000000 * (vcpu + 1) + index for index, name in enumerate([*GENERAL, "cr0", "cr2", "cr3", "cr4"])
    }
    found["rflags"] = 0x246 + 0x800 * vcpu
    for index, name in enumerate([*SEGMENTS, "ldt", "tr"]):
        found[name] = (0xFFFF800000000000 + index + vcpu, 0xFFFFF000 + index, 0x10 * index + vcpu)
    found["attributes"] = {name: 0xA90 + index + vcpu for index, name in enumerate([*SEGMENTS, "ldt", "tr"])}
    found["gdt"], found["idt"] = (0xFFFFFE0000001000 + vcpu, 127), (0xFFFFFE0000000000 + vcpu, 4095)
    return found


def qemu_note(registers: Mapping[str, Any], version: int = 1, *, kernel_gs_base: bool = True) -> bytes:
    """QEMU's own note: QEMUCPUState of target/i386/arch_dump.c, whose last member old ones do not have."""
    content = struct.pack("<18Q", *(registers[name] for name in GENERAL))
    for name in (*SEGMENTS, "ldt", "tr", "gdt", "idt"):
        base, limit, selector = (*registers[name], 0)[:3]
        rights = registers["attributes"].get(name, 0)
        flags = (rights & 0xFF) << 8 | (rights >> 8) << 20 | 0xF0000
        content += struct.pack("<IIIIQ", selector, limit, flags, 0, base)
    content += struct.pack("<5Q", registers["cr0"], 0, registers["cr2"], registers["cr3"], registers["cr4"])
    content += struct.pack("<Q", 7) if kernel_gs_base else b""
    return note(b"QEMU", 0, struct.pack("<2I", version, 8 + len(content)) + content)


def prstatus(registers: Mapping[str, Any]) -> bytes:
    """NT_PRSTATUS of a 64-bit kernel: struct elf_prstatus, of which a dump fills in the registers."""
    order = ["r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"]
    words = [registers[name] for name in order] + [0, registers["rip"], registers["cs"][2], registers["rflags"]]
    words += [registers["rsp"], registers["ss"][2], registers["fs"][0], registers["gs"][0]]
    words += [registers[name][2] for name in ("ds", "es", "fs", "gs")]
    return note(b"CORE", 1, bytes(112) + struct.pack("<27Q", *words) + bytes(8))


def prstatus_32(registers: Mapping[str, Any]) -> bytes:
    """NT_PRSTATUS of a 32-bit kernel."""
    words = [registers[name] for name in ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rax")]
    words += [registers[name][2] for name in ("ds", "es", "fs", "gs")]
    words += [0, registers["rip"], registers["cs"][2], registers["rflags"], registers["rsp"], registers["ss"][2]]
    return note(b"CORE", 1, bytes(72) + struct.pack("<17I", *words) + bytes(4))


def virtualbox_notes(vcpus: Sequence[Mapping[str, Any]], version: int = 0x10006) -> bytes:
    """DBGFCOREDESCRIPTOR and a DBGFCORECPU for each vCPU; VirtualBox does not count the end of a note's name."""
    notes = _virtualbox_note(b"VBCORE", 0xB00, struct.pack("<6I", 0xC01AC0DE, version, 24, 0x70000, 1, len(vcpus)))
    return notes + b"".join(_virtualbox_note(b"VBCPU", 0xB01, _virtualbox_vcpu(registers)) for registers in vcpus)


def _virtualbox_note(name: bytes, kind: int, content: bytes) -> bytes:
    return struct.pack("<3I", len(name), len(content), kind) + _padded(name + b"\0", 8) + _padded(content, 8)


def _virtualbox_vcpu(registers: Mapping[str, Any]) -> bytes:
    order = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)), "rip", "rsp", "rbp", "rflags"]
    content = struct.pack("<18Q", *(registers[name] for name in order))
    content += b"".join(_selector(registers, name) for name in SEGMENTS)
    content += struct.pack("<4Q8Q", *(registers[name] for name in ("cr0", "cr2", "cr3", "cr4")), *range(8))
    content += b"".join(struct.pack("<QII", *registers[name], 0) for name in ("gdt", "idt"))
    content += b"".join(_selector(registers, name) for name in ("ldt", "tr"))
    content += struct.pack("<3Q", 0xA1, 0xA2, 0xA3)  # sysenter: cs, eip, esp
    content += struct.pack("<9Q", 0xD01, 0xB1, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xFEE00900, 0xB8)
    return content + struct.pack("<2QII", 1, 0, 64, 0) + bytes(64)


def _selector(registers: Mapping[str, Any], name: str) -> bytes:
    base, limit, selector = registers[name]
    rights = registers["attributes"][name]
    return struct.pack("<QIIHHI", base, limit, rights & 0xFF | (rights >> 8) << 12 | 0xF00, selector, 0, 0)


def prstatus_aarch64(vcpu: int, pstate: int) -> bytes:
    """NT_PRSTATUS of an AArch64 kernel: x0 to x30, the stack pointer, pc and pstate."""
    words = [0xA64000000 + 0x1000 * vcpu + number for number in range(33)]
    return note(b"CORE", 1, bytes(112) + struct.pack("<34Q", *words, pstate) + bytes(8))


# ------------------------------------------------------------------------------------------------------------- firmware


def smbios(ranges: Sequence[tuple[int, int]], *, wide: bool = False, place: int = 0xF5000) -> Memory:
    """What a PC's firmware leaves below 1 MiB: the entry point, and structures of which those of type 19 are memory.

    ``ranges`` are (start, size) of main memory; ``place`` is the address of a page for both.
    """
    table = struct.pack("<2BH", 1, 27, 0x100) + bytes(23) + b"A machine\0\0"
    for index, (start, size) in enumerate(ranges):
        first, last = start >> 10, (start + size - 1) >> 10
        words = (first, last) if last < 0xFFFFFFFF else (0xFFFFFFFF, 0xFFFFFFFF)
        exact = (0, 0) if last < 0xFFFFFFFF else (start, start + size - 1)
        table += struct.pack("<2BH2IHB2Q", 19, 31, 0x1300 + index, *words, 0x1000, 1, *exact) + b"\0\0"
    table += struct.pack("<2BH", 127, 4, 0x7F00) + b"\0\0"
    if wide:
        entry = _summed(struct.pack("<5sBBBBBBxIQ", b"_SM3_", 0, 24, 3, 0, 0, 1, len(table), place + 64), 5)
    else:
        entry = struct.pack(
            "<4sBBBBHB5s5sBHIHB", b"_SM_", 0, 31, 2, 8, 99, 0, bytes(5), b"_DMI_", 0, len(table), place + 64, 3, 0
        )
        entry = _summed(entry, 4)
    return {place: (entry.ljust(64, b"\0") + table).ljust(PAGE, b"\0")}


def acpi(ranges: Sequence[tuple[int, int]], *, flags: int = 1, place: int = 0xF6000) -> Memory:
    """RSDP, RSDT and SRAT in one page; ``ranges`` are (start, size) of the memory affinity structures."""
    rows = struct.pack("<2B14x", 0, 16)
    rows += b"".join(struct.pack("<2BI2xQQ4xI8x", 1, 40, 0, start, size, flags) for start, size in ranges)
    srat = _acpi_table(b"SRAT", bytes(12) + rows)
    rsdt = _acpi_table(b"RSDT", struct.pack("<2I", place + 0x400, place + 0x200))
    other = _acpi_table(b"APIC", bytes(8))
    rsdp = _summed(struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"MAKER ", 0, place + 0x100), 8)
    page = bytearray(PAGE)
    for offset, content in ((0, rsdp), (0x100, rsdt), (0x200, srat), (0x400, other)):
        assert len(content) <= 0x200
        page[offset : offset + len(content)] = content
    return {place: bytes(page)}


def _acpi_table(name: bytes, content: bytes) -> bytes:
    return _summed(
        struct.pack("<4sIBB6s8sI4sI", name, 36 + len(content), 1, 0, b"MAKER ", b"MACHINE ", 1, b"ABCD", 1) + content, 9
    )


def _summed(content: bytes, place: int) -> bytes:
    """The content with such a byte at ``place``, which was 0, that all add up to 0."""
    return content[:place] + bytes([-sum(content) % 256]) + content[place + 1 :]


# -------------------------------------------------------------------------------------------------------------- Windows


def windows(memory: Memory, *, kind: int = 1, vcpus: int = 2, context: bytes = b"", machine: int = 0x8664) -> bytes:
    """DUMP_HEADER64 and the pages: of runs (kind 1), or of a bitmap (kinds 2, 5, 6, 7)."""
    header = bytearray(b"PAGE" * 0x800)
    struct.pack_into("<8sIIQ", header, 0, b"PAGEDU64", 15, 19041, 0x1AA000)
    struct.pack_into("<2I", header, 0x30, machine, vcpus)
    runs = [(start // PAGE, len(content) // PAGE) for start, content in memory.items()]
    if kind == 1:
        struct.pack_into("<I4xQ", header, 0x88, len(runs), sum(count for _, count in runs))
        struct.pack_into(f"<{2 * len(runs)}Q", header, 0x98, *(word for run in runs for word in run))
    header[0x348 : 0x348 + len(context)] = context
    struct.pack_into("<I", header, 0xF98, kind)
    return bytes(header) + (b"" if kind == 1 else _windows_bitmap(runs, kind)) + b"".join(memory.values())


def _windows_bitmap(runs: Sequence[tuple[int, int]], kind: int) -> bytes:
    bits = max(first + count for first, count in runs)
    bitmap = _bitmap(runs, bits)
    first = -(-(0x2038 + len(bitmap)) // PAGE) * PAGE
    magic = b"FDMPDUMP" if kind == 5 else b"SDMPDUMP"
    head = struct.pack("<8s24xQQQ", magic, first, sum(count for _, count in runs), bits)
    return (head + bitmap).ljust(first - 0x2000, b"\0")


def _bitmap(runs: Sequence[tuple[int, int]], bits: int) -> bytes:
    bitmap = bytearray(-(-bits // 8))
    for first, count in runs:
        for page in range(first, first + count):
            bitmap[page // 8] |= 1 << page % 8
    return bytes(bitmap)


def windows_context(registers: Mapping[str, Any]) -> bytes:
    """CONTEXT of an AMD64 machine, up to rip."""
    selectors = [registers[name][2] for name in SEGMENTS[:5]] + [registers["ss"][2]]
    order = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)), "rip"]
    head = struct.pack("<48xII6HI", 0x10001F, 0x1F80, *selectors, registers["rflags"])
    return head + bytes(48) + struct.pack("<17Q", *(registers[name] for name in order))


# ---------------------------------------------------------------------------------------------------------------- kdump

Pack = Callable[[bytes], bytes]


def kdump(
    memory: Memory,
    notes: bytes = b"",
    *,
    pack: Pack = zlib.compress,
    flag: int = 1,
    bits: int = 64,
    block: int = PAGE,
    version: int = 6,
    status: int = 1,
    span: tuple[int, int] | None = None,
    machine: bytes = b"x86_64",
    exists: Sequence[tuple[int, int]] | None = None,
) -> bytes:
    """A kdump-compressed file; pages that become no shorter, and every fifth one, are laid down as they are.

    ``exists`` is (start, size) of the memory of the first bitmap; by default all pages: those that are not in
    ``memory`` were left out of the dump. ``machine`` is what the header says; QEMU 10 says Unknown, whatever it is.
    ``span`` is (first, one past the last) page of a part of a dump that ``makedumpfile --split`` makes.
    """
    pages = [
        content[at : at + block]
        for start, content in memory.items()
        for at in range(0, len(content), block)
        if span is None or span[0] <= (start + at) // block < span[1]
    ]
    runs = [(start // block, -(-len(content) // block)) for start, content in memory.items()]
    known = None if exists is None else [(start // block, size // block) for start, size in exists]
    last = max(first + count for first, count in [*runs, *(known or [])])
    bitmap = _bitmap(runs, last)
    bitmap = bitmap.ljust(-(-len(bitmap) // block) * block, b"\0")
    first_bitmap = b"\xff" * len(bitmap) if known is None else _bitmap(known, last).ljust(len(bitmap), b"\0")
    head = _header(bits, version, status, block, 2 * len(bitmap) // block, last, machine).ljust(block, b"\0")
    sub = _sub_header(bits, 2 * block - len(notes) if notes else 0, len(notes), last, span)
    sub = sub if version >= 6 else sub[: 80 if bits == 64 else 56]
    before = head + sub.ljust(block - len(notes), b"\0") + notes + first_bitmap + bitmap
    return before + _packed(pages, len(before), pack, flag, block)


def _packed(pages: Sequence[bytes], start: int, pack: Pack, flag: int, block: int) -> bytes:
    """The descriptors, which begin at ``start`` of the file, and what they describe."""
    offset, rows, data = start + 24 * len(pages), [], []
    for index, content in enumerate(pages):
        packed = pack(content)
        raw = index % 5 == 4 or len(packed) >= block
        packed = content if raw else packed
        rows.append(struct.pack("<QIIQ", offset, len(packed), 0 if raw else flag, 0))
        data.append(packed)
        offset += len(packed)
    return b"".join([*rows, *data])


def _header(bits: int, version: int, status: int, block: int, blocks: int, last: int, machine: bytes) -> bytes:
    """struct disk_dump_header: a 64-bit program aligns the time to 8 bytes and has 16 of it."""
    utsname = b"".join(text.ljust(65, b"\0") for text in (b"Linux", b"host", b"6.1.0", b"#1", machine, b"(none)"))
    time = bytes(6 + 16 if bits == 64 else 2 + 8)
    return (
        struct.pack("<8si", b"KDUMP   ", version)
        + utsname
        + time
        + struct.pack("<10I", status, block, 1, blocks, min(last, 0xFFFFFFFF), 0, 0, 0, 0, 2)
    )


def _sub_header(bits: int, offset: int, size: int, last: int, span: tuple[int, int] | None) -> bytes:
    """struct kdump_sub_header, version 6."""
    split, (first, end) = int(span is not None), span or (0, last)
    if bits == 64:
        return struct.pack("<QIIQQQQQQQQQQQ", 0, 0, split, first, end, 0, 0, offset, size, 0, 0, first, end, last)
    return struct.pack("<IIIIIQIQIQIQQQ", 0, 0, split, first, end, 0, 0, offset, size, 0, 0, first, end, last)


def flattened(content: bytes, record: int = 5000) -> bytes:
    """makedumpfile's flattened format: records in an odd order, and some bytes twice, of which the later ones hold."""
    places = list(range(0, len(content), record))
    places = [0, *places[1::2], *places[::2]]
    records = [(place, content[place : place + record]) for place in places]
    records[0] = (0, bytes(len(records[0][1])))
    body = b"".join(struct.pack(">qq", place, len(piece)) + piece for place, piece in records)
    return b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1) + bytes(4064) + body + struct.pack(">qq", -1, -1)


def repeated_snappy(page: bytes) -> bytes:
    """Snappy of a page that is one byte many times: its size, a literal of one byte, copies from one byte back."""
    if page.count(page[0]) != len(page):
        return page
    edges = [*range(0, len(page) - 1, 64), len(page) - 1]
    copies = b"".join(struct.pack("<BH", (end - begin - 1) << 2 | 2, 1) for begin, end in pairwise(edges))
    return bytes([len(page) & 0x7F | 0x80, len(page) >> 7, 0]) + page[:1] + copies


def repeated_lzo(page: bytes) -> bytes:
    """LZO1X of a page that is one byte many times: a literal of 4 bytes, one long match from one byte back, the end."""
    if page.count(page[0]) != len(page):
        return page
    zeros, rest = divmod(len(page) - 4 - 2 - 31 - 1, 255)
    return bytes([17 + 4]) + page[:4] + bytes([0x20]) + bytes(zeros) + bytes([rest + 1]) + bytes([0, 0, 0x11, 0, 0])
