# SPDX-License-Identifier: Apache-2.0
"""What the firmware told the guest about main memory: tables of SMBIOS and ACPI in the guest's memory.

DSP0134 of the DMTF (entry points, type 19), and the ACPI specification (RSDP, RSDT, SRAT). The guest can
change all of it, so tables that contradict themselves are ignored.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator

from libmicrovmi_py.drivers.dump.layout import Span

Read = Callable[[int, int], bytes]
"""Bytes from a guest-physical address on: as many as were asked for, or fewer where the dump has no more."""

_BIOS, _BIOS_END, _PAGE = 0xE0000, 0x100000, 4096
_LONGEST = 256 << 10
"""Bytes that a table has at the most."""
_MOST_ANCHORS, _MOST_TABLES, _MOST_RANGES = 16, 256, 64
"""How many of each are looked at: more than any firmware has."""

_MAPPED_ADDRESS, _END = 19, 127
_IN_BYTES = 0xFFFFFFFF


def told(read: Read) -> list[Span]:
    """The ranges of main memory in the firmware's tables, none if there are none."""
    bios = b"".join(read(page, _PAGE).ljust(_PAGE, b"\0") for page in range(_BIOS, _BIOS_END, _PAGE))
    anchors = sorted((place, anchor) for anchor in _TABLES for place in _places(bios, anchor) if place % 16 == 0)
    found: list[Span] = []
    for place, anchor in anchors[:_MOST_ANCHORS]:
        entry = bios[place:][:36].ljust(36, b"\0")
        found += itertools.islice(_TABLES[anchor](read, entry), _MOST_RANGES)
    return found


def _places(data: bytes, anchor: bytes) -> Iterator[int]:
    place = data.find(anchor)
    while place >= 0:
        yield place
        place = data.find(anchor, place + len(anchor))


def mirrored(read: Read, size: int) -> bool:
    """Whether the last ``size`` bytes below 1 MiB are those below 4 GiB: the firmware, seen twice."""
    low, high = read(_BIOS_END - size, size), read((1 << 32) - size, size)
    return len(low) == size and low == high


def _smbios(read: Read, entry: bytes) -> Iterator[Span]:
    (size,) = struct.unpack_from("<H", entry, 0x16)
    (address,) = struct.unpack_from("<I", entry, 0x18)
    if _adds_up(entry[: min(entry[5], len(entry))]):
        yield from _mapped(read(address, size))


def _smbios_3(read: Read, entry: bytes) -> Iterator[Span]:
    size, address = struct.unpack_from("<IQ", entry, 0x0C)
    if _adds_up(entry[: min(entry[6], len(entry))]):
        yield from _mapped(read(address, min(size, _LONGEST)))


def _mapped(table: bytes) -> Iterator[Span]:
    """Structures of a type, a length and a handle, each followed by its texts; those of type 19 are main memory."""
    position = 0
    while position + 4 <= len(table):
        kind, size = table[position], table[position + 1]
        if kind == _END or size < 4:
            return
        if kind == _MAPPED_ADDRESS:
            yield from _array(table[position : position + size])
        position = table.find(b"\0\0", position + size) + 2
        if position == 1:
            return


def _array(structure: bytes) -> Iterator[Span]:
    """A memory array mapped address: first and last KiB, or bytes behind them where those do not fit."""
    if len(structure) < 15:
        return
    first, last = struct.unpack_from("<2I", structure, 4)
    if first != _IN_BYTES:
        yield first << 10, (last + 1) << 10
    elif len(structure) >= 31:
        first, last = struct.unpack_from("<2Q", structure, 15)
        yield first, last + 1


def _acpi(read: Read, entry: bytes) -> Iterator[Span]:
    """The ranges of the SRAT, which knows memory that can be plugged in as well."""
    if not _adds_up(entry[:20]):
        return
    table = _table(read, struct.unpack_from("<I", entry, 16)[0], b"RSDT")
    for (address,) in struct.iter_unpack("<I", table[: min(len(table) // 4, _MOST_TABLES) * 4]):
        rows = _table(read, address, b"SRAT")
        if rows:
            yield from _affinities(rows)
            return


def _affinities(table: bytes) -> Iterator[Span]:
    """Rows of a type and a length; those of type 1 are memory, if their flag says so."""
    position = 12
    while position + 2 <= len(table) and table[position + 1] >= 2:
        if table[position] == 1 and position + 40 <= len(table):
            first, size, flags = struct.unpack_from("<8x2Q4xI", table, position)
            if flags & 1:
                yield first, first + size
        position += table[position + 1]


def _table(read: Read, address: int, name: bytes) -> bytes:
    """What follows the header of a table of ACPI; nothing if it is not that one."""
    header = read(address, 36)
    if len(header) < 36 or header[:4] != name:
        return b""
    (size,) = struct.unpack_from("<I", header, 4)
    content = read(address, min(size, _LONGEST))
    return content[36:] if len(content) == size and _adds_up(content) else b""


def _adds_up(content: bytes) -> bool:
    return len(content) > 0 and sum(content) % 256 == 0


_TABLES: dict[bytes, Callable[[Read, bytes], Iterator[Span]]] = {
    b"_SM_": _smbios,
    b"_SM3_": _smbios_3,
    b"RSD PTR ": _acpi,
}
