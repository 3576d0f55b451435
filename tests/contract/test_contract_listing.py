# SPDX-License-Identifier: Apache-2.0
"""Machines are listed with a URI that opens them and abilities that they have, and listing changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ctypes import POINTER, byref, c_size_t, c_uint8, cast, sizeof
from types import ModuleType
from typing import Any

import pytest
from contract.calls import INVALID_ARGUMENT, error_line
from contract.known import Known
from contract.target import Target
from contract.truth import Truth

from libmicrovmi_py import ListedMachine, Microvmi, MicrovmiError
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import shortened
from libmicrovmi_py.machine.listing import list_vms
from libmicrovmi_py.params import Parameters

LIMIT = 5.0
"""Seconds: one that all waits together may take, and a machine that is busy."""

TRIES = 10
"""On a busy host a monitor may not answer in time."""

OPEN_ONLY = Ability.MAP | Ability.EVENTS | Ability.PAGE_ACCESS
"""What only a machine that is open can tell."""


def this(driver: type[Driver], target: Target, known: Known) -> ListedMachine | None:
    """The target as its driver lists it; ``None`` for a driver that lists no such machine."""
    name = Parameters.from_uri(target.uri).vm_name
    for _ in range(TRIES):
        found = next((machine for machine in list_vms(driver.name) if name and machine.name == name), None)
        if found is None or "in time" not in found.reason:
            break
    return found


def test_every_driver_lists_in_time_and_whole_lines(driver: type[Driver], target: Target) -> None:
    before = time.monotonic()
    found = list_vms(driver.name)
    assert time.monotonic() - before < LIMIT
    for machine in found:
        assert (machine.driver, machine.driver_type) == (driver.name, driver.type)
        assert machine.uri or machine.reason
        assert not machine.uri or Parameters.from_uri(machine.uri).driver == driver.name
        assert "\n" not in machine.name + machine.reason


def test_a_uri_opens_that_machine_or_there_is_a_reason(
    driver: type[Driver], target: Target, known: Known, truth: Truth
) -> None:
    machine = this(driver, target, known)
    if machine is None:
        return
    if not machine.abilities:
        with pytest.raises(MicrovmiError) as caught:
            Microvmi.open(machine.uri)
        assert machine.reason == str(caught.value)
        return
    with Microvmi.open(machine.uri) as opened:
        assert opened.max_addr == known.max_addr
        start, _ = truth.ranges[0]
        assert opened.read_physical(start, 64) == target.pieces[start][:64]
        assert machine.abilities == opened.abilities.can & ~OPEN_ONLY
        assert machine.vcpus in (0, opened.vcpu_count())


def test_listing_leaves_a_machine_as_it_is(driver: type[Driver], machine: Microvmi) -> None:
    before = machine.abilities, machine.memory_map()
    for _ in range(3):
        list_vms(driver.name)
    assert (machine.abilities, machine.memory_map()) == before


def structs(stubs: ModuleType, count: int, size: int) -> tuple[Any, Any]:
    """Room for so many, each of that size; and a pointer to the first, which alone says how large they are."""
    room = (c_uint8 * (size * count))(*[0xA5] * (size * count))
    first = cast(room, POINTER(stubs.microvmi_machine))
    first[0].struct_size = size
    return room, first


def told(stubs: ModuleType, room: Any, size: int, count: int) -> Iterator[Any]:
    for index in range(count):
        yield stubs.microvmi_machine.from_buffer(room, index * size)


def test_c_and_python_list_the_same(lib: Any, driver: type[Driver], target: Target, stubs: ModuleType) -> None:
    for _ in range(TRIES):
        rows, expected = in_c(lib, driver, stubs), by_key(list_vms(driver.name))
        known = [(row, expected[key]) for row in rows if (key := (row.process_id, row.name.decode())) in expected]
        if all(row.reason.decode() == shortened(machine.reason, 255) for row, machine in known):
            break  # else a monitor answered one of the two only
    for row, machine in known:
        assert row.struct_size == sizeof(stubs.microvmi_machine)
        assert (row.driver.decode(), row.uri.decode(), row.uuid.decode()) == (driver.name, machine.uri, machine.uuid)
        assert (row.driver_type, row.memory, row.vcpus) == (driver.type, machine.memory, machine.vcpus)
        assert (row.abilities, row.state) == (machine.abilities, machine.state)
        assert row.user_id == (0xFFFFFFFF if machine.user_id is None else machine.user_id)
        assert row.reason.decode() == shortened(machine.reason, 255)


def in_c(lib: Any, driver: type[Driver], stubs: ModuleType) -> list[Any]:
    """What C is told, by a program whose struct is larger."""
    size, count = sizeof(stubs.microvmi_machine) + 16, c_size_t(77)
    room, first = structs(stubs, 64, size)
    assert lib.microvmi_list_vms(driver.name.encode(), first, 64, byref(count)), lib.microvmi_last_error()
    return list(told(stubs, room, size, min(count.value, 64)))


def by_key(machines: list[ListedMachine]) -> dict[tuple[int, str], ListedMachine]:
    return {(machine.process_id, machine.name): machine for machine in machines}


def test_a_list_that_is_too_short_says_how_many_there_are(lib: Any, driver: type[Driver], target: Target) -> None:
    count = c_size_t()
    assert lib.microvmi_list_vms(driver.name.encode(), None, 0, byref(count)), lib.microvmi_last_error()
    assert count.value < 1000


def test_what_is_no_list_is_refused(lib: Any, driver: type[Driver], target: Target, stubs: ModuleType) -> None:
    small, count = stubs.microvmi_machine(struct_size=sizeof(stubs.microvmi_machine) - 1), c_size_t(77)
    name = driver.name.encode()
    for arguments in ((name, byref(small), 1, byref(count)), (name, None, 1, byref(count)), (name, None, 0, None)):
        assert not lib.microvmi_list_vms(*arguments)
        assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
        error_line(lib)
    assert count.value == 0
