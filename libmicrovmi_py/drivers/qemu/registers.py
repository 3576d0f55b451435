# SPDX-License-Identifier: Apache-2.0
"""x86 registers out of the text of ``info registers``."""

from __future__ import annotations

import re

from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.model import X86_SEGMENTS, Registers, SegmentReg, SystemTableReg
from libmicrovmi_py.transport.shape import hexadecimal

_VALUE = re.compile(r"\b([A-Z][A-Z0-9]{1,3}) ?=([0-9a-f]{8,})")
_SEGMENT = re.compile(r"^([A-Z]{2,3}) ?=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]+)", re.MULTILINE)
_TABLE = re.compile(r"^([GI]DT)= +([0-9a-f]+) ([0-9a-f]+)", re.MULTILINE)

_LEGACY = {f"E{name}": f"r{name.lower()}" for name in ("AX", "BX", "CX", "DX", "SI", "DI", "BP", "SP", "IP")}
_LONG = {f"R{name[1:]}": register for name, register in _LEGACY.items()}
_NUMBERED = {f"R{number}": f"r{number}" for number in range(8, 16)}
_CONTROL = {"EFL": "rflags", "RFL": "rflags", "CR0": "cr0", "CR2": "cr2", "CR3": "cr3", "CR4": "cr4"}
_NAMES = {**_LEGACY, **_LONG, **_NUMBERED, **_CONTROL, "EFER": "msr_efer"}


def parse_registers(text: str) -> Registers:
    """The registers of one vCPU, in the 64-bit form of the text or in the 32-bit one.

    QEMU does not print sysenter_*, star, lstar and apic_base: they stay 0. In 32-bit modes, those of a 64-bit vCPU
    included, it prints the lower halves of the general registers only. Raises ``NotSupportedError`` for
    another architecture, ``IoError`` for a value that no register can hold.
    """
    values = {_NAMES[name]: hexadecimal(value, name) for name, value in _VALUE.findall(text) if name in _NAMES}
    if "rip" not in values:
        raise NotSupportedError("reading registers: the virtual machine is not an x86 one")
    registers = Registers(efer=values.get("msr_efer", 0))
    for register, value in values.items():
        setattr(registers, register, value)
    for name, selector, base, limit in _SEGMENT.findall(text):
        if name.lower() in X86_SEGMENTS:
            segment = SegmentReg(hexadecimal(base, name), hexadecimal(limit, name, 32), hexadecimal(selector, name, 16))
            setattr(registers, name.lower(), segment)
    for name, base, limit in _TABLE.findall(text):
        table = SystemTableReg(hexadecimal(base, name), hexadecimal(limit, name) & 0xFFFF)
        setattr(registers, name.lower(), table)
    return registers
