# SPDX-License-Identifier: Apache-2.0
"""Events and page accesses: what a driver can it does and gives back, the rest it refuses in a line."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from ctypes import byref, c_uint32, sizeof
from types import ModuleType
from typing import Any

import pytest
from contract.calls import INVALID_CONTEXT, NOT_SUPPORTED, error_line, refuses, runs, within
from contract.known import Known
from contract.stock import provoking
from contract.target import Target
from contract.truth import PAGE, Truth

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import SupportsEvents, SupportsPageAccess, SupportsStateWrites
from libmicrovmi_py.drivers.control import SupportsPause
from libmicrovmi_py.errors import InvalidArgumentError, InvalidContextError, NotMappedError, NotSupportedError
from libmicrovmi_py.events import ALL_VCPUS, Event, EventKind, Intercept, PageAccess

INTERCEPTS = (
    Intercept(EventKind.CR, 3),
    Intercept(EventKind.MSR, 0xC0000080),
    Intercept(EventKind.BREAKPOINT),
    Intercept(EventKind.PAGE_ACCESS),
    Intercept(EventKind.SINGLE_STEP),
)


# ------------------------------------------------------------------------------------------------------- page accesses


def test_page_accesses_are_changed_and_given_back(target: Target, machine: Microvmi, truth: Truth) -> None:
    driver, address = machine.driver, truth.ranges[0][0]
    if not isinstance(driver, SupportsPageAccess):
        changes = (lambda: machine.get_page_access(address), lambda: machine.set_page_access(address, PageAccess.ALL))
        refuses(driver.name, *changes)
        return
    try:
        before = machine.get_page_access(address)
        machine.set_page_access(address, PageAccess.READ)
    except NotSupportedError:
        return  # not by this machine's processor
    assert machine.get_page_access(address) == PageAccess.READ
    assert machine.get_page_access(address + PAGE) == before
    machine.close()
    with Microvmi.open(target.uri) as other:
        assert other.get_page_access(address) == before
        for call in (other.get_page_access, lambda missing: other.set_page_access(missing, PageAccess.READ)):
            with pytest.raises(NotMappedError):
                call(1 << 51)


# -------------------------------------------------------------------------------------------------------------- events


def test_c_says_the_same(lib: Any, context: int, stubs: ModuleType, known: Known) -> None:
    intercept = stubs.microvmi_intercept(struct_size=sizeof(stubs.microvmi_intercept), kind=EventKind.CR, number=3)
    event = stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event))
    access = c_uint32(77)
    calls: dict[type, list[Callable[[], bool]]] = {
        SupportsPageAccess: [
            lambda: lib.microvmi_get_page_access(context, 0, byref(access)),
            lambda: lib.microvmi_set_page_access(context, 0, PageAccess.ALL),
        ],
        SupportsEvents: [
            lambda: lib.microvmi_toggle_intercept(context, ALL_VCPUS, byref(intercept), True),
            lambda: lib.microvmi_listen(context, 0, byref(event)),
            lambda: lib.microvmi_reply_event(context, byref(event), None),
        ],
        SupportsStateWrites: [lambda: lib.microvmi_write_registers(context, 0, byref(stubs.Registers()))],
    }
    for call in (call for able, some in calls.items() if not known.can(able) for call in some):
        assert not call()
        assert lib.microvmi_last_error_code() == NOT_SUPPORTED
        assert error_line(lib).startswith(f"the {known.name} driver cannot ")


def test_destroying_ends_a_wait(lib: Any, target: Target, stubs: ModuleType, known: Known) -> None:
    if not known.can(SupportsEvents):
        return
    context, codes = lib.microvmi_open(target.uri.encode(), None), []

    def wait() -> None:
        event = stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event))
        assert not lib.microvmi_listen(context, 60_000, byref(event))
        codes.append(lib.microvmi_last_error_code())

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    time.sleep(0.05)
    with within(2):
        lib.microvmi_destroy(context)
    thread.join(2)
    assert codes == [INVALID_CONTEXT]


def test_a_stand_of_a_driver_with_events_makes_them_happen(target: Target, known: Known) -> None:
    assert known.can(SupportsEvents) <= (target.guest is not None or known.name in provoking())


def test_a_driver_without_events_says_so(machine: Microvmi) -> None:
    if not isinstance(machine.driver, SupportsEvents):
        event = Event(1, EventKind.BREAKPOINT, 0)
        switches = [lambda kind=kind: machine.toggle_intercept(kind) for kind in INTERCEPTS]
        refuses(machine.driver.name, *switches, lambda: machine.listen(0), lambda: machine.reply_event(event))


def switched(machine: Microvmi, intercept: Intercept, vcpu: int = ALL_VCPUS) -> bool:
    """Switch on twice and off twice; whether the hypervisor can."""
    try:
        for enabled in (True, True, False, False):
            machine.toggle_intercept(intercept, enabled, vcpu=vcpu)
    except NotSupportedError:
        return False
    return True


def test_intercepts_are_switched_on_and_off(target: Target, machine: Microvmi) -> None:
    if not isinstance(machine.driver, SupportsEvents) or target.guest is None:
        return
    assert any([switched(machine, intercept) for intercept in INTERCEPTS])
    first = next(intercept for intercept in INTERCEPTS if switched(machine, intercept))
    for vcpu in (60000, 65534):
        with pytest.raises((InvalidArgumentError, NotSupportedError)):
            machine.toggle_intercept(first, vcpu=vcpu)


def test_waiting_for_events_ends_in_time(machine: Microvmi) -> None:
    if not isinstance(machine.driver, SupportsEvents):
        return
    for timeout in (0, 0.05):
        with within(timeout + 0.5):
            event = machine.listen(timeout)
        assert event is None, "nobody asked for it"


def test_an_answer_to_no_event_is_refused(machine: Microvmi) -> None:
    if isinstance(machine.driver, SupportsEvents):
        with pytest.raises(InvalidArgumentError):
            machine.reply_event(Event(0x7777, EventKind.CR, 0))


def test_releasing_events_twice_is_fine_and_the_machine_runs(target: Target) -> None:
    with Microvmi.open(target.uri) as machine:
        driver = machine.driver
        if not isinstance(driver, SupportsEvents) or target.guest is None:
            return
        for intercept in INTERCEPTS:
            with contextlib.suppress(NotSupportedError):
                machine.toggle_intercept(intercept)
        for _ in range(2):
            driver.end_events()
        can_pause = isinstance(driver, SupportsPause)
    assert not can_pause or runs(target)


def test_a_wait_ends_when_nobody_wants_it_any_more(machine: Microvmi) -> None:
    if not isinstance(machine.driver, SupportsEvents):
        return
    ended: list[type[BaseException] | None] = []

    def wait() -> None:
        try:
            machine.listen(20)
        except InvalidContextError as err:
            ended.append(type(err))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    time.sleep(0.05)
    machine.stop_listening()
    thread.join(2)
    assert ended == [InvalidContextError]
    machine.close()
