# SPDX-License-Identifier: Apache-2.0
"""qcow2 images with machines in their snapshots, written from the description (docs/interop/qcow2.rst of QEMU)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

EXTENDED, UNKNOWN, CORRUPT = 1 << 4, 1 << 7, 1 << 1


def qcow2(
    states: Mapping[str, bytes],
    *,
    bits: int = 12,
    features: int = 0,
    version: int = 3,
    disk: int = 100_000,
    method: int = 0,
    flags: int = 0,
) -> bytes:
    """An image of a disk of so many bytes, without any data; each state is a snapshot of that name, 0 bytes: none.

    The clusters of a state go backwards in the file by pairs, so that they are in pieces; those of zeros are not there.
    ``flags`` are set in each entry of the tables of the second level.
    """
    size = 1 << bits
    made = bytearray(size)
    wide = 2 if features & EXTENDED else 1
    count = size // 8 // wide
    first = -(-disk // (count * size))
    table = b""
    for number, (name, state) in enumerate(states.items(), 1):
        entries = _second(made, state, size, wide, flags)
        tables = [entries[at : at + count * wide] for at in range(0, len(entries), count * wide)]
        places = [_put(made, struct.pack(f">{len(item)}Q", *item), size) | 1 << 63 for item in tables]
        l1 = _put(made, struct.pack(f">{first + len(places)}Q", *[0] * first, *places), size)
        text, told = str(number).encode(), name.encode()
        extra = struct.pack(">QQ", len(state), disk) if version == 3 else b""
        row = struct.pack(">QIHHIIQII", l1, first + len(places), len(text), len(told), 1000 + number, 0, 0, 0, 0)
        row = row[:32] + struct.pack(">II", 0 if extra else len(state), len(extra)) + extra + text + told
        table += row.ljust(len(row) + 7 & -8, b"\0")
    place = _put(made, table, size)
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 0, 0, bits, disk, method, 0, 0, 0, 0, len(states), place)
    head += struct.pack(">QQQII", features, 0, 0, 4, 104) if version == 3 else b""
    made[: len(head)] = head
    return bytes(made)


def _put(made: bytearray, content: bytes, size: int) -> int:
    place = len(made)
    made += content.ljust(-(-max(len(content), 1) // size) * size, b"\0")
    return place


def _second(made: bytearray, state: bytes, size: int, wide: int, flags: int) -> list[int]:
    """The entries of the tables of the second level."""
    clusters = [state[at : at + size] for at in range(0, len(state), size)]
    places = [0] * len(clusters)
    pairs = [range(at, min(at + 2, len(clusters))) for at in range(0, len(clusters), 2)]
    for pair in reversed(pairs):
        for index in pair:
            if any(clusters[index]):
                places[index] = _put(made, clusters[index], size) | 1 << 63 | flags
    if wide == 1:
        return places
    return [word for index, place in enumerate(places) for word in (place, _there(clusters[index], size))]


def _there(cluster: bytes, size: int) -> int:
    """The bitmap of an extended entry: parts of zeros are not there."""
    part = size // 32
    return sum(1 << bit for bit in range(32) if any(cluster[bit * part : (bit + 1) * part]))
