# SPDX-License-Identifier: Apache-2.0
"""Registers, put together from what libFDP tells."""

from __future__ import annotations

from libmicrovmi_py.drivers.virtualbox import abi
from libmicrovmi_py.drivers.virtualbox.machine import Machine
from libmicrovmi_py.model import Registers, SegmentReg, SystemTableReg

_PROTECTED = 1
_LONG_MODE = 1 << 10
_VIRTUAL_8086 = 1 << 17
_GRANULARITY = 1 << 55
_CODE_OR_DATA = 1 << 44
_LOCAL = 4


def read(machine: Machine, vcpu: int) -> Registers:
    """All registers. Of vCPUs but the first libFDP does not tell those of ``abi.REGISTERS``, which are then 0.

    It tells selectors only; bases and limits are those of the descriptors in the guest's tables, of FS and GS in long
    mode those of the MSRs.
    """
    registers = Registers(rflags=machine.register(vcpu, abi.RFLAGS))
    if vcpu == 0:
        for name, number in abi.REGISTERS.items():
            setattr(registers, name, machine.register(vcpu, number))
    for name, number in abi.MSRS.items():
        setattr(registers, name, machine.msr(vcpu, number))
    registers.efer = registers.msr_efer
    for name, (base, limit) in abi.TABLES.items():
        table = SystemTableReg(machine.register(vcpu, base), machine.register(vcpu, limit) & 0xFFFF)
        setattr(registers, name, table)
    _read_segments(machine, vcpu, registers)
    return registers


def _read_segments(machine: Machine, vcpu: int, registers: Registers) -> None:
    selectors = {name: machine.register(vcpu, number) & 0xFFFF for name, number in abi.SELECTORS.items()}
    base, limit = machine.register(vcpu, abi.LDT_BASE), machine.register(vcpu, abi.LDT_LIMIT)
    registers.ldt = SegmentReg(base, limit & 0xFFFFFFFF, selectors.pop("ldt"))
    for name, selector in selectors.items():
        setattr(registers, name, _segment(machine, vcpu, registers, selector, system=name == "tr"))
    if registers.efer & _LONG_MODE:
        registers.fs.base = machine.msr(vcpu, abi.FS_BASE)
        registers.gs.base = machine.msr(vcpu, abi.GS_BASE)


def _segment(machine: Machine, vcpu: int, registers: Registers, selector: int, *, system: bool) -> SegmentReg:
    """A segment as its selector and the guest's tables have it; base and limit are 0 where neither tells."""
    long_mode = bool(registers.efer & _LONG_MODE)
    protected = long_mode or bool(registers.cr0 & _PROTECTED)
    if not system and vcpu == 0 and (not protected or registers.rflags & _VIRTUAL_8086):
        return SegmentReg(selector << 4, 0xFFFF, selector)
    if not protected or selector < _LOCAL:
        return SegmentReg(0, 0, selector)
    found = _descriptor(machine, vcpu, registers, selector, 16 if system and long_mode else 8)
    segment = _decode(found, selector)
    if long_mode and int.from_bytes(found[:8], "little") & _CODE_OR_DATA:
        segment.base = 0
    return segment


def _descriptor(machine: Machine, vcpu: int, registers: Registers, selector: int, size: int) -> bytes:
    table = registers.ldt if selector & _LOCAL else registers.gdt
    offset = selector & ~7
    if offset + size - 1 > table.limit:
        return b""
    return machine.virtual(vcpu, table.base + offset, size)


def _decode(descriptor: bytes, selector: int) -> SegmentReg:
    """Base and limit of a descriptor of 8 bytes, or of 16 with a base of 64 bits."""
    low = int.from_bytes(descriptor[:8], "little")
    base = low >> 16 & 0xFFFFFF | low >> 32 & 0xFF000000 | int.from_bytes(descriptor[8:12], "little") << 32
    limit = low & 0xFFFF | low >> 32 & 0xF0000
    return SegmentReg(base, limit << 12 | 0xFFF if low & _GRANULARITY else limit, selector)


def write(machine: Machine, registers: Registers) -> None:
    """Change what differs of the first vCPU: general registers, RIP, RFLAGS, control registers and MSRs.

    CR3 follows CR2, because a VirtualBox with FDP shows what was written to CR2 as CR3 from then on.
    """
    before = read(machine, 0)
    changed = {name for name in (*abi.REGISTERS, "rflags") if getattr(registers, name) != getattr(before, name)}
    changed |= {"cr3"} if "cr2" in changed else set()
    for name, number in {**abi.REGISTERS, "rflags": abi.RFLAGS}.items():
        if name in changed:
            machine.order("FDP_WriteRegister", 0, number, getattr(registers, name))
    for name, number in abi.MSRS.items():
        value = getattr(registers, name)
        if name == "msr_efer" and value == before.msr_efer:
            value = registers.efer
        if value != getattr(before, name):
            machine.order("FDP_WriteMsr", 0, number, value)
