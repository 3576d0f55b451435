# SPDX-License-Identifier: Apache-2.0
"""Registers between KVM's structures and ours."""

from __future__ import annotations

from typing import Any

from libmicrovmi_py.drivers.kvm import abi
from libmicrovmi_py.drivers.kvm.domain import Domain
from libmicrovmi_py.model import X86_SEGMENTS, X86_TABLES, SegmentReg, SystemTableReg, X86Registers

GENERAL = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)
"""What can be written, too."""

_SPECIAL = ("cr0", "cr2", "cr3", "cr4", "efer", "apic_base")

_MSRS = {
    "sysenter_cs": abi.MSR_SYSENTER_CS,
    "sysenter_esp": abi.MSR_SYSENTER_ESP,
    "sysenter_eip": abi.MSR_SYSENTER_EIP,
    "msr_efer": abi.MSR_EFER,
    "msr_star": abi.MSR_STAR,
    "msr_lstar": abi.MSR_LSTAR,
}


def read(domain: Domain, vcpu: int) -> X86Registers:
    """The registers of one vCPU, all members of ``X86Registers``."""
    new = domain.ffi.new
    regs, sregs, mode = new("struct kvm_regs *"), new("struct kvm_sregs *"), new("unsigned int *")
    msrs = new("struct kvm_msrs *", {"nmsrs": len(_MSRS), "entries": [{"index": index} for index in _MSRS.values()]})
    domain.call("kvmi_get_registers", vcpu, regs, sregs, msrs, mode)
    values = {name: getattr(regs, name) for name in GENERAL}
    values.update((name, getattr(sregs, name)) for name in _SPECIAL)
    values.update((name, msrs.entries[index].data) for index, name in enumerate(_MSRS))
    return X86Registers(**values, **_descriptors(sregs))


def write(domain: Domain, vcpu: int, registers: X86Registers) -> None:
    """Hand the general registers to KVM, which loads them when the vCPU goes on."""
    regs = domain.ffi.new("struct kvm_regs *", {name: getattr(registers, name) for name in GENERAL})
    domain.call("kvmi_set_registers", vcpu, regs)


def _descriptors(sregs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in X86_SEGMENTS:
        segment = getattr(sregs, name)
        found[name] = SegmentReg(segment.base, segment.limit, segment.selector)
    for name in X86_TABLES:
        table = getattr(sregs, name)
        found[name] = SystemTableReg(table.base, table.limit)
    return found
