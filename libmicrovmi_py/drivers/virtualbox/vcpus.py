# SPDX-License-Identifier: Apache-2.0
"""X86Registers, put together from what libFDP tells."""

from __future__ import annotations

from libmicrovmi_py.arch.x86 import descriptors, msrs
from libmicrovmi_py.arch.x86.registers import CR0_PE, EFER_LMA, RFLAGS_VM, SegmentReg, SystemTableReg, X86Registers
from libmicrovmi_py.drivers.virtualbox import abi
from libmicrovmi_py.drivers.virtualbox.fdp import Machine


def read(machine: Machine, vcpu: int) -> X86Registers:
    """All registers. Of vCPUs but the first libFDP does not tell those of ``abi.REGISTERS``, which are then 0.

    It tells selectors only; bases and limits are those of the descriptors in the guest's tables, of FS and GS in long
    mode those of the MSRs.
    """
    registers = X86Registers(rflags=machine.register(vcpu, abi.RFLAGS))
    if vcpu == 0:
        for name, number in abi.REGISTERS.items():
            setattr(registers, name, machine.register(vcpu, number))
    for name, number in msrs.MEMBERS.items():
        setattr(registers, name, machine.msr(vcpu, number))
    registers.efer = registers.msr_efer
    for name, (base, limit) in abi.TABLES.items():
        table = SystemTableReg(machine.register(vcpu, base), machine.register(vcpu, limit) & 0xFFFF)
        setattr(registers, name, table)
    _read_segments(machine, vcpu, registers)
    return registers


def _read_segments(machine: Machine, vcpu: int, registers: X86Registers) -> None:
    selectors = {name: machine.register(vcpu, number) & 0xFFFF for name, number in abi.SELECTORS.items()}
    base, limit = machine.register(vcpu, abi.LDT_BASE), machine.register(vcpu, abi.LDT_LIMIT)
    registers.ldt = SegmentReg(base, limit & 0xFFFFFFFF, selectors.pop("ldt"))
    for name, selector in selectors.items():
        setattr(registers, name, _segment(machine, vcpu, registers, selector, system=name == "tr"))
    if registers.efer & EFER_LMA:
        registers.fs.base = machine.msr(vcpu, msrs.INDEXES["fs_base"])
        registers.gs.base = machine.msr(vcpu, msrs.INDEXES["gs_base"])


def _segment(machine: Machine, vcpu: int, registers: X86Registers, selector: int, *, system: bool) -> SegmentReg:
    """A segment as its selector and the guest's tables have it; base and limit are 0 where neither tells."""
    long_mode = bool(registers.efer & EFER_LMA)
    protected = long_mode or bool(registers.cr0 & CR0_PE)
    if not system and vcpu == 0 and (not protected or registers.rflags & RFLAGS_VM):
        return descriptors.real_mode_segment(selector)
    size = descriptors.LONG_SIZE if system and long_mode else descriptors.SIZE
    address = descriptors.descriptor_address(registers, selector, size) if protected else None
    found = machine.virtual(vcpu, address, size) if address is not None else b""
    return descriptors.decode_segment(found, selector, long_mode=long_mode)


def write(machine: Machine, registers: X86Registers) -> None:
    """Change what differs of the first vCPU: general registers, RIP, RFLAGS, control registers and MSRs.

    CR3 follows CR2, because a VirtualBox with FDP shows what was written to CR2 as CR3 from then on.
    """
    before = read(machine, 0)
    changed = {name for name in (*abi.REGISTERS, "rflags") if getattr(registers, name) != getattr(before, name)}
    changed |= {"cr3"} if "cr2" in changed else set()
    for name, number in {**abi.REGISTERS, "rflags": abi.RFLAGS}.items():
        if name in changed:
            machine.order("FDP_WriteRegister", 0, number, getattr(registers, name))
    for name, number in msrs.MEMBERS.items():
        value = getattr(registers, name)
        if name == "msr_efer" and value == before.msr_efer:
            value = registers.efer
        if value != getattr(before, name):
            machine.order("FDP_WriteMsr", 0, number, value)
