# SPDX-License-Identifier: Apache-2.0
"""Writes compressed AVML images byte by byte, as their description has them; it knows nothing of the library.

https://github.com/microsoft/avml (src/image.rs) and https://github.com/google/snappy (framing_format.txt).
"""

from __future__ import annotations

import functools
import struct

from drivers.dump.builders import PAGE, Memory, repeated_snappy

IDENTIFIER = b"\xff\x06\0\0sNaPpY"


def avml(memory: Memory, *, piece: int = 16 << 20, frame: int = 64 << 10) -> bytes:
    """Every range, in pieces of so many bytes at the most; frames that are one byte many times are packed."""
    made = b""
    for start, content in memory.items():
        for at in range(0, len(content), piece):
            part = content[at : at + piece]
            made += struct.pack("<4sI2Q8x", b"AVML", 2, start + at, start + at + len(part) - 1)
            packed = IDENTIFIER + b"".join(one_frame(part[i : i + frame]) for i in range(0, len(part), frame))
            made += packed + struct.pack("<Q", len(packed))
    return made


def one_frame(content: bytes) -> bytes:
    """A frame of snappy: packed if that is shorter."""
    packed = _snappy(content)
    kind, data = (0, packed) if len(packed) < len(content) else (1, content)
    checksum = crc32c(content)
    turned = (checksum >> 15 | checksum << 17) & 0xFFFFFFFF
    return struct.pack("<II", (len(data) + 4) << 8 | kind, (turned + 0xA282EAD8) & 0xFFFFFFFF) + data


def _snappy(content: bytes) -> bytes:
    """A block: its size, and of each page either one literal or what a page of one byte becomes."""
    size, head = len(content), b""
    while size > 0x7F:
        head, size = head + bytes([size & 0x7F | 0x80]), size >> 7
    body = b"".join(_page(content[at : at + PAGE]) for at in range(0, len(content), PAGE))
    return head + bytes([size]) + body


def _page(page: bytes) -> bytes:
    if page.count(page[0]) == len(page) == PAGE:
        return repeated_snappy(page)[2:]
    return struct.pack("<BH", 61 << 2, len(page) - 1) + page


@functools.cache
def _table() -> tuple[int, ...]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return tuple(found)


@functools.cache
def crc32c(content: bytes) -> int:
    """The checksum with the polynomial of Castagnoli."""
    table, value = _table(), 0xFFFFFFFF
    for byte in content:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
