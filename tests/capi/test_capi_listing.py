# SPDX-License-Identifier: Apache-2.0
"""``microvmi_list_vms``: structs of any size, errors, and a driver that is NULL."""

from __future__ import annotations

from ctypes import byref, c_size_t, sizeof
from types import ModuleType
from typing import Any

import pytest

from libmicrovmi_py import MachineState
from libmicrovmi_py.abilities import Ability

OPEN_ONLY = Ability.MAP | Ability.PAGE_ACCESS | Ability.EVENTS

INVALID_ARGUMENT, DRIVER_UNAVAILABLE = 1, 4


def new(stubs: ModuleType) -> Any:
    return stubs.microvmi_machine(struct_size=sizeof(stubs.microvmi_machine))


def test_the_numbers_of_states_are_those_of_the_header(stubs: ModuleType) -> None:
    for state in MachineState:
        assert getattr(stubs, f"MICROVMI_STATE_{state.name}") == state


def test_a_machine_is_filled_and_can_be_opened(lib: Any, stubs: ModuleType) -> None:
    machine, count = new(stubs), c_size_t()
    assert lib.microvmi_list_vms(b"fake", byref(machine), 1, byref(count)), lib.microvmi_last_error()
    assert (count.value, machine.driver, machine.memory, machine.vcpus) == (1, b"fake", 1 << 20, 1)
    assert (machine.user_id, machine.process_id, machine.reason, machine.uuid) == (0xFFFFFFFF, 0, b"", b"")
    vm = lib.microvmi_open(machine.uri, None)
    assert vm, lib.microvmi_last_error()
    abilities = stubs.microvmi_abilities(struct_size=sizeof(stubs.microvmi_abilities))
    assert lib.microvmi_get_abilities(vm, byref(abilities))
    assert machine.abilities == abilities.can & ~OPEN_ONLY
    lib.microvmi_destroy(vm)


def test_null_is_every_driver_that_is_tried_by_itself(lib: Any, stubs: ModuleType) -> None:
    machines, count = (stubs.microvmi_machine * 64)(), c_size_t()
    machines[0].struct_size = sizeof(stubs.microvmi_machine)
    assert lib.microvmi_list_vms(None, machines, 64, byref(count)), lib.microvmi_last_error()
    assert b"fake" not in {machine.driver for machine in machines[: min(count.value, 64)]}


@pytest.mark.parametrize(("name", "code"), [(b"nonesuch", DRIVER_UNAVAILABLE), (b"\xff", INVALID_ARGUMENT)])
def test_a_name_of_no_driver_is_refused(lib: Any, name: bytes, code: int) -> None:
    count = c_size_t(5)
    assert not lib.microvmi_list_vms(name, None, 0, byref(count))
    assert (lib.microvmi_last_error_code(), count.value) == (code, 0)
