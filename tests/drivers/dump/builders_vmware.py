# SPDX-License-Identifier: Apache-2.0
"""Writes the states of VMware machines (vmss, vmsn) as they are described: groups of tags, and blocks of memory."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from drivers.dump.builders import PAGE

MAGIC = b"\xd2\xbe\xd2\xbe"
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr")
GENERAL = ("rax", "rcx", "rdx", "rbx", "rbp", "rsp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


def tag(name: str, value: bytes, *indices: int) -> bytes:
    """A tag with its value right behind it, up to 61 bytes."""
    assert len(value) < 62
    head = bytes([len(indices) << 6 | len(value), len(name)]) + name.encode()
    return head + struct.pack(f"<{len(indices)}I", *indices) + value


def number(name: str, value: int, *indices: int, size: int = 4) -> bytes:
    """A tag that is a number."""
    return tag(name, value.to_bytes(size, "little"), *indices)


def block(
    name: str,
    content: bytes,
    *indices: int,
    padding: int = 0,
    kind: int = 63,
    wide: bool = True,
    claimed: int | None = None,
) -> bytes:
    """A tag that is a block: sizes on disk and in memory (or what it claims), and bytes that nobody reads, in front."""
    head = bytes([len(indices) << 6 | kind, len(name)]) + name.encode() + struct.pack(f"<{len(indices)}I", *indices)
    size = len(content) if claimed is None else claimed
    sizes = struct.pack("<2QH" if wide else "<2IH", size, size, padding)
    return head + sizes + b"\xee" * padding + content


def state(groups: Mapping[str, Iterable[bytes]], magic: bytes = MAGIC) -> bytes:
    """The header, the table of groups, and their tags."""
    bodies = {name: b"".join(tags) + bytes(2) for name, tags in groups.items()}
    place, table = 12 + 80 * len(bodies), b""
    for name, body in bodies.items():
        table += struct.pack("<64s2Q", name.encode(), place, len(body))
        place += len(body)
    return magic + struct.pack("<2I", 8, len(bodies)) + table + b"".join(bodies.values())


def regions(rows: Sequence[tuple[int, int, int]]) -> list[bytes]:
    """The tags of regions of (address, offset in the memory, size)."""
    made = [number("regionsCount", len(rows))]
    for index, row in enumerate(rows):
        for name, value in zip(("regionPPN", "regionPageNum", "regionSize"), row, strict=True):
            made.append(number(name, value // PAGE, index))
    return made


def vcpus(registers: Sequence[Mapping[str, Any]], *, blocks: bool = False) -> list[bytes]:
    """The group cpu of these vCPUs, whose registers are as ``builders.values`` has them, each a tag or in blocks."""
    made = [tag("nothing", b""), number("cpu:numVCPUs", len(registers))]
    for vcpu, values in enumerate(registers):
        made += _in_blocks(vcpu, values) if blocks else _in_tags(vcpu, values)
        made += [number("halted", 0, vcpu, size=1), number("rip", values["rip"], vcpu, size=8)]
        made += [number("eflags", values["rflags"] & 0x8D5, vcpu), number("EFLAGS", values["rflags"] & ~0x8D5, vcpu)]
        for index, name in enumerate(SEGMENTS):
            made.append(number("S", values[name][2], vcpu, index, size=2))
            made.append(number("S.base64", values[name][0], vcpu, index, size=8))
        made += [number("DR64", 0xD0 + index, vcpu, index, size=8) for index in range(8)]
    return made


def _in_tags(vcpu: int, values: Mapping[str, Any]) -> list[bytes]:
    made = [number(name, values[name], vcpu, size=8) for name in GENERAL]
    for index in range(5):
        value = values.get(f"cr{index}", 0)
        made += [number("CR64", value, vcpu, index, size=8), number("CR", value & 0xFFFFFFFF, vcpu, index)]
    for name in ("gdt", "idt"):
        base, limit = values[name]
        parts = ((limit, 2), (base & 0xFFFFFFFF, 4), (base >> 32, 4))
        made += [number(f"{name.upper()}R", part, vcpu, index, size=size) for index, (part, size) in enumerate(parts)]
    return made


def _in_blocks(vcpu: int, values: Mapping[str, Any]) -> list[bytes]:
    control = [values["cr0"], 0, values["cr2"], values["cr3"], values["cr4"], 0, 0, 0, 3]
    made = [block("gpregs", struct.pack("<16Q", *(values[name] for name in GENERAL)), vcpu)]
    made.append(block("CR64", struct.pack("<9Q", *control), vcpu))
    for name in ("gdt", "idt"):
        base, limit = values[name]
        made.append(block(f"{name.upper()}R", struct.pack("<HQ", limit, base), vcpu))
    return made


def checkpoint(product: str, version: str) -> list[bytes]:
    """The group that says what wrote the state."""
    return [
        number("fileversion", 10),
        block("ProductName", product.encode().ljust(256, b"\0")),
        block("VersionNumber", version.encode().ljust(256, b"\0")),
    ]
