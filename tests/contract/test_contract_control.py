# SPDX-License-Identifier: Apache-2.0
"""Run state, vCPUs and registers: what a driver can it does, the rest it refuses in a line."""

from __future__ import annotations

import contextlib
from ctypes import byref, c_uint8, c_uint16
from types import ModuleType
from typing import Any

import pytest
from contract.calls import INVALID_ARGUMENT, NOT_SUPPORTED, OK, answer_of, check, error_line, read, refuses, runs
from contract.known import Known
from contract.target import Target
from contract.truth import PAGE, Truth

from libmicrovmi_py import Microvmi
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.arch.x86.registers import X86Registers
from libmicrovmi_py.drivers.base import SupportsVcpus, SupportsVcpuStates
from libmicrovmi_py.drivers.control import RUNS, STOPPED, SupportsPause
from libmicrovmi_py.errors import InvalidArgumentError, MicrovmiError
from libmicrovmi_py.model import Architecture

# ---------------------------------------------------------------------------------------------------------- run state


def succeeds(lib: Any, known: Known, *results: bool) -> bool:
    """Whether the driver can; ``results`` are true then, and false with a line otherwise."""
    can = known.can(SupportsPause)
    assert set(results) == {can}, lib.microvmi_last_error()
    assert lib.microvmi_last_error_code() == (OK if can else NOT_SUPPORTED)
    if not can:
        error_line(lib)
    return can


def test_pausing_and_resuming_twice_is_fine(lib: Any, context: int, known: Known) -> None:
    succeeds(lib, known, lib.microvmi_pause(context), lib.microvmi_pause(context))
    succeeds(lib, known, lib.microvmi_resume(context), lib.microvmi_resume(context))
    succeeds(lib, known, lib.microvmi_pause(context), lib.microvmi_resume(context))


def test_memory_of_a_paused_machine_is_the_same(lib: Any, context: int, truth: Truth) -> None:
    lib.microvmi_pause(context)
    for size in (8, 8, PAGE, PAGE + 16):
        for edge in truth.edges():
            address = max(edge - 4, 0)
            check(read(lib, context, address, size), answer_of(truth.valid(address, size), size), f"{address:#x}")
    lib.microvmi_resume(context)


def test_a_write_to_a_paused_machine_is_seen(lib: Any, target: Target, context: int, truth: Truth) -> None:
    if not target.writable:
        return
    address = truth.ranges[0][0] + 8
    lib.microvmi_pause(context)
    before = read(lib, context, address, 8).content
    for data in (b"a change", before):
        assert lib.microvmi_write_physical(context, address, (c_uint8 * 8)(*data), 8), lib.microvmi_last_error()
        assert read(lib, context, address, 8).content == data
    lib.microvmi_resume(context)
    assert read(lib, context, address, 8).content == truth.valid(address, 8)


def test_a_machine_destroyed_while_paused_runs_on(lib: Any, target: Target, known: Known) -> None:
    context = lib.microvmi_open(target.uri.encode(), None)
    paused = lib.microvmi_pause(context)
    lib.microvmi_destroy(context)
    assert lib.microvmi_last_error_code() == OK, lib.microvmi_last_error()
    assert not paused or known.never_runs or runs(target)


def test_so_does_one_that_python_closes(target: Target, known: Known) -> None:
    with Microvmi.open(target.uri) as machine:
        if not isinstance(machine.driver, SupportsPause):
            refuses(machine.driver.name, machine.pause, machine.resume)
            return
        machine.pause()
        assert machine.driver.run_state() == STOPPED
    assert known.never_runs or runs(target)


def test_a_driver_stops_and_runs_what_stands_or_runs_already(machine: Microvmi, known: Known) -> None:
    driver = machine.driver
    if not isinstance(driver, SupportsPause) or known.never_runs:
        return
    assert driver.run_state() == RUNS
    for whoever in (False, True):
        for _ in range(2):
            driver.stop()
            assert driver.run_state() == STOPPED
        for _ in range(2):
            driver.run(whoever=whoever)
            assert driver.run_state() == RUNS


def test_a_machine_that_another_paused_stays_paused(lib: Any, target: Target, machine: Microvmi) -> None:
    driver = machine.driver
    if not isinstance(driver, SupportsPause):
        return
    second = lib.microvmi_open(target.uri.encode(), None)
    driver.stop()
    if second and lib.microvmi_pause(second):
        lib.microvmi_destroy(second)
        assert driver.run_state() == STOPPED, "another context let it run that had not paused it"
    driver.run(whoever=True)


def test_a_machine_that_somebody_let_run_is_not_resumed_when_it_is_stopped_again(
    target: Target, machine: Microvmi, known: Known
) -> None:
    other = machine.driver
    if not isinstance(other, SupportsPause) or known.never_runs:
        return
    try:
        opened = Microvmi.open(target.uri)
    except MicrovmiError:
        return  # one opening at a time
    with opened:
        opened.pause()
        other.run(whoever=True)
        opened.memory_map()
        other.stop()
    assert other.run_state() == STOPPED
    other.run(whoever=True)


def test_releasing_everything_lets_machines_run_that_stay_open(lib: Any, target: Target, known: Known) -> None:
    context = lib.microvmi_open(target.uri.encode(), None)
    paused = lib.microvmi_pause(context)
    assert lib.microvmi_release_all(5000), lib.microvmi_last_error()
    assert lib.microvmi_last_error_code() == OK
    with contextlib.suppress(MicrovmiError):  # one opening at a time
        assert not paused or known.never_runs or runs(target)
    assert lib.microvmi_pause(context) is paused
    lib.microvmi_destroy(context)
    assert not paused or known.never_runs or runs(target)


# ---------------------------------------------------------------------------------------------------- vCPUs, registers


def test_vcpus_are_counted(lib: Any, context: int, known: Known) -> None:
    count = c_uint16(77)
    assert lib.microvmi_get_vcpu_count(context, byref(count)) is known.can(SupportsVcpus)
    if known.can(SupportsVcpus):
        assert count.value >= 1
    else:
        assert (count.value, lib.microvmi_last_error_code()) == (77, NOT_SUPPORTED)
        error_line(lib)


def test_each_vcpu_has_registers_and_others_are_an_error(
    lib: Any, context: int, known: Known, stubs: ModuleType
) -> None:
    registers, count = stubs.Registers(), c_uint16(77)
    if not known.can(SupportsVcpuStates):
        assert not lib.microvmi_read_registers(context, 0, byref(registers))
        assert lib.microvmi_last_error_code() == NOT_SUPPORTED
        error_line(lib)
        return
    assert lib.microvmi_get_vcpu_count(context, byref(count))
    for vcpu in range(count.value):
        assert lib.microvmi_read_registers(context, vcpu, byref(registers)), lib.microvmi_last_error()
        assert registers.tag in list(Architecture)
    before = bytes(registers)
    for vcpu in (count.value, 65535):
        assert not lib.microvmi_read_registers(context, vcpu, byref(registers))
        assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
        error_line(lib)
    assert bytes(registers) == before


def test_python_counts_and_reads_the_same_way(machine: Microvmi) -> None:
    driver = machine.driver
    if Ability.VCPU_COUNT not in machine.abilities.can:
        refuses(driver.name, machine.vcpu_count)
    if Ability.READ_REGISTERS not in machine.abilities.can:
        refuses(driver.name, machine.read_registers)
        return
    for vcpu in range(machine.vcpu_count()):
        assert machine.read_registers(vcpu).architecture is driver.architecture
    for vcpu in (machine.vcpu_count(), 65535, -1):
        with pytest.raises(InvalidArgumentError):
            machine.read_registers(vcpu)


def test_registers_that_are_written_can_be_read(machine: Microvmi) -> None:
    if Ability.WRITE_REGISTERS not in machine.abilities.can:
        refuses(machine.driver.name, lambda: machine.write_registers(X86Registers()))
        return
    first = machine.read_registers(0).__match_args__[0]
    if isinstance(machine.driver, SupportsPause):
        machine.pause()
    before, changed = machine.read_registers(0), machine.read_registers(0)
    value = getattr(before, first)
    setattr(changed, first, value ^ 0x5A5A)
    machine.write_registers(changed, 0)
    assert getattr(machine.read_registers(0), first) == value ^ 0x5A5A
    setattr(changed, first, value)
    machine.write_registers(changed, 0)
    assert machine.read_registers(0) == before
    with pytest.raises(InvalidArgumentError):
        machine.write_registers(before, 65535)
