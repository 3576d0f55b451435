# SPDX-License-Identifier: Apache-2.0
"""Registers, put together from what libFDP tells."""

from __future__ import annotations

from collections.abc import Mapping

from libmicrovmi_py.arch.state import VcpuState, changes
from libmicrovmi_py.arch.x86 import descriptors, msrs
from libmicrovmi_py.arch.x86.registers import CR0_PE, EFER_LMA, RFLAGS_VM
from libmicrovmi_py.drivers.virtualbox import abi
from libmicrovmi_py.drivers.virtualbox.fdp import Machine
from libmicrovmi_py.model import Architecture

_MSRS = {name: number for name, number in msrs.INDEXES.items() if name not in ("fs_base", "gs_base", "tsc_aux")}
"""Those that every machine has: of others VirtualBox tells 0."""

WRITABLE = frozenset((*abi.REGISTERS, "rflags", *_MSRS))
"""What FDP writes."""


def read(machine: Machine, vcpu: int) -> VcpuState:
    """What is known of a vCPU: of others than the first libFDP does not tell the registers of ``abi.REGISTERS``.

    It tells selectors only; bases, limits and attributes are those of the descriptors in the guest's tables, of FS and
    GS in long mode the bases are those of the MSRs.
    """
    numbers = {**(abi.REGISTERS if vcpu == 0 else {}), "rflags": abi.RFLAGS, **abi.DEBUG}
    values = {name: machine.register(vcpu, number) for name, number in numbers.items()}
    values |= {name: machine.msr(vcpu, number) for name, number in _MSRS.items()}
    for name, (base, limit) in abi.TABLES.items():
        values[f"{name}_base"] = machine.register(vcpu, base)
        values[f"{name}_limit"] = machine.register(vcpu, limit) & 0xFFFF
    _read_segments(machine, vcpu, values)
    return VcpuState(Architecture.X86, values)


def _read_segments(machine: Machine, vcpu: int, values: dict[str, int]) -> None:
    selectors = {name: machine.register(vcpu, number) & 0xFFFF for name, number in abi.SELECTORS.items()}
    values["ldt_base"] = machine.register(vcpu, abi.LDT_BASE)
    values["ldt_limit"] = machine.register(vcpu, abi.LDT_LIMIT) & 0xFFFFFFFF
    values["ldt_selector"] = selectors.pop("ldt")
    for name, selector in selectors.items():
        values[f"{name}_selector"] = selector
        for part, value in _segment(machine, vcpu, values, selector, system=name == "tr").items():
            values[f"{name}_{part}"] = value
    if values["efer"] & EFER_LMA:
        values["fs_base"] = machine.msr(vcpu, msrs.INDEXES["fs_base"])
        values["gs_base"] = machine.msr(vcpu, msrs.INDEXES["gs_base"])


def _segment(machine: Machine, vcpu: int, values: Mapping[str, int], selector: int, *, system: bool) -> dict[str, int]:
    """What the guest's tables have of a segment, as far as it is known by which mode the vCPU is in; else nothing."""
    long_mode = bool(values["efer"] & EFER_LMA)
    protected = long_mode or bool(values.get("cr0", 0) & CR0_PE)
    if not system and vcpu == 0 and (not protected or values["rflags"] & RFLAGS_VM):
        return descriptors.real_mode_segment(selector)
    size = descriptors.LONG_SIZE if system and long_mode else descriptors.SIZE
    if protected and descriptors.is_null(selector):
        return descriptors.UNUSABLE
    address = descriptors.descriptor_address(values, selector, size) if protected else None
    found = machine.virtual(vcpu, address, size) if address is not None else b""
    return descriptors.decode_segment(found, long_mode=long_mode) if found else {}


def write(machine: Machine, values: Mapping[str, int]) -> None:
    """Write registers of ``WRITABLE`` of the first vCPU.

    CR3 follows CR2, because a VirtualBox with FDP shows what was written to CR2 as CR3 from then on.
    """
    cr3 = machine.register(0, abi.REGISTERS["cr3"]) if "cr2" in values and "cr3" not in values else None
    for name, number in {**abi.REGISTERS, "rflags": abi.RFLAGS}.items():
        value = cr3 if name == "cr3" and cr3 is not None else values.get(name)
        if value is not None:
            machine.order("FDP_WriteRegister", 0, number, value)
    for name, number in _MSRS.items():
        if name in values:
            machine.order("FDP_WriteMsr", 0, number, values[name])


def become(machine: Machine, wanted: Mapping[str, int]) -> None:
    """Write what is different in ``wanted``, the values of frozen registers, as far as FDP writes it."""
    different = changes(wanted, read(machine, 0))
    write(machine, {name: value for name, value in different.items() if name in WRITABLE})
