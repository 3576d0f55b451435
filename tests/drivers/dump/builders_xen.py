# SPDX-License-Identifier: Apache-2.0
"""Writes files of Xen byte by byte, as their descriptions have them: cores of domains, and saved domains.

It knows nothing of the library. The layouts are those of Xen's docs/misc/dump-core-format.txt,
docs/specs/libxc-migration-stream.pandoc and libxl-migration-stream.pandoc, of xl.h, and of the public headers
arch-x86/xen.h (a vCPU in a core) and arch-x86/hvm/save.h (one in a saved domain).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from drivers.dump.builders import PAGE, SEGMENTS, Memory

FULL, PARAVIRTUAL = 0xF00FEBEE, 0xF00FEBED
INVALID = b"\xff" * 8
XTAB = 0xF << 60
"""What a number has on top whose frame is invalid."""


def frames(memory: Memory) -> list[int]:
    """The numbers of all frames."""
    return [start // PAGE + at for start, content in memory.items() for at in range(len(content) // PAGE)]


def vcpu(registers: Mapping[str, Any], *, online: bool = True) -> bytes:
    """vcpu_guest_context of x86-64, 5168 bytes."""
    made = bytearray(5168)
    user = [f"r{number}" for number in (15, 14, 13, 12)] + ["rbp", "rbx", "r11", "r10", "r9", "r8"]
    user += ["rax", "rcx", "rdx", "rsi", "rdi"]
    struct.pack_into("<Q", made, 512, 1 << 5 if online else 0)
    struct.pack_into("<15Q", made, 520, *(registers[name] for name in user))
    selector = {name: registers[name][2] for name in SEGMENTS}
    struct.pack_into("<QHxxBxxx", made, 648, registers["rip"], selector["cs"], 1)
    struct.pack_into("<QQ", made, 664, registers["rflags"], registers["rsp"])
    struct.pack_into("<5Q", made, 680, *(selector[name] for name in ("ss", "es", "ds", "fs", "gs")))
    struct.pack_into("<5Q", made, 4984, *(registers[name] for name in ("cr0", "rax", "cr2", "cr3", "cr4")))
    struct.pack_into("<8Q", made, 5048, 0xD0, 0xD1, 0xD2, 0xD3, 4, 5, 0xD6, 0xD7)
    active, other = registers["gs"][0], registers["kernel_gs_base"]
    kernel, user_s = (other, active) if selector["cs"] & 3 else (active, other)
    struct.pack_into("<3Q", made, 5144, registers["fs"][0], kernel, user_s)
    return bytes(made)


def _note(kind: int, content: bytes) -> bytes:
    return struct.pack("<3I4s", 4, len(content), kind, b"Xen\0") + content


def core(
    memory: Memory,
    vcpus: Sequence[bytes] = (),
    *,
    missing: int = 0,
    magic: int = FULL,
    version: int = 1,
    machine: int = 62,
    numbers: Sequence[int] | None = None,
) -> bytes:
    """``xl dump-core``: ``missing`` pages were counted and not found. ``numbers`` are told in place of the frames'."""
    numbers = frames(memory) if numbers is None else numbers
    pages = b"".join(memory.values()) + bytes(missing * PAGE)
    told = (magic, len(vcpus), len(pages) // PAGE, PAGE)
    notes = _note(0x2000000, b"") + _note(0x2000001, struct.pack("<4Q", *told))
    notes += _note(0x2000002, struct.pack("<2Q", 4, 17).ljust(1280, b"\0")) + _note(
        0x2000003, struct.pack("<Q", version)
    )
    place = {FULL: b".xen_pfn", PARAVIRTUAL: b".xen_p2m"}.get(magic, b".xen_pfn")
    contents = {
        b".note.Xen": notes,
        b".xen_prstatus": b"".join(vcpus),
        b".xen_shared_info": bytes(PAGE),
        b".xen_pages": pages,
        place: struct.pack(f"<{len(numbers)}Q", *numbers) + missing * INVALID,
    }
    return _elf_of_sections(contents, machine)


def _elf_of_sections(contents: Mapping[bytes, bytes], machine: int) -> bytes:
    """The names of the sections are behind them all, though their section is the first one."""
    names = b"\0.shstrtab\0" + b"".join(name + b"\0" for name in contents)
    count = len(contents) + 2
    place, rows, body = 64 + 64 * count, [(0, 0, 0, 0)], b""
    for name, content in contents.items():
        body += bytes(-(place + len(body)) % PAGE) if name == b".xen_pages" else b""
        rows.append((names.index(name + b"\0"), 7 if name == b".note.Xen" else 1, place + len(body), len(content)))
        body += content
    rows.insert(1, (1, 3, place + len(body), len(names)))
    head = b"\x7fELF\2\1\1".ljust(16, b"\0")
    head += struct.pack("<2HI3QI6H", 4, machine, 1, 0, 0, 64, 0, 64, 0, 0, 64, count, 1)
    table = b"".join(struct.pack("<2I4Q2I2Q", name, kind, 0, 0, at, size, 0, 0, 0, 0) for name, kind, at, size in rows)
    return head + table + body + names


def record(kind: int, content: bytes = b"") -> bytes:
    """A record of libxc or of libxl."""
    return struct.pack("<2I", kind, len(content)) + content + bytes(-len(content) % 8)


def page_data(memory: Memory, gone: Iterable[int] = ()) -> bytes:
    """A PAGE_DATA record; ``gone`` are frames that are told as invalid before the others."""
    numbers = [XTAB | frame for frame in gone] + frames(memory)
    head = struct.pack("<I4x", len(numbers)) + struct.pack(f"<{len(numbers)}Q", *numbers)
    return record(1, head + b"".join(memory.values()))


def saved_vcpus(records: Mapping[int, bytes], count: int) -> bytes:
    """The state of a domain's vCPUs: a local APIC of each, registers of those that are online."""
    made = _saved(1, 0, b"header")
    for index, content in records.items():
        made += _saved(2, index, content)
    for index in range(count):
        made += _saved(5, index, struct.pack("<QIIQ", 0xFEE00900, 0, 0, 0))
        made += _saved(6, index, bytes(0x80) + struct.pack("<I", 0x50).ljust(0x380, b"\0"))
    return made + _saved(0, 0, b"")


def _saved(kind: int, instance: int, content: bytes) -> bytes:
    return struct.pack("<2HI", kind, instance, len(content)) + content


def libxc(*records: bytes, version: int = 3, options: int = 0, kind: int = 2, shift: int = 12) -> bytes:
    """libxc's stream of these records."""
    head = struct.pack(">Q4sIHHI", (1 << 64) - 1, b"XENF", version, options, 0, 0)
    return head + struct.pack("<IHHII", kind, shift, 0, 4, 17) + b"".join(records)


def libxl(stream: bytes, *, version: int = 2, options: int = 0, before: bytes = b"") -> bytes:
    """libxl's stream around it; ``before`` are records in front of it."""
    head = struct.pack(">8s2I", b"LibxlFmt", version, options)
    return head + before + record(1) + stream + record(3, b"the state of an emulator") + record(0)


def xl(stream: bytes, *, flags: int = 3, order: int = 0x01020304, config: bytes = b'{"name": "a domain"}') -> bytes:
    """What ``xl save`` writes."""
    told = struct.pack("<I", len(config)) + config
    magic = b"Xen saved domain, xl format\n \0 \r"
    return struct.pack("<32s4I", magic, order, flags, 0, len(told)) + told + stream
