# SPDX-License-Identifier: Apache-2.0
"""Registers between KVM's structures and ours."""

from __future__ import annotations

from libmicrovmi_py.arch.x86 import msrs
from libmicrovmi_py.arch.x86.registers import (
    CONTROL,
    GENERAL,
    SEGMENTS,
    TABLES,
    SegmentReg,
    SystemTableReg,
    X86Registers,
)
from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.kvm.library import Domain

_SPECIAL = (*CONTROL, "efer", "apic_base")
"""What ``struct kvm_sregs`` has besides segments and tables."""

_MSRS = {name: index for name, index in msrs.MEMBERS.items() if name not in _SPECIAL}


def read(domain: Domain, vcpu: int) -> X86Registers:
    """The registers of one vCPU, all members of ``X86Registers``."""
    new = domain.ffi.new
    regs, sregs, mode = new("struct kvm_regs *"), new("struct kvm_sregs *"), new("unsigned int *")
    entries = new("struct kvm_msrs *", {"nmsrs": len(_MSRS), "entries": [{"index": index} for index in _MSRS.values()]})
    domain.call("kvmi_get_registers", vcpu, regs, sregs, entries, mode)
    values = {name: getattr(regs, name) for name in GENERAL}
    values.update((name, getattr(sregs, name)) for name in _SPECIAL)
    values.update((name, entries.entries[index].data) for index, name in enumerate(_MSRS))
    return X86Registers(**values, **_descriptors(sregs))


def write(domain: Domain, vcpu: int, registers: X86Registers) -> None:
    """Hand the general registers to KVM, which loads them when the vCPU goes on."""
    regs = domain.ffi.new("struct kvm_regs *", {name: getattr(registers, name) for name in GENERAL})
    domain.call("kvmi_set_registers", vcpu, regs)


def _descriptors(sregs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in SEGMENTS:
        segment = getattr(sregs, name)
        found[name] = SegmentReg(segment.base, segment.limit, segment.selector)
    for name in TABLES:
        table = getattr(sregs, name)
        found[name] = SystemTableReg(table.base, table.limit)
    return found
