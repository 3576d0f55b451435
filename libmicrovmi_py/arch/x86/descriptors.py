# SPDX-License-Identifier: Apache-2.0
"""Segments by their descriptors: where a descriptor is, and what it says."""

from __future__ import annotations

from collections.abc import Mapping

SIZE, LONG_SIZE = 8, 16
"""Bytes of a descriptor; of one of the system's in long mode, which has a base of 64 bits."""

_LOCAL = 1 << 2
"""The bit of a selector that stands for the local table."""

_CODE_OR_DATA = 1 << 44
_GRANULARITY = 1 << 55


UNUSABLE = {"base": 0, "limit": 0, "attributes": 0}
"""A segment of a null selector."""


def is_null(selector: int) -> bool:
    """Whether a selector is that of no segment."""
    return selector < _LOCAL


def real_mode_segment(selector: int) -> dict[str, int]:
    """Base and limit that a selector stands for in real and in virtual-8086 mode, where there are no descriptors."""
    return {"base": selector << 4, "limit": 0xFFFF}


def descriptor_address(values: Mapping[str, int], selector: int, size: int) -> int | None:
    """The guest-virtual address of a selector's descriptor of ``size`` bytes, by the registers of the tables.

    ``None`` for a null selector, and for one outside of its table.
    """
    table = "ldt" if selector & _LOCAL else "gdt"
    offset = selector & ~7
    if is_null(selector) or offset + size - 1 > values[f"{table}_limit"]:
        return None
    return values[f"{table}_base"] + offset


def decode_segment(descriptor: bytes, *, long_mode: bool) -> dict[str, int]:
    """Base, limit and attributes of a segment by its descriptor of ``SIZE`` or ``LONG_SIZE`` bytes.

    In long mode the bases of code and data count as 0.
    """
    low = int.from_bytes(descriptor[:SIZE], "little")
    high = int.from_bytes(descriptor[SIZE:12], "little")
    base = low >> 16 & 0xFFFFFF | low >> 32 & 0xFF000000 | high << 32
    limit = low & 0xFFFF | low >> 32 & 0xF0000
    if long_mode and low & _CODE_OR_DATA:
        base = 0
    limit = limit << 12 | 0xFFF if low & _GRANULARITY else limit
    return {"base": base, "limit": limit, "attributes": attributes(low >> 40)}


def attributes(rights: int) -> int:
    """Attributes as a state has them, of rights as descriptors have them: bits 8 to 11 are those of the limit."""
    return rights & 0xFF | rights >> 4 & 0xF00
