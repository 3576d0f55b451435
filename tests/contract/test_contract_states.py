# SPDX-License-Identifier: Apache-2.0
"""States of vCPUs: what is known, in C as in Python; what is written is read back, what cannot be is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ctypes import byref, c_size_t, sizeof
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from contract.calls import NOT_SUPPORTED, error_line, refuses
from contract.known import Known

from libmicrovmi_py import Microvmi, NotSupportedError
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.arch.state import NAMES, VcpuState, check_values, registers_of
from libmicrovmi_py.arch.x86.registers import DEBUG, GENERAL, SEGMENTS, TABLES
from libmicrovmi_py.drivers.base import SupportsStateWrites, SupportsVcpuStates
from libmicrovmi_py.drivers.control import SupportsPause
from libmicrovmi_py.model import Architecture

OLD = {"virtualbox": {"cr2"}}
"""What a driver shows the old value of until the vCPU has run."""

HARMLESS = {"cr0": 2, "cr4": 0x80, "efer": 1, "rflags": 1}
"""The bit that is changed of what decides how others are told; of all others it is bit 1."""


def test_every_state_has_names_and_values_of_its_architecture(machine: Microvmi, known: Known) -> None:
    if not known.can(SupportsVcpuStates):
        refuses(machine.driver.name, machine.read_state, machine.read_states)
        return
    if isinstance(machine.driver, SupportsPause):
        machine.pause()
    states = machine.read_states()
    assert len(states) == machine.vcpu_count()
    for vcpu, state in enumerate(states):
        assert state.architecture is machine.driver.architecture
        check_values(state.architecture, state)
        if state:
            assert machine.read_state(vcpu) == state
            assert machine.read_registers(vcpu) == registers_of(state)
        else:
            with pytest.raises(NotSupportedError, match=f"nothing is known of the registers of vCPU {vcpu}"):
                machine.read_state(vcpu)
    assert states[0]


def test_c_has_the_same_states(lib: Any, context: int, known: Known, stubs: ModuleType) -> None:
    one = stubs.microvmi_vcpu_state(struct_size=sizeof(stubs.microvmi_vcpu_state))
    states, count = (stubs.microvmi_vcpu_state * 8)(one), c_size_t(77)
    if not known.can(SupportsVcpuStates):
        calls: list[Callable[[], bool]] = [
            lambda: lib.microvmi_read_vcpu_states(context, states, 8, byref(count)),
            lambda: lib.microvmi_read_vcpu_state(context, 0, byref(one)),
        ]
        for call in calls:
            assert not call()
            assert lib.microvmi_last_error_code() == NOT_SUPPORTED
            error_line(lib)
        return
    lib.microvmi_pause(context)
    assert lib.microvmi_read_vcpu_states(context, states, 8, byref(count)), lib.microvmi_last_error()
    assert 1 <= count.value <= 8
    assert [item.vcpu for item in states[: count.value]] == list(range(count.value))
    assert lib.microvmi_read_vcpu_state(context, 0, byref(one)), lib.microvmi_last_error()
    assert bytes(one) == bytes(states[0])
    names = NAMES[Architecture(one.architecture)]
    known_ones = [number for number in range(256) if one.known[number // 64] >> number % 64 & 1]
    assert known_ones
    assert max(known_ones) < len(names)
    assert all(one.value[number] == 0 for number in range(256) if number not in known_ones)


def test_c_writes_what_is_then_read_back_and_no_other_register(lib: Any, context: int, stubs: ModuleType) -> None:
    abilities = stubs.microvmi_abilities(struct_size=sizeof(stubs.microvmi_abilities))
    assert lib.microvmi_get_abilities(context, byref(abilities)), lib.microvmi_last_error()
    before, after, one = (stubs.microvmi_vcpu_state(struct_size=sizeof(stubs.microvmi_vcpu_state)) for _ in range(3))
    if not abilities.can & stubs.MICROVMI_CAN_WRITE_REGISTERS:
        assert not lib.microvmi_write_vcpu_state(context, 0, byref(one))
        assert lib.microvmi_last_error_code() == NOT_SUPPORTED
        error_line(lib)
        return
    lib.microvmi_pause(context)
    assert lib.microvmi_read_vcpu_state(context, 0, byref(before)), lib.microvmi_last_error()
    number = NAMES[Architecture(before.architecture)].index("rbx" if before.architecture == Architecture.X86 else "x5")
    one.architecture, one.known[0], one.value[number] = before.architecture, 1 << number, before.value[number] ^ 0xF0
    assert lib.microvmi_write_vcpu_state(context, 0, byref(one)), lib.microvmi_last_error()
    assert lib.microvmi_read_vcpu_state(context, 0, byref(after)), lib.microvmi_last_error()
    assert after.value[number] == one.value[number] == before.value[number] ^ 0xF0
    one.value[number] = after.value[number] = before.value[number]
    assert bytes(after) == bytes(before)
    assert lib.microvmi_write_vcpu_state(context, 0, byref(one)), lib.microvmi_last_error()


def test_every_register_that_can_be_written_is_read_back_and_no_other_changes(machine: Microvmi) -> None:
    driver = machine.driver
    if Ability.WRITE_REGISTERS not in machine.abilities.can:
        refuses(driver.name, lambda: machine.write_state({}))
        return
    assert isinstance(driver, SupportsStateWrites)
    if isinstance(driver, SupportsPause):
        machine.pause()
    before = machine.read_state()
    old = OLD.get(driver.name, set())
    for name in [name for name in before if name in driver.writable_registers and name not in old]:
        changed = before[name] ^ HARMLESS.get(name, 2)
        machine.write_state({name: changed})
        assert machine.read_state() == {**before, name: changed}, name
        machine.write_state({name: before[name]})
    assert machine.read_state() == before


def test_what_cannot_be_written_is_named_and_nothing_is_written(machine: Microvmi) -> None:
    driver = machine.driver
    if not isinstance(driver, SupportsStateWrites) or Ability.WRITE_REGISTERS not in machine.abilities.can:
        return
    if isinstance(driver, SupportsPause):
        machine.pause()
    before = machine.read_state()
    fixed = [name for name in NAMES[driver.architecture] if name not in driver.writable_registers]
    first = next(name for name in before if name in driver.writable_registers)
    if fixed:
        with pytest.raises(NotSupportedError, match=f"does not let one write {', '.join(fixed)}$"):
            machine.write_state(VcpuState(driver.architecture, {first: before[first] ^ 2, **dict.fromkeys(fixed, 0)}))
    assert machine.read_state() == before


# ------------------------------------------------------------------------------------------------- what the docs say

DOCS = Path(__file__).resolve().parents[2] / "docs" / "drivers"
PARTS = ("base", "limit", "selector", "attributes")
GROUPS = {
    "general": GENERAL,
    "debug": DEBUG,
    "segments": [f"{name}_{part}" for name in SEGMENTS for part in PARTS],
    "tables": [f"{name}_{part}" for name in TABLES for part in PARTS[:2]],
}


def told(name: str, row: str, every: Iterable[str]) -> set[str] | None:
    """The registers of a row of a driver's page: names and groups, all but these, or none. ``None`` without a row."""
    page = (DOCS / f"{name}.md").read_text()
    found = re.search(rf"^\| (?:registers )?{row} \| ([^;.|]*)", page, re.MULTILINE)
    if found is None:
        return None
    words = re.findall(r"`(\w+)`", found[1])
    named = {register for word in words for register in GROUPS.get(word, (word,))}
    return {*every} - named if found[1].startswith("all but") else named


def test_the_driver_s_page_says_what_is_not_known_and_not_written(machine: Microvmi, known: Known) -> None:
    driver = machine.driver
    if not isinstance(driver, SupportsStateWrites) or Ability.WRITE_REGISTERS not in machine.abilities.can:
        return
    machine.pause()
    names = NAMES[driver.architecture]
    unknown = {*names} - set(machine.read_state())
    fixed = {name for name in names if name not in driver.writable_registers}
    assert fixed == told(driver.name, "not written", names)
    page = told(driver.name, "not known", names)
    if page is not None:  # else it depends on the machine
        by_the_guest = {*GROUPS["segments"]} if driver.name == "virtualbox" else set()
        assert unknown - by_the_guest == page - by_the_guest
