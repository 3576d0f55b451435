# SPDX-License-Identifier: Apache-2.0
"""Segments by their descriptors: where a descriptor is, and what it says."""

from __future__ import annotations

from libmicrovmi_py.arch.x86.registers import SegmentReg, X86Registers

SIZE, LONG_SIZE = 8, 16
"""Bytes of a descriptor; of one of the system's in long mode, which has a base of 64 bits."""

_LOCAL = 1 << 2
"""The bit of a selector that stands for the local table."""

_CODE_OR_DATA = 1 << 44
_GRANULARITY = 1 << 55


def real_mode_segment(selector: int) -> SegmentReg:
    """What a selector stands for in real and in virtual-8086 mode, where there are no descriptors."""
    return SegmentReg(selector << 4, 0xFFFF, selector)


def descriptor_address(registers: X86Registers, selector: int, size: int) -> int | None:
    """The guest-virtual address of a selector's descriptor of ``size`` bytes, by the tables' registers.

    ``None`` for a null selector, and for one outside of its table.
    """
    table = registers.ldt if selector & _LOCAL else registers.gdt
    offset = selector & ~7
    if selector < _LOCAL or offset + size - 1 > table.limit:
        return None
    return table.base + offset


def decode_segment(descriptor: bytes, selector: int, *, long_mode: bool) -> SegmentReg:
    """What a descriptor of ``SIZE`` or ``LONG_SIZE`` bytes says of its segment; an empty one: base and limit are 0.

    In long mode the bases of code and data count as 0.
    """
    low = int.from_bytes(descriptor[:SIZE], "little")
    high = int.from_bytes(descriptor[SIZE:12], "little")
    base = low >> 16 & 0xFFFFFF | low >> 32 & 0xFF000000 | high << 32
    limit = low & 0xFFFF | low >> 32 & 0xF0000
    if long_mode and low & _CODE_OR_DATA:
        base = 0
    return SegmentReg(base, limit << 12 | 0xFFF if low & _GRANULARITY else limit, selector)
