# SPDX-License-Identifier: Apache-2.0
"""The pieces that descriptions of frames are made of in DWARF."""

from __future__ import annotations

import struct

_SIZE = struct.Struct("<I")

CIE = b"\xff\xff\xff\xff"
"""What descriptions have in common begins with it, in ``.debug_frame``."""


def sized(content: bytes) -> bytes:
    """With its length in front, and what fills it up, which does nothing."""
    content += bytes(-(len(content) + 4) % 8)
    return _SIZE.pack(len(content)) + content


def unsigned(number: int) -> bytes:
    """In the form LEB128."""
    out = bytearray()
    while True:
        out.append(number & 0x7F | (0x80 if number >> 7 else 0))
        number >>= 7
        if not number:
            return bytes(out)


def signed(number: int) -> bytes:
    out = bytearray()
    while True:
        byte, number = number & 0x7F, number >> 7
        over = number == (-1 if byte & 0x40 else 0)
        out.append(byte if over else byte | 0x80)
        if over:
            return bytes(out)
