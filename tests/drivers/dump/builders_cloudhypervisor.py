# SPDX-License-Identifier: Apache-2.0
"""Writes snapshots of Cloud Hypervisor as version 40 and later do: JSON in JSON, KVM's structures as lists of bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drivers.dump.builders import GENERAL

MSRS = {0xC0000081: 0x81, 0xC0000082: 0x82, 0xC0000083: 0x83, 0xC0000084: 0x84, 0xC0000102: 0x102, 0x174: 0x10}
CONTROL = {"cr8": 5, "efer": 0xD01, "apic_base": 0xFEE00900}
_ARM_SYSTEM = {0x603000000013C100: 0x5EED, 0x603000000013C101: 0x5EEE, 0x603000000013C102: 0x5EEF}
"""TTBR0_EL1, TTBR1_EL1, TCR_EL1."""


def regs(values: Mapping[str, Any]) -> bytes:
    """``kvm_regs``."""
    return struct.pack("<18Q", *(values[name] for name in GENERAL))


def sregs(values: Mapping[str, Any]) -> bytes:
    """``kvm_sregs``."""
    made = b""
    for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"):
        base, limit, selector = values[name]
        rights = values["attributes"][name]
        parts = [rights & 15, rights >> 7 & 1, rights >> 5 & 3, rights >> 10 & 1, rights >> 4 & 1]
        parts += [rights >> 9 & 1, rights >> 11 & 1, rights >> 8 & 1, 0, 0]
        made += struct.pack("<QIH10B", base, limit, selector, *parts)
    made += b"".join(struct.pack("<QH6x", *values[name]) for name in ("gdt", "idt"))
    words = [values[name] for name in ("cr0", "cr2", "cr3", "cr4")] + [*CONTROL.values()]
    return made + struct.pack("<7Q", *words) + bytes(32)


def xcrs(value: int) -> bytes:
    """``kvm_xcrs`` with XCR0."""
    return (struct.pack("<2I", 1, 0) + struct.pack("<I4xQ", 0, value)).ljust(392, b"\0")


def x86(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is saved of a vCPU."""
    msrs = [{"index": index, "data": data} for index, data in MSRS.items()]
    state = {"cpuid": [], "msrs": msrs, "regs": [*regs(values)], "sregs": [*sregs(values)], "xcrs": [*xcrs(7)]}
    return {"Kvm": {**state, "mp_state": "Runnable", "tsc_khz": 2000000, "nested_state": None, "hyperv_synic": False}}


def arm(vcpu: int, pstate: int = 0x3C5) -> dict[str, Any]:
    """What is saved of an AArch64 vCPU: x0 to pc, pstate, SP_EL1, ELR_EL1, SPSRs, the floating-point unit."""
    words = [0xA64000000 + 0x1000 * vcpu + index for index in range(33)] + [pstate, 0x51, 0xE1, 0x52, 0, 0, 0, 0]
    system = [[*struct.pack("<2Q", number, value + vcpu)] for number, value in _ARM_SYSTEM.items()]
    return {
        "Kvm": {"mp_state": [0] * 4, "core_regs": [*struct.pack("<41Q", *words).ljust(864, b"\0")], "sys_regs": system}
    }


def tree(children: Mapping[str, Any], state: object = None) -> dict[str, Any]:
    """A snapshot: those below it, and its own state as a text."""
    return {"snapshots": children, "snapshot_data": None if state is None else {"state": text(state)}}


def text(value: object) -> str:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":"))


def state(
    ranges: Sequence[tuple[int, int]], vcpus: Sequence[object], mappings: Sequence[tuple[int, int]] | None = None
) -> str:
    """``state.json`` of a machine with those ranges (address, size) in the file, and those mappings in all."""
    rows = [
        {"slot": slot, "gpa": gpa, "size": size, "zone_id": "mem0", "virtio_mem": False, "file_offset": 0}
        for slot, (gpa, size) in enumerate(ranges if mappings is None else mappings)
    ]
    memory = {
        "memory_ranges": {"data": [{"gpa": gpa, "length": size} for gpa, size in ranges]},
        "guest_ram_mappings": rows,
        **{"start_of_device_area": 1 << 40, "boot_ram": 0, "current_ram": 0, "arch_mem_regions": []},
        **{"hotplug_slots": [], "next_memory_slot": 2, "selected_slot": 0, "next_hotplug_slot": 0},
    }
    cpus = {str(index): tree({}, vcpu) for index, vcpu in enumerate(vcpus)}
    parts = {"cpu-manager": tree(dict(sorted(cpus.items()))), "device-manager": tree({})}
    return text(tree({**parts, "memory-manager": tree({}, memory)}, {"clock": None, "common_cpuid": []}))


def write(folder: Path, state: str, memory: bytes) -> Path:
    """The folder of a snapshot."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "state.json").write_text(state)
    (folder / "memory-ranges").write_bytes(memory)
    return folder
