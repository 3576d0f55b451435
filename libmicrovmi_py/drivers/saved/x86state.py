# SPDX-License-Identifier: Apache-2.0
"""The registers of an x86 vCPU out of QEMU's device state: section ``cpu`` in its version 12, and the local APIC's."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from libmicrovmi_py.arch.x86.descriptors import attributes
from libmicrovmi_py.arch.x86.registers import ENCODED, TABLES
from libmicrovmi_py.drivers.saved.sections import Section, value_at

VERSION = 12
"""Of the section ``cpu`` that is understood; every QEMU since 1.0 writes it."""

_APIC_VERSION = 3
_APIC_FLAGS = 0xD00
"""The bits of the APIC's base register that are no address: it is the first processor's, x2APIC, on."""

_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr", "gdt", "idt")
_MSRS = ("efer", "star", "lstar", "cstar", "fmask", "kernel_gs_base")
_NARROW_REGISTERS, _WIDE_REGISTERS = 8, 16
_VECTOR = 16
"""Bytes of an XMM register, and of what AVX adds to it."""
_BETWEEN = 657
"""Bytes from the extended MSRs to TSC_AUX: system management, virtualization, MTRRs, interrupts, machine checks."""


class Layout:
    """Where the registers stand in the section, by target: all numbers are big-endian, nothing is aligned."""

    def __init__(self, *, wide: bool) -> None:
        """``wide``: of a QEMU for 64-bit processors, whatever mode they are in."""
        word, count = ("Q", _WIDE_REGISTERS) if wide else ("I", _NARROW_REGISTERS)
        self.names = [*ENCODED[:count], "rip", "rflags"]
        code = f">{count}{word}2{word}92x"  # hidden flags, the floating-point unit
        for name in _SEGMENTS:
            self.names += [f"{name}_selector", f"{name}_base", f"{name}_limit", f"{name}_attributes"]
            code += f"I{word}II"
        self.names += ["sysenter_cs", "sysenter_esp", "sysenter_eip", "cr0", "cr2", "cr3", "cr4"]
        self.names += [f"dr{number}" for number in range(8)]
        code += f"I2{word}4{word}8{word}8x{count * _VECTOR}x"
        if wide:
            self.names += _MSRS
            code += f"{len(_MSRS)}Q"
        self.names += ["tsc_aux", "xcr0"]
        code += f"{_BETWEEN}xQ16xQ8x{count * _VECTOR}x"
        self.struct = struct.Struct(code)


def parse_cpu(data: bytes, section: Section, layout: Layout) -> dict[str, int] | None:
    """The registers of a section, by the names of ``STATE``; ``None`` if it is not what the layout says."""
    if section.version != VERSION or not section.ends_at(data, layout.struct.size):
        return None
    values = dict(zip(layout.names, layout.struct.unpack_from(data, section.start), strict=True))
    for name in _SEGMENTS:
        values[f"{name}_attributes"] = attributes(values[f"{name}_attributes"] >> 8)
    for name in TABLES:
        del values[f"{name}_selector"], values[f"{name}_attributes"]
        values[f"{name}_limit"] &= 0xFFFF
    del values["dr4"], values["dr5"]
    fits = all(values[f"{name}_selector"] <= 0xFFFF for name in _SEGMENTS if name not in TABLES)
    return values if fits and values["tsc_aux"] <= 0xFFFFFFFF else None


def parse_apics(data: bytes, sections: Sequence[Section]) -> list[dict[str, int]] | None:
    """APIC base and CR8 of all vCPUs, in their order; ``None`` unless all sections make sense."""
    for width in (4, 8):
        states = [_parse_apic(data, section, width) for section in sections]
        if states and all(states):
            return [state for state in states if state]
    return None


def _parse_apic(data: bytes, section: Section, width: int) -> dict[str, int] | None:
    """One APIC, whose base is a number of so many bytes; the number of the section has to be its id, which follows."""
    start = section.start
    base = value_at(data, start, width)
    identifier, priority = value_at(data, start + width, 1), value_at(data, start + width + 2, 1)
    if section.version != _APIC_VERSION or base is None or identifier is None or priority is None:
        return None
    if identifier != section.instance & 0xFF or not base >> 12 or base & 0xFFF & ~_APIC_FLAGS:
        return None
    return {"apic_base": base, "cr8": priority >> 4}
