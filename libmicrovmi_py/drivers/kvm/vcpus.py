# SPDX-License-Identifier: Apache-2.0
"""Registers between KVM's structures and ours."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from libmicrovmi_py.arch.x86 import msrs
from libmicrovmi_py.arch.x86.registers import CONTROL, GENERAL, SEGMENTS, TABLES
from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.kvm.library import Domain

WRITABLE = frozenset(GENERAL)
"""What KVMi writes."""

_SPECIAL = (*CONTROL, "cr8", "efer", "apic_base")
"""What ``struct kvm_sregs`` has besides segments and tables."""

_PARTS = ("base", "limit", "selector")
_ATTRIBUTES = {"type": 0, "s": 4, "dpl": 5, "present": 7, "avl": 8, "l": 9, "db": 10, "g": 11}
"""Members of ``struct kvm_segment`` that are attributes, and their lowest bits."""

_PRESENT = 1 << _ATTRIBUTES["present"]

_NOT_ASKED = {*_SPECIAL, "fs_base", "gs_base"}
_MSRS = {name: index for name, index in msrs.INDEXES.items() if name not in _NOT_ASKED}
_EVERYWHERE = {name: index for name, index in _MSRS.items() if name != "tsc_aux"}
"""Those that are asked for, and those of them that every processor has."""


def read(domain: Domain, vcpu: int) -> dict[str, int]:
    """The registers of one vCPU: all that KVMi tells, which leaves out the debug registers and XCR0."""
    new = domain.ffi.new
    regs, sregs, mode = new("struct kvm_regs *"), new("struct kvm_sregs *"), new("unsigned int *")
    asked, entries = _MSRS, _entries(domain, _MSRS)
    error = domain.attempt("kvmi_get_registers", vcpu, regs, sregs, entries, mode)
    if error == errno.EINVAL:  # one of them the processor does not have
        asked, entries = _EVERYWHERE, _entries(domain, _EVERYWHERE)
        error = domain.attempt("kvmi_get_registers", vcpu, regs, sregs, entries, mode)
    if error:
        raise domain.failure(error, "kvmi_get_registers")
    values = {name: int(getattr(regs, name)) for name in GENERAL}
    values.update((name, int(getattr(sregs, name))) for name in _SPECIAL)
    values.update((name, int(entries.entries[index].data)) for index, name in enumerate(asked))
    return {**values, **_descriptors(sregs)}


def write(domain: Domain, vcpu: int, values: Mapping[str, int]) -> None:
    """Hand all general registers to KVM, which loads them when the vCPU goes on."""
    regs = domain.ffi.new("struct kvm_regs *", {name: values[name] for name in GENERAL})
    domain.call("kvmi_set_registers", vcpu, regs)


def _entries(domain: Domain, asked: Mapping[str, int]) -> Any:
    indexes = [{"index": index} for index in asked.values()]
    return domain.ffi.new("struct kvm_msrs *", {"nmsrs": len(indexes), "entries": indexes})


def _descriptors(sregs: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in SEGMENTS:
        segment = getattr(sregs, name)
        found.update((f"{name}_{part}", int(getattr(segment, part))) for part in _PARTS)
        found[f"{name}_attributes"] = _attributes(segment)
    for name in TABLES:
        table = getattr(sregs, name)
        found[f"{name}_base"], found[f"{name}_limit"] = int(table.base), int(table.limit)
    return found


def _attributes(segment: Any) -> int:
    bits = sum(int(getattr(segment, name)) << lowest for name, lowest in _ATTRIBUTES.items()) & 0xFFF
    return bits & ~_PRESENT if segment.unusable else bits
