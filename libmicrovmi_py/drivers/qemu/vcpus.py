# SPDX-License-Identifier: Apache-2.0
"""The vCPUs by the monitor: how many there are, and x86 registers out of the text of ``info registers``."""

from __future__ import annotations

import re

from libmicrovmi_py.arch.x86.registers import (
    CONTROL,
    GENERAL,
    NUMBERED,
    SEGMENTS,
    SegmentReg,
    SystemTableReg,
    X86Registers,
)
from libmicrovmi_py.drivers.base import check_vcpu
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.transport.qmp import QmpClient
from libmicrovmi_py.transport.shape import hexadecimal, integer

_MOST_VCPUS = 0xFFFF
"""What the C API can tell; QEMU has 4096 at the most."""

_HIGHEST_INDEX = (1 << 31) - 1

_VALUE = re.compile(r"\b([A-Z][A-Z0-9]{1,3}) ?=([0-9a-f]{8,})")
_SEGMENT = re.compile(r"^([A-Z]{2,3}) ?=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]+)", re.MULTILINE)
_TABLE = re.compile(r"^([GI]DT)= +([0-9a-f]+) ([0-9a-f]+)", re.MULTILINE)

_WIDE = {name.upper(): name for name in (*GENERAL, *CONTROL)}
_HALVES = {f"E{name[1:].upper()}": name for name in GENERAL if name not in NUMBERED}
_NAMES = {**_WIDE, **_HALVES, "EFL": "rflags", "RFL": "rflags", "EFER": "msr_efer"}


def parse_registers(text: str) -> X86Registers:
    """The registers of one vCPU, in the 64-bit form of the text or in the 32-bit one.

    QEMU does not print sysenter_*, star, lstar and apic_base: they stay 0. In 32-bit modes, those of a 64-bit vCPU
    included, it prints the lower halves of the general registers only. Raises ``NotSupportedError`` for
    another architecture, ``IoError`` for a value that no register can hold.
    """
    values = {_NAMES[name]: hexadecimal(value, name) for name, value in _VALUE.findall(text) if name in _NAMES}
    if "rip" not in values:
        raise NotSupportedError("reading registers: the virtual machine is not an x86 one")
    registers = X86Registers(efer=values.get("msr_efer", 0))
    for register, value in values.items():
        setattr(registers, register, value)
    for name, selector, base, limit in _SEGMENT.findall(text):
        if name.lower() in SEGMENTS:
            segment = SegmentReg(hexadecimal(base, name), hexadecimal(limit, name, 32), hexadecimal(selector, name, 16))
            setattr(registers, name.lower(), segment)
    for name, base, limit in _TABLE.findall(text):
        table = SystemTableReg(hexadecimal(base, name), hexadecimal(limit, name) & 0xFFFF)
        setattr(registers, name.lower(), table)
    return registers


def vcpu_indexes(client: QmpClient) -> list[int]:
    """QEMU's number of each vCPU, in ascending order. Raises ``IoError`` for none, or more than can be told."""
    answer = client.records("query-cpus-fast")
    integer(len(answer), "the number of vCPUs", 1, _MOST_VCPUS)
    return sorted(integer(item.get("cpu-index"), "the number of a vCPU", 0, _HIGHEST_INDEX) for item in answer)


def registers(client: QmpClient, vcpu: int) -> X86Registers:
    """The registers of the ``vcpu``-th vCPU. Raises ``InvalidArgumentError`` and ``NotSupportedError``."""
    indexes = vcpu_indexes(client)
    check_vcpu(vcpu, len(indexes))
    return parse_registers(client.human("info registers", cpu_index=indexes[vcpu]))
