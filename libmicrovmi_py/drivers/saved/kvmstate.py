# SPDX-License-Identifier: Apache-2.0
"""The registers of a vCPU out of the structures of Linux's KVM, as programs that use it save them byte by byte.

https://docs.kernel.org/virt/kvm/api.html, ``asm/kvm.h`` of x86 and arm64. All little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from libmicrovmi_py.arch.x86.msrs import INDEXES
from libmicrovmi_py.arch.x86.registers import GENERAL, MSRS, WIDTHS
from libmicrovmi_py.drivers.saved.armstate import NAMES

_REGS = struct.Struct(f"<{len(GENERAL)}Q")
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
_SEGMENT = "QIH10B"
_PARTS = 13
"""The numbers of a segment: base, limit, selector, then type, present, DPL, D/B, S, L, G, AVL, unusable, padding."""
_CONTROL = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")
_SREGS = struct.Struct(f"<{_SEGMENT * len(_SEGMENTS)}QH6xQH6x{len(_CONTROL)}Q32x")
_XCRS, _XCR = struct.Struct("<2I"), struct.Struct("<I4xQ")
_MOST_XCRS = 16
_ARM_REGS = struct.Struct("<31Q3Q2Q5Q")

SIZE_REGS, SIZE_SREGS, SIZE_XCRS, SIZE_ARM_REGS = _REGS.size, _SREGS.size, 392, 864
"""Bytes of ``kvm_regs``, ``kvm_sregs`` and ``kvm_xcrs``, and of the ``kvm_regs`` of arm64."""


def general(content: bytes) -> dict[str, int]:
    """Those of ``kvm_regs``."""
    return dict(zip(GENERAL, _REGS.unpack_from(content), strict=True))


def special(content: bytes) -> dict[str, int]:
    """Those of ``kvm_sregs``: segments, tables, control registers, EFER and the APIC's base."""
    numbers = _SREGS.unpack_from(content)
    values: dict[str, int] = {}
    for index, name in enumerate(_SEGMENTS):
        values |= _segment(name, numbers[_PARTS * index : _PARTS * (index + 1)])
    rest = numbers[_PARTS * len(_SEGMENTS) :]
    names = ("gdt_base", "gdt_limit", "idt_base", "idt_limit", *_CONTROL)
    return values | _fitting(dict(zip(names, rest, strict=True)))


def _segment(name: str, numbers: tuple[int, ...]) -> dict[str, int]:
    base, limit, selector, kind, present, level, big, code_or_data, long, granular, available, unusable, _ = numbers
    low = kind & 0xF | (code_or_data & 1) << 4 | (level & 3) << 5 | (present & ~unusable & 1) << 7
    high = available & 1 | (long & 1) << 1 | (big & 1) << 2 | (granular & 1) << 3
    parts = {"base": base, "limit": limit, "selector": selector, "attributes": low | high << 8}
    return {f"{name}_{part}": value for part, value in parts.items()}


def specific(values: Mapping[int, int]) -> dict[str, int]:
    """The model-specific registers of a state, out of values by index."""
    return _fitting({name: values[INDEXES[name]] for name in MSRS if INDEXES[name] in values})


def extended(content: bytes) -> dict[str, int]:
    """XCR0 of ``kvm_xcrs``, if it is there."""
    count, _ = _XCRS.unpack_from(content)
    rows = (_XCR.unpack_from(content, _XCRS.size + _XCR.size * index) for index in range(min(count, _MOST_XCRS)))
    found = dict(rows)
    return {"xcr0": found[0]} if 0 in found else {}


def arm(content: bytes, system: Mapping[int, int]) -> dict[str, int]:
    """Those of the ``kvm_regs`` of arm64, and system registers by their numbers; nothing of one that runs AArch32."""
    numbers = _ARM_REGS.unpack_from(content)
    pstate = numbers[33]
    if pstate & 1 << 4:
        return {}
    values = {f"x{index}": numbers[index] for index in range(31)}
    values |= {"sp_el0": numbers[31], "pc": numbers[32], "pstate": pstate}
    values |= {"sp_el1": numbers[34], "elr_el1": numbers[35], "spsr_el1": numbers[36]}
    return values | {name: system[number] for number, name in NAMES.items() if number in system}


def _fitting(values: dict[str, int]) -> dict[str, int]:
    """Those of which no register has fewer bits."""
    return {name: value for name, value in values.items() if value < 1 << WIDTHS.get(name, 64)}
