# SPDX-License-Identifier: Apache-2.0
"""Writes Windows crash dumps byte by byte, as their description has them: of 32-bit machines, and those with ranges.

It knows nothing of the library. The types of dumps are written down in the header files of Windows' driver kit
(ntdddmp, mindumpdef), and by kdmp-parser; 64-bit full ones and those with a bitmap are in ``builders``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from drivers.dump.builders import PAGE, Memory, _bitmap

DEBUG = (0xD0, 0xD1, 0xD2, 0xD3, 0xD6, 0xD7)


def windows_32(memory: Memory, *, kind: int = 1, vcpus: int = 2, context: bytes = b"", pae: bool = False) -> bytes:
    """DUMP_HEADER32 and the pages: of runs (kind 1), or of a bitmap (kinds 2, 5, 6, 7)."""
    header = bytearray(b"PAGE" * 0x400)
    struct.pack_into("<8sIIIII", header, 0, b"PAGEDUMP", 15, 7601, 0x185020, 0x83000000, 0x82960000)
    struct.pack_into("<II", header, 0x20, 0x14C, vcpus)
    header[0x5C] = pae
    runs = [(start // PAGE, len(content) // PAGE) for start, content in memory.items()]
    if kind == 1:
        struct.pack_into("<2I", header, 0x64, len(runs), sum(count for _, count in runs))
        struct.pack_into(f"<{2 * len(runs)}I", header, 0x6C, *(word for run in runs for word in run))
    header[0x320 : 0x320 + len(context)] = context
    struct.pack_into("<I", header, 0xF88, kind)
    return bytes(header) + (b"" if kind == 1 else _summary(runs, kind)) + b"".join(memory.values())


def _summary(runs: list[tuple[int, int]], kind: int) -> bytes:
    bits = -(-max(first + count for first, count in runs) // 64) * 64
    bitmap = _bitmap(runs, bits)
    first = -(-(0x1038 + len(bitmap)) // PAGE) * PAGE
    magic = b"FDMPDUMP" if kind == 5 else b"SDMPDUMP"
    head = struct.pack("<8s24xQQQ", magic, first, sum(count for _, count in runs), bits)
    return (head + bitmap).ljust(first - 0x1000, b"\0")


def old_kernel(memory: Memory, header: bytes, *, wide: bool) -> bytes:
    """A kernel dump as Windows wrote it before version 8: a header of the bitmap with 32 bits each."""
    runs = [(start // PAGE, len(content) // PAGE) for start, content in memory.items()]
    bits = -(-max(first + count for first, count in runs) // 32) * 32
    first = len(header) + PAGE
    pages = sum(count for _, count in runs)
    head = struct.pack("<8s5I", b"SDMPDUMP", 1, first, bits, pages, bits).ljust(0x28 if wide else 0x20, b"\0")
    return header + (head + _bitmap(runs, bits)).ljust(PAGE, b"\0") + b"".join(memory.values())


def with_ranges(memory: Memory, header: bytes, kind: int, *, room: int = 64, rubbish: bytes = b"") -> bytes:
    """What follows DUMP_HEADER64 in a dump of type 8, 9 (kernel, kernel and user) or 10 (complete): RDMP_HEADER64.

    ``header`` is that of another dump; ``room`` is how many ranges the table has room for, ``rubbish`` what is behind
    the last one of a complete dump, which goes by the number of pages.
    """
    runs = [(start // PAGE, len(content) // PAGE) for start, content in memory.items()]
    size = 16 + 16 * room
    size += -(0x2020 + size) % PAGE
    told = (len(runs), sum(count for _, count in runs)) if kind == 10 else (0x11, 0x22)
    head = struct.pack("<I8s4xQQI4xQ", 0x40, b"RDMPDUMP", size, 0x2020 + size, *told)
    table = b"".join(struct.pack("<2Q", *run) for run in runs) + rubbish
    before = bytearray(header[:0x2000])
    struct.pack_into("<I", before, 0xF98, kind)
    return bytes(before) + head + table.ljust(size - 16, b"\0") + b"".join(memory.values())


def context_32(registers: Mapping[str, Any], flags: int = 0x1001F) -> bytes:
    """CONTEXT of an x86 machine, up to ss; a selector's upper half is what was on the stack before."""
    selector = {name: registers[name][2] | 0xABCD0000 for name in ("gs", "fs", "es", "ds", "cs", "ss")}
    words = [selector[name] for name in ("gs", "fs", "es", "ds")]
    words += [registers[name] for name in ("rdi", "rsi", "rbx", "rdx", "rcx", "rax", "rbp", "rip")]
    words += [selector["cs"], registers["rflags"], registers["rsp"], selector["ss"]]
    return struct.pack("<7I", flags, *DEBUG) + bytes(112) + struct.pack("<16I", *words)


def context_arm64(pstate: int, flags: int = 0x40000F) -> bytes:
    """CONTEXT of an ARM64 machine, up to pc: x0 to x30, sp and pc are 0xA64000000 and what follows."""
    return struct.pack("<2I33Q", flags, pstate, *(0xA64000000 + number for number in range(33)))
