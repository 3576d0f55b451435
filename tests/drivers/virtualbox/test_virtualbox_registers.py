# SPDX-License-Identifier: Apache-2.0
"""Registers of a simulated VirtualBox machine.

Its register number N holds 0x100 + N, 0x200 + N on the second vCPU; but the limit of the GDT is 0x12F or 0x22F.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.virtualbox.simulator import VIRTUAL, Simulator, simulated
from processors import x86_registers

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.x86.registers import (
    DEBUG,
    GENERAL,
    STATE,
    SYSTEM,
    SegmentReg,
    SystemTableReg,
    X86Registers,
)
from libmicrovmi_py.arch.x86.registers import MSRS as MSR_NAMES
from libmicrovmi_py.drivers.base import SupportsStateWrites
from libmicrovmi_py.errors import InvalidArgumentError, NotSupportedError

LONG_MODE = 0x500
FDP_NAMES = (
    *("rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rsp", "rbp", "rsi", "rdi", "rip", "rflags", "cr0", "cr2", "cr3", "cr4"),
)
"""In the order in which libFDP numbers them."""
MSRS_KNOWN = {*MSR_NAMES} - {"tsc_aux"}
GDT, LDT = 0x125, 0x12F
"""Where registers 37 and 47 of the first vCPU say that the descriptor tables are."""


@pytest.fixture
def vm(library: Path) -> Iterator[Simulator]:
    """A machine of two vCPUs."""
    with simulated(library, {0: 0x10000}, vcpus=2) as one:
        yield one


@pytest.fixture
def paused(vm: Simulator) -> Iterator[Microvmi]:
    with Microvmi.open(vm.uri) as opened:
        opened.pause()
        yield opened


def test_general_and_control_registers_are_told(paused: Microvmi) -> None:
    found = x86_registers(paused)
    assert (found.rsp, found.r15, found.rcx, found.rdx) == (0x7000, 0x15, 0xC0000082, 0x1D)
    assert (found.cr0, found.cr2, found.cr4, found.rflags) == (0x80000011, 0xC2, 0x20, 0x100 + 35)
    assert 0x2000 <= found.rip < 0x2008


def test_descriptor_tables_have_base_and_limit(paused: Microvmi) -> None:
    found = x86_registers(paused)
    assert found.gdt == SystemTableReg(0x125, 0x12F)
    assert found.idt == SystemTableReg(0x127, 0x128)
    assert found.ldt == SegmentReg(0x12F, 0x130, 0x12E)


def test_msrs_are_told_for_each_vcpu(vm: Simulator, paused: Microvmi) -> None:
    numbers = (0x174, 0x175, 0x176, 0xC0000080, 0xC0000081, 0x1B)
    for vcpu in (0, 1):
        for place, number in enumerate(numbers):
            vm.msr(number, vcpu, 0x1000 * (vcpu + 1) + place)
        found = x86_registers(paused, vcpu)
        assert [
            found.sysenter_cs,
            found.sysenter_esp,
            found.sysenter_eip,
            found.msr_efer,
            found.msr_star,
            found.apic_base,
        ] == [0x1000 * (vcpu + 1) + place for place in range(6)]
        assert found.efer == found.msr_efer


def test_the_guest_has_debug_registers_of_its_own(vm: Simulator, paused: Microvmi) -> None:
    for place in range(len(DEBUG)):
        vm.set_register(23 + place, 0x1000 + place)
    assert [paused.read_state()[name] for name in DEBUG] == [0x1000 + place for place in range(6)]


def test_what_is_known_of_which_vcpu(vm: Simulator, paused: Microvmi) -> None:
    for vcpu in (0, 1):
        vm.msr(0xC0000080, vcpu, LONG_MODE)
    first, second = paused.read_states()
    assert {*STATE} - set(first) >= {"cr8", "xcr0", "tsc_aux", "ldt_attributes"}
    assert not {"cr8", "xcr0", "tsc_aux", "ldt_attributes"} & set(first)
    assert {*FDP_NAMES, *DEBUG, *MSRS_KNOWN} <= set(first)
    assert set(second) & {*FDP_NAMES} == {"rflags"}
    assert {*DEBUG, *MSRS_KNOWN, "fs_base", "gs_base", "gdt_base", "ldt_selector"} <= set(second)


def test_other_vcpus_tell_nothing_of_the_first(paused: Microvmi) -> None:
    found = x86_registers(paused, 1)
    assert (found.rip, found.rsp, found.rcx, found.cr3) == (0, 0, 0, 0)
    assert (found.rflags, found.gdt, found.cs.selector) == (0x200 + 35, SystemTableReg(0x225, 0x22F), 0x200 + 29)


def descriptor(base: int, limit: int, *, granular: bool = False, system: bool = False) -> bytes:
    low = limit & 0xFFFF | (base & 0xFFFFFF) << 16 | (limit >> 16) << 48 | (base >> 24 & 0xFF) << 56
    low |= 0 if system else 1 << 44
    return (low | int(granular) << 55).to_bytes(8, "little")


CS, DS, TR = 0x11D, 0x11E, 0x131
"""The selectors; all but CS and DS, which name the local table, are of the global one."""


def test_segments_are_those_of_the_descriptors_in_memory(paused: Microvmi) -> None:
    ss = 0x122
    paused.write_physical(GDT + (ss & ~7), descriptor(0x87654321, 0x12345, granular=True))
    assert x86_registers(paused).ss == SegmentReg(0x87654321, 0x12345FFF, ss)


def test_segments_of_the_local_table_are_taken_from_it(paused: Microvmi) -> None:
    paused.write_physical(LDT + (CS & ~7), descriptor(0x1000, 0xFFFFF))
    assert x86_registers(paused).cs == SegmentReg(0x1000, 0xFFFFF, CS)


def test_a_descriptor_outside_its_table_tells_nothing(paused: Microvmi) -> None:
    assert x86_registers(paused).tr == SegmentReg(0, 0, TR)
    state = paused.read_state()
    assert {name for name in state if name.startswith("tr_")} == {"tr_selector"}


def test_attributes_are_those_of_the_descriptor(paused: Microvmi) -> None:
    ss = 0x122
    content = int.from_bytes(descriptor(0, 0xFFFFF), "little") | 0x83 << 40 | 0xC << 52
    paused.write_physical(GDT + (ss & ~7), content.to_bytes(8, "little"))
    assert paused.read_state()["ss_attributes"] == 0xC93


def test_a_null_selector_is_a_segment_that_cannot_be_used(vm: Simulator, paused: Microvmi) -> None:
    vm.set_register(SELECTORS["gs"], 3)
    state = paused.read_state()
    found = [state[f"gs_{part}"] for part in ("base", "limit", "selector", "attributes")]
    assert found == [0, 0, 3, 0]


def test_in_long_mode_fs_and_gs_have_the_bases_of_the_msrs_and_data_none(vm: Simulator, paused: Microvmi) -> None:
    vm.msr(0xC0000080, 0, LONG_MODE)
    vm.msr(0xC0000100, 0, 0x7F0000001000)
    vm.msr(0xC0000101, 0, VIRTUAL)
    ss = 0x122
    paused.write_physical(GDT + (ss & ~7), descriptor(0x87654321, 0xFFFFF, granular=True))
    found = x86_registers(paused)
    assert (found.fs.base, found.gs.base) == (0x7F0000001000, VIRTUAL)
    assert found.ss == SegmentReg(0, 0xFFFFFFFF, ss)


def test_in_real_mode_a_segment_is_its_selector(vm: Simulator, paused: Microvmi) -> None:
    wanted = x86_registers(paused)
    wanted.cr0 = 0
    paused.write_registers(wanted)
    assert x86_registers(paused).ds == SegmentReg(DS << 4, 0xFFFF, DS)


def test_registers_that_are_written_are_read_again(paused: Microvmi) -> None:
    before = x86_registers(paused)
    wanted = x86_registers(paused)
    names = [name for name in (*GENERAL, *SYSTEM) if name not in ("cr0", "efer", "cr2", "cr3", "msr_efer")]
    for place, name in enumerate(names):
        setattr(wanted, name, 0x123400 + place)
    wanted.efer = 0x800
    paused.write_registers(wanted)
    found = x86_registers(paused)
    assert [getattr(found, name) for name in names] == [0x123400 + place for place in range(len(names))]
    assert (found.cr3, found.msr_efer, found.gdt) == (before.cr3, 0x800, before.gdt)


def test_each_register_that_can_be_written_is_alone(vm: Simulator, paused: Microvmi) -> None:
    paused.write_state({"cr0": 0x80000011, "efer": LONG_MODE})
    driver = paused.driver
    assert isinstance(driver, SupportsStateWrites)
    shown = {*FDP_NAMES, *MSRS_KNOWN} - {"cr2"}  # which has its old value until the vCPU has run
    for place, name in enumerate(sorted(shown - {"cr0", "efer", "rflags"})):
        before = paused.read_state()
        paused.write_state({name: 0x7000 + place})
        assert paused.read_state() == {**before, name: 0x7000 + place}
        assert name in driver.writable_registers
    with pytest.raises(NotSupportedError, match="does not let one write dr7, cs_base"):
        paused.write_state({"rax": 1, "dr7": 1, "cs_base": 0})


def test_cr3_stays_when_cr2_is_written(paused: Microvmi) -> None:
    wanted = x86_registers(paused)
    wanted.cr2 += 0x1000
    paused.write_registers(wanted)
    assert x86_registers(paused).cr3 == wanted.cr3


def test_other_vcpus_and_running_machines_are_not_written(paused: Microvmi) -> None:
    registers = x86_registers(paused)
    with pytest.raises(NotSupportedError, match="first vCPU only"):
        paused.write_registers(registers, vcpu=1)
    paused.resume()
    with pytest.raises(NotSupportedError, match="pause it"):
        paused.write_registers(registers)


@pytest.mark.parametrize("vcpu", [-1, 2, 0xFFFF])
def test_there_is_no_other_vcpu(paused: Microvmi, vcpu: int) -> None:
    with pytest.raises(InvalidArgumentError, match="no vCPU"):
        x86_registers(paused, vcpu)


# ---------------------------------------------------------------------------------------------------- all of them

NUMBERS = dict(zip(FDP_NAMES, [*range(17), 35, *range(41, 45)], strict=True))
"""libFDP's numbers of general and control registers."""

SELECTORS = {"cs": 29, "ds": 30, "es": 31, "fs": 32, "gs": 33, "ss": 34, "ldt": 46, "tr": 49}
MSRS = {
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
    "msr_efer": 0xC0000080,
    "msr_star": 0xC0000081,
    "msr_lstar": 0xC0000082,
    "apic_base": 0x1B,
}
GDT_BASE, GDT_LIMIT, IDT_BASE, IDT_LIMIT, LDT_BASE, LDT_LIMIT = 37, 38, 39, 40, 47, 48


def test_no_register_is_told_for_another(vm: Simulator, paused: Microvmi) -> None:
    expected = X86Registers(cr2=0xC2)
    for place, name in enumerate(name for name in FDP_NAMES if name not in ("rflags", "cr0", "cr2")):
        setattr(expected, name, 0x8123456789AB0000 + place)
    expected.rflags, expected.cr0 = 0x246, 0x80050033
    for name, number in NUMBERS.items():
        if name != "cr2":
            vm.set_register(number, getattr(expected, name))
    for place, (name, number) in enumerate(MSRS.items()):
        value = 0x1123456789AB0000 + place if name != "msr_efer" else 0x801
        setattr(expected, name, value)
        vm.msr(number, 0, value)
    expected.efer = expected.msr_efer
    last = 8 * len(SELECTORS) + 7  # the GDT ends with the last descriptor
    expected.gdt, expected.idt = SystemTableReg(0x4000, last), SystemTableReg(0x4800, 0xFFE)
    for number, value in ((GDT_BASE, 0x4000), (GDT_LIMIT, last), (IDT_BASE, 0x4800), (IDT_LIMIT, 0xFFE)):
        vm.set_register(number, value)
    for place, (name, number) in enumerate(SELECTORS.items()):
        segment = SegmentReg(0x11110000 * (place + 1), 0x1000 + place, 8 * (place + 1))
        setattr(expected, name, segment)
        vm.set_register(number, segment.selector)
        paused.write_physical(0x4000 + segment.selector, descriptor(segment.base, segment.limit))
    vm.set_register(LDT_BASE, expected.ldt.base)
    vm.set_register(LDT_LIMIT, expected.ldt.limit)
    found = x86_registers(paused)
    different = [field for field in X86Registers.__slots__ if getattr(found, field) != getattr(expected, field)]
    assert different == []


def test_no_register_is_written_for_another(vm: Simulator, paused: Microvmi) -> None:
    wanted = x86_registers(paused)
    names = [name for name in FDP_NAMES if name != "cr2"]
    for place, name in enumerate(names):
        setattr(wanted, name, 0x8123456789AB0001 + 2 * place)
    for place, name in enumerate(MSRS):
        setattr(wanted, name, 0x1123456789AB0000 + place)
    paused.write_registers(wanted)
    assert {name: vm.register(NUMBERS[name]) for name in names} == {name: getattr(wanted, name) for name in names}
    assert {name: vm.msr(number) for name, number in MSRS.items()} == {name: getattr(wanted, name) for name in MSRS}


def test_limits_and_selectors_have_the_width_that_the_processor_has(vm: Simulator, paused: Microvmi) -> None:
    garbage = 0x7777777700000000
    for number, value in ((GDT_LIMIT, 0x7F), (IDT_LIMIT, 0x8FF), (LDT_LIMIT, 0xFFFFF), (SELECTORS["cs"], 0x1B)):
        vm.set_register(number, garbage | value)
    found = x86_registers(paused)
    assert (found.gdt.limit, found.idt.limit, found.ldt.limit, found.cs.selector) == (0x7F, 0x8FF, 0xFFFFF, 0x1B)
