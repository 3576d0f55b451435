# SPDX-License-Identifier: Apache-2.0
"""What a machine says that it can, it can, and what it does not say it refuses; C and Python say the same."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import POINTER, byref, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, sizeof
from types import ModuleType
from typing import Any

from contract.calls import INVALID_ARGUMENT, NOT_SUPPORTED, error_line
from contract.truth import Truth

from libmicrovmi_py import Microvmi
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.events import Breakpoints, EventKind, InterceptFlag, ReplyAction, Stands


def told(lib: Any, context: int, stubs: ModuleType) -> Any:
    """The struct that C fills."""
    abilities = stubs.microvmi_abilities(struct_size=sizeof(stubs.microvmi_abilities))
    assert lib.microvmi_get_abilities(context, byref(abilities)), lib.microvmi_last_error()
    return abilities


def test_c_and_python_tell_the_same(lib: Any, context: int, machine: Microvmi, stubs: ModuleType) -> None:
    c, python = told(lib, context, stubs), machine.abilities
    assert c.struct_size == sizeof(stubs.microvmi_abilities)
    assert Ability(c.can) == python.can
    assert {kind for kind in Breakpoints if c.breakpoints & kind} == python.events.breakpoints
    answers = {number: bits for number, bits in enumerate(c.answers) if bits}
    assert answers == {kind: sum(1 << action for action in allowed) for kind, allowed in python.events.kinds.items()}
    assert set(answers) <= set(EventKind)
    flags = {EventKind(number): InterceptFlag(bits) for number, bits in enumerate(c.flags) if bits}
    assert flags == dict(python.events.flags)
    assert set(flags) <= set(answers)
    stands = {number: Stands(value) for number, value in enumerate(c.stands) if value}
    assert stands == dict.fromkeys(answers, python.events.stands)
    assert all(bits & 1 << ReplyAction.CONTINUE for bits in answers.values())


def test_what_is_not_told_is_refused_and_nothing_else(lib: Any, context: int, stubs: ModuleType, truth: Truth) -> None:
    can = Ability(told(lib, context, stubs).can)
    kind = next((kind for kind, bits in enumerate(told(lib, context, stubs).answers) if bits), EventKind.CR)
    intercept = stubs.microvmi_intercept(struct_size=sizeof(stubs.microvmi_intercept), kind=kind, number=3, address=0)
    intercept.address = 0x1000 if kind == EventKind.BREAKPOINT else 0
    page = c_uint32()
    calls: dict[Ability, Callable[[], bool]] = {
        Ability.READ: lambda: lib.microvmi_read_physical(context, truth.ranges[0][0], (c_uint8 * 8)(), 8, None),
        Ability.PAUSE: lambda: lib.microvmi_pause(context),
        Ability.VCPU_COUNT: lambda: lib.microvmi_get_vcpu_count(context, byref(c_uint16())),
        Ability.READ_REGISTERS: lambda: lib.microvmi_read_registers(context, 0, byref(stubs.Registers())),
        Ability.PAGE_ACCESS: lambda: lib.microvmi_get_page_access(context, truth.ranges[0][0], byref(page)),
        Ability.EVENTS: lambda: lib.microvmi_toggle_intercept(context, 0, byref(intercept), False),
        Ability.MEMORY_MAP: lambda: lib.microvmi_get_memory_map(context, None, 0, byref(c_size_t())),
    }
    for ability, call in calls.items():
        done, code = call(), lib.microvmi_last_error_code()
        assert done or code not in (NOT_SUPPORTED, INVALID_ARGUMENT) or ability not in can, ability
        assert not done or ability in can or ability is Ability.MEMORY_MAP, ability  # without it there is one range


def test_memory_can_be_had_without_a_copy_where_that_is_told(
    lib: Any, context: int, stubs: ModuleType, truth: Truth
) -> None:
    pointer = POINTER(c_uint8)()
    found = False
    for start, _ in truth.ranges:
        done = lib.microvmi_map_physical(context, start, 1, byref(pointer))
        assert not done or lib.microvmi_unmap_physical(pointer)
        found = found or done
    assert not found or told(lib, context, stubs).can & Ability.MAP
    assert found or lib.microvmi_last_error_code() == NOT_SUPPORTED


def test_every_machine_can_be_read(machine: Microvmi) -> None:
    assert Ability.READ in machine.abilities.can


def test_a_caller_that_knows_more_is_told_how_much_was_filled(lib: Any, context: int, stubs: ModuleType) -> None:
    size = sizeof(stubs.microvmi_abilities)
    room = (c_uint64 * (size // 8 + 4))(*[0xA5] * (size // 8 + 4))
    abilities = stubs.microvmi_abilities.from_buffer(room)
    abilities.struct_size = size + 32
    assert lib.microvmi_get_abilities(context, byref(abilities))
    assert abilities.struct_size == size
    assert list(room)[size // 8 :] == [0xA5] * 4


def test_what_is_no_struct_of_abilities_is_refused(lib: Any, context: int, stubs: ModuleType) -> None:
    first = stubs.microvmi_abilities.flags.offset
    abilities = stubs.microvmi_abilities(struct_size=first - 1, can=77)
    for given in (byref(abilities), None):
        assert not lib.microvmi_get_abilities(context, given)
        assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
        error_line(lib)
    assert abilities.can == 77


def test_page_accesses_are_told_where_their_events_are(machine: Microvmi) -> None:
    abilities = machine.abilities
    assert (Ability.PAGE_ACCESS in abilities.can) == (EventKind.PAGE_ACCESS in abilities.events.kinds)
    assert (Ability.EVENTS in abilities.can) == bool(abilities.events.kinds)
