# SPDX-License-Identifier: Apache-2.0
"""Streams of QEMU with mapped-ram, written from the description (docs/devel/migration/mapped-ram.rst of QEMU)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

PAGE = 4096


def capabilities(*names: str) -> bytes:
    """What a stream tells of them."""
    told = b"".join(bytes([len(name)]) + name.encode() for name in names)
    return b"\x05\x1aconfiguration/capabilities\0\0\0\1" + struct.pack(">I", len(names)) + told


def mapped(
    blocks: Mapping[str, Mapping[int, bytes]],
    sizes: Mapping[str, int],
    rest: bytes,
    *,
    old: Mapping[int, bytes] | None = None,
    base: int = 0,
    version: int = 1,
    addresses: Mapping[str, int] | None = None,
    alignment: int = 1 << 20,
) -> bytes:
    """The pages of each block by their numbers; ``old`` are pages of all blocks that were saved and are zeros now.

    ``base`` is where in the file the stream begins; ``addresses`` those of blocks, of a stream without shared memory.
    Pages are at multiples of ``alignment``, which is QEMU's.
    """
    told = capabilities("mapped-ram", *(["x-ignore-shared"] if addresses is not None else []))
    made = bytearray(b"QEVM\0\0\0\3\x07" + struct.pack(">I", 2) + b"pc" + told)
    made += b"\x01" + struct.pack(">I", 3) + b"\x03ram" + struct.pack(">II", 0, 4)
    made += struct.pack(">Q", sum(sizes.values()) | 4)
    for name, size in sizes.items():
        made += bytes([len(name)]) + name.encode() + struct.pack(">Q", size)
        if addresses is not None:
            made += struct.pack(">Q", addresses[name])
        place = base + len(made) + 28
        bitmap = sum(1 << number for number in blocks[name]).to_bytes(-(-size // PAGE // 64) * 8, "little")
        pages = -(-(place + len(bitmap)) // alignment) * alignment
        made += struct.pack(">IQQQ", version, PAGE, place, pages) + bitmap
        made += bytes(pages - base - len(made))
        area = bytearray(size)
        for number, content in [*(old or {}).items(), *blocks[name].items()]:
            area[number * PAGE : number * PAGE + PAGE] = content
        made += area
    over = struct.pack(">Q", 0x10) + b"\x7e" + struct.pack(">I", 3)
    return bytes(made + struct.pack(">Q", 0x200) + over + b"\x02" + struct.pack(">I", 3) + over + rest)
