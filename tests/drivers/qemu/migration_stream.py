# SPDX-License-Identifier: Apache-2.0
"""Migration streams as QEMU writes them."""

from __future__ import annotations

import struct
from collections.abc import Mapping

PAGE = 4096
SECTION = 2
REST = b"\x04\x00\x00\x00\x09\x03cpu" + bytes(20)
"""What stands behind the pages."""


def head(blocks: Mapping[str, int], configuration: bytes = b"", version: int = 4) -> bytes:
    """All before the first page."""
    names = b"".join(bytes([len(name)]) + name.encode() + struct.pack(">Q", size) for name, size in blocks.items())
    machine = b"\x07" + struct.pack(">I", 2) + b"pc" + configuration
    section = b"\x01" + struct.pack(">I", SECTION) + b"\x03ram" + struct.pack(">II", 0, version)
    return b"QEVM\0\0\0\3" + machine + section + struct.pack(">Q", sum(blocks.values()) | 4) + names


def page(offset: int, content: bytes | None, block: str = "") -> bytes:
    """One page, ``None`` for one of zeros; without ``block`` of that of the page before."""
    flags = (2 if content is None else 8) | (0 if block else 0x20)
    name = bytes([len(block)]) + block.encode() if block else b""
    return struct.pack(">Q", offset | flags) + name + (b"\0" if content is None else content)


def over(*, footer: bool = True) -> bytes:
    """The end of a section."""
    return struct.pack(">Q", 0x10) + (b"\x7e" + struct.pack(">I", SECTION) if footer else b"")


def part() -> bytes:
    """The head of the next section."""
    return b"\x02" + struct.pack(">I", SECTION)
