# SPDX-License-Identifier: Apache-2.0
"""Events that a stand's guest was made to cause, on every driver that has any.

The same event tells the same members, the same mistake is the same error, answers are those of the driver's data, and
no ending leaves anything behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, sizeof
from functools import reduce
from operator import or_
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from contract import event_table
from contract.calls import INVALID_ARGUMENT, NOT_SUPPORTED, error_line
from contract.stock import drivers_of_the_tree, provoking
from contract.target import Guest, Target, Way

from libmicrovmi_py import Microvmi, release_all
from libmicrovmi_py.drivers.base import SupportsEvents, SupportsPageAccess
from libmicrovmi_py.errors import InvalidArgumentError, NotSupportedError
from libmicrovmi_py.events import (
    ALL_VCPUS,
    UNKNOWN_ADDRESS,
    Breakpoints,
    Event,
    EventAbilities,
    EventKind,
    Intercept,
    InterceptFlag,
    PageAccess,
    Reply,
    ReplyAction,
    Stands,
)

TESTS = Path(__file__).resolve().parents[1]

PATIENCE = 20
"""Seconds for what takes a moment on a machine that does nothing else."""

WRITES = (EventKind.CR, EventKind.MSR)
NOTHING = Event(0, EventKind.CR, 0)

ALWAYS = {
    EventKind.CR: {"number"},
    EventKind.MSR: {"number"},
    EventKind.BREAKPOINT: {"virtual_address"},
    EventKind.PAGE_ACCESS: {"physical_address", "access"},
    EventKind.SINGLE_STEP: {"virtual_address"},
    EventKind.VIRTUAL_ACCESS: {"virtual_address", "access", "instruction_pointer"},
}
"""Members that an event of a kind tells, on every driver; what is written may be 0, and is checked where it is done."""

MAYBE = {
    EventKind.CR: {"old_value", "new_value", "instruction_length", "instruction_pointer"},
    EventKind.MSR: {"old_value", "new_value", "instruction_length", "instruction_pointer"},
    EventKind.BREAKPOINT: {"physical_address", "instruction_length", "instruction_pointer"},
    EventKind.PAGE_ACCESS: {"virtual_address", "instruction_pointer"},
    EventKind.SINGLE_STEP: {"physical_address", "instruction_pointer"},
    EventKind.VIRTUAL_ACCESS: {"physical_address"},
}
"""Those that a hypervisor may not know."""


STANDS = provoking()


@pytest.fixture(scope="module", params=sorted(STANDS))
def stand_name(request: pytest.FixtureRequest) -> str:
    """In place of all stands."""
    return str(request.param)


@pytest.fixture(scope="module")
def target(stand_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Set up as in the other files of the contract test."""
    with contextmanager(STANDS[stand_name])(tmp_path_factory.mktemp("s")) as made:
        yield made


WELL_FORMED = {EventKind.VIRTUAL_ACCESS: Intercept(EventKind.VIRTUAL_ACCESS, 0, 0x2000, 8, PageAccess.WRITE)}
"""What is an intercept of a kind on any machine, where the kind alone is none."""


@pytest.fixture
def guest(target: Target) -> Guest:
    """The guest of the stand."""
    assert target.guest is not None
    return target.guest


def abilities(machine: Microvmi) -> EventAbilities:
    """What the driver's data says."""
    assert isinstance(machine.driver, SupportsEvents)
    return machine.driver.event_abilities


def provoked(machine: Microvmi, guest: Guest, kind: EventKind) -> tuple[Event, dict[str, int]]:
    """Intercept what the guest then does: the event, and what it has to tell."""
    if kind is EventKind.PAGE_ACCESS:
        machine.set_page_access(guest.page, PageAccess.READ | PageAccess.EXECUTE)
    machine.toggle_intercept(guest.intercept(kind), vcpu=0)
    told = dict(guest.provoke(kind))
    event = machine.listen(PATIENCE)
    assert event is not None
    return event, told


def ended(machine: Microvmi, guest: Guest, kind: EventKind) -> None:
    """Nothing more is intercepted."""
    machine.toggle_intercept(guest.intercept(kind), False, vcpu=0)
    if kind is EventKind.PAGE_ACCESS:
        machine.set_page_access(guest.page, PageAccess.ALL)


def nothing_left(machine: Microvmi, guest: Guest) -> bool:
    """Whether nothing is left, or after a moment at the latest."""
    end = time.monotonic() + PATIENCE
    while guest.left(machine):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


# ------------------------------------------------------------------------------------------------------------- events


@pytest.mark.parametrize("kind", EventKind, ids=lambda kind: kind.name)
def test_the_same_event_tells_the_same_members(machine: Microvmi, guest: Guest, kind: EventKind) -> None:
    if kind not in abilities(machine).kinds:
        return
    event, told = provoked(machine, guest, kind)
    assert (event.kind, event.vcpu) == (kind, 0)
    assert {name: getattr(event, name) for name in told} == told
    assert event.stands == abilities(machine).stands
    told_of_all = {"id", "kind", "vcpu", "stands"}
    nothing = {name for name in Event.__slots__ if getattr(event, name) == getattr(NOTHING, name)} - told_of_all
    assert not ALWAYS[kind] & nothing
    assert set(Event.__slots__) - told_of_all - nothing <= ALWAYS[kind] | MAYBE[kind]
    assert event.virtual_address == UNKNOWN_ADDRESS or kind not in WRITES
    machine.reply_event(event)
    ended(machine, guest, kind)
    release_all(PATIENCE)
    assert nothing_left(machine, guest)


@pytest.mark.parametrize("action", ReplyAction, ids=lambda action: action.name)
@pytest.mark.parametrize("kind", EventKind, ids=lambda kind: kind.name)
def test_answers_are_those_of_the_data_and_no_others(
    machine: Microvmi, guest: Guest, kind: EventKind, action: ReplyAction
) -> None:
    if kind not in abilities(machine).kinds:
        return
    before = guest.value(kind, machine) if kind in WRITES else 0
    event, _ = provoked(machine, guest, kind)
    allowed = action in abilities(machine).kinds[kind]
    if not allowed:
        with pytest.raises(NotSupportedError, match=f"an event of {kind.name} cannot be "):
            machine.reply_event(event, Reply(action))
    machine.reply_event(event, Reply(action if allowed else ReplyAction.CONTINUE))
    with pytest.raises(InvalidArgumentError, match="not open"):
        machine.reply_event(event, Reply(action))
    if kind in WRITES:
        before = event.old_value or before  # which not every hypervisor tells
        written = event.new_value if action is ReplyAction.CONTINUE or not allowed else before
        assert guest.value(kind, machine) == written
    ended(machine, guest, kind)
    release_all(PATIENCE)
    assert nothing_left(machine, guest)


def has(can: EventAbilities, intercept: Intercept) -> bool:
    """Whether the driver's data has such an intercept."""
    if intercept.kind is EventKind.BREAKPOINT:
        form = Breakpoints.PLACED if intercept.address else Breakpoints.OWN
        return form in can.breakpoints and not intercept.flags & ~can.flags.get(intercept.kind, InterceptFlag.NONE)
    return intercept.kind in can.kinds and not intercept.flags & ~can.flags.get(intercept.kind, InterceptFlag.NONE)


def told_in_that_way(machine: Microvmi, way: Way) -> Event:
    """Intercept it, have it done once, see what is told."""
    can = abilities(machine)
    machine.toggle_intercept(way.intercept)
    told = {"kind": way.intercept.kind, "vcpu": 0, **way.provoke()}
    event = machine.listen(PATIENCE)
    assert event is not None, way.intercept
    assert {name: getattr(event, name) for name in told} == told, way.intercept
    assert event.stands == (can.stands if way.answers else Stands.NOTHING), way.intercept
    return event


@pytest.mark.parametrize("action", ReplyAction, ids=lambda action: action.name)
def test_every_other_way_tells_and_is_answered_as_it_can(machine: Microvmi, guest: Guest, action: ReplyAction) -> None:
    for way in guest.ways:
        if not has(abilities(machine), way.intercept):
            continue
        event = told_in_that_way(machine, way)
        if action not in way.answers:
            error = NotSupportedError if way.answers else InvalidArgumentError
            with pytest.raises(error, match=r"cannot be |not open"):
                machine.reply_event(event, Reply(action))
        if way.answers:
            machine.reply_event(event, Reply(action if action in way.answers else ReplyAction.CONTINUE))
        machine.toggle_intercept(way.intercept, False)
    release_all(PATIENCE)
    assert nothing_left(machine, guest)


def test_there_is_a_way_for_everything_that_the_data_has(machine: Microvmi, guest: Guest) -> None:
    can = abilities(machine)
    asked = [*(guest.intercept(kind) for kind in can.kinds), *(way.intercept for way in guest.ways)]
    for kind in can.kinds:
        flags = reduce(or_, (item.flags for item in asked if item.kind is kind), InterceptFlag.NONE)
        assert not can.flags.get(kind, InterceptFlag.NONE) & ~flags, kind
    places = {item.address for item in asked if item.kind is EventKind.BREAKPOINT}
    assert can.breakpoints <= {Breakpoints.PLACED if place else Breakpoints.OWN for place in places}


def test_what_the_data_lacks_is_not_supported(machine: Microvmi, guest: Guest) -> None:
    can = abilities(machine)
    for kind in EventKind:
        if kind not in can.kinds:
            with pytest.raises(NotSupportedError, match=f"driver cannot stop at {kind.name}: ."):
                machine.toggle_intercept(WELL_FORMED.get(kind, Intercept(kind)))
    for form, address in ((Breakpoints.OWN, 0), (Breakpoints.PLACED, 0x2000)):
        if EventKind.BREAKPOINT in can.kinds and form not in can.breakpoints:
            with pytest.raises(NotSupportedError, match="breakpoints"):
                machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=address))
    assert (EventKind.BREAKPOINT in can.kinds) == bool(can.breakpoints)
    assert all(ReplyAction.CONTINUE in answers for answers in can.kinds.values())
    assert EventKind.PAGE_ACCESS not in can.kinds or isinstance(machine.driver, SupportsPageAccess)
    release_all(PATIENCE)
    assert nothing_left(machine, guest)


def test_the_documentation_shows_the_data(machine: Microvmi, guest: Guest) -> None:
    if machine.driver.name in drivers_of_the_tree():
        shown = event_table.documented(event_table.PAGE.read_text())
        row = event_table.row(machine.driver.name, abilities(machine))
        assert row in shown, "run: PYTHONPATH=.:tests build/venv/bin/python -m contract.event_table"
        assert shown.count(f"| {machine.driver.name} |") == 1


# ----------------------------------------------------------------------------------------------------------- mistakes


MISTAKES = [
    *((0xFFFF, EventKind.CR, number, 0) for number in (1, 2, 8, 0xFFFFFFFF)),
    *((0xFFFF, kind, 3 if kind is EventKind.CR else 0, 0x1000) for kind in EventKind if kind != EventKind.BREAKPOINT),
    *((vcpu, EventKind.CR, 3, 0) for vcpu in (60000, 0xFFFE)),
    *((0xFFFF, kind, 0, 0) for kind in (0, 7, 77)),
]


@pytest.mark.parametrize(("vcpu", "kind", "number", "address"), MISTAKES)
def test_the_same_mistake_is_the_same_error(
    lib: Any, context: int, stubs: ModuleType, guest: Guest, vcpu: int, kind: int, number: int, address: int
) -> None:
    size = sizeof(stubs.microvmi_intercept)
    wrong = stubs.microvmi_intercept(struct_size=size, kind=kind, number=number, address=address)
    for enabled in (True, False):
        assert not lib.microvmi_toggle_intercept(context, vcpu, byref(wrong), enabled)
        assert lib.microvmi_last_error_code() == INVALID_ARGUMENT, error_line(lib)


def test_c_is_answered_as_the_data_says(lib: Any, target: Target, stubs: ModuleType, guest: Guest) -> None:
    with Microvmi.open(target.uri) as machine:
        can = abilities(machine).kinds
    context = lib.microvmi_open(target.uri.encode(), None)
    event, kind = stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event)), EventKind.CR
    wanted = guest.intercept(kind)
    intercept = stubs.microvmi_intercept(
        struct_size=sizeof(stubs.microvmi_intercept), kind=kind, number=wanted.number, flags=wanted.flags
    )
    assert lib.microvmi_toggle_intercept(context, 0, byref(intercept), True), error_line(lib)
    guest.provoke(kind)
    assert lib.microvmi_listen(context, PATIENCE * 1000, byref(event)), error_line(lib)
    for action in reversed(ReplyAction):
        reply = stubs.microvmi_reply(struct_size=sizeof(stubs.microvmi_reply), action=action)
        if action not in can[kind]:
            assert not lib.microvmi_reply_event(context, byref(event), byref(reply))
            assert lib.microvmi_last_error_code() == NOT_SUPPORTED, error_line(lib)
    assert lib.microvmi_reply_event(context, byref(event), None), error_line(lib)
    assert not lib.microvmi_reply_event(context, byref(event), None)
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT, error_line(lib)
    lib.microvmi_destroy(context)


def test_c_tells_every_other_way_too(lib: Any, target: Target, stubs: ModuleType, guest: Guest) -> None:
    with Microvmi.open(target.uri) as machine:
        can = abilities(machine)
    context = lib.microvmi_open(target.uri.encode(), None)
    for way in (way for way in guest.ways if has(can, way.intercept)):
        members = {name: int(getattr(way.intercept, name)) for name in Intercept.__slots__}
        intercept = stubs.microvmi_intercept(struct_size=sizeof(stubs.microvmi_intercept), **members)
        event = stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event))
        assert lib.microvmi_toggle_intercept(context, ALL_VCPUS, byref(intercept), True), error_line(lib)
        told = way.provoke()
        assert lib.microvmi_listen(context, PATIENCE * 1000, byref(event)), error_line(lib)
        assert {name: getattr(event, name) for name in told} == told, way.intercept
        assert event.stands == (can.stands if way.answers else Stands.NOTHING)
        assert lib.microvmi_reply_event(context, byref(event), None) == bool(way.answers), error_line(lib)
        assert lib.microvmi_toggle_intercept(context, ALL_VCPUS, byref(intercept), False), error_line(lib)
    lib.microvmi_destroy(context)


# ------------------------------------------------------------------------------------------------------------- endings


def in_the_middle(machine: Microvmi, guest: Guest) -> None:
    """Every kind is intercepted, one event is open, others may wait."""
    for kind in abilities(machine).kinds:
        if kind is EventKind.PAGE_ACCESS:
            machine.set_page_access(guest.page, PageAccess.NONE)
        machine.toggle_intercept(guest.intercept(kind))
    guest.provoke(EventKind.CR)
    assert machine.listen(PATIENCE) is not None
    assert guest.left(machine)


@pytest.mark.parametrize("paused", [False, True], ids=["", "paused"])
@pytest.mark.parametrize("how", ["close", "release_all", "exception"])
def test_no_ending_leaves_anything(target: Target, guest: Guest, how: str, paused: bool) -> None:
    machine = Microvmi.open(target.uri)
    in_the_middle(machine, guest)
    if paused:
        machine.pause()
    if how == "exception":
        with pytest.raises(KeyError), machine:
            raise KeyError
    elif how == "close":
        machine.close()
    else:
        release_all(PATIENCE)
        assert nothing_left(machine, guest)
    assert nothing_left(machine, guest)
    machine.close()


@pytest.mark.parametrize("how", ["falls off the end", "exits", "raises"])
def test_no_end_of_the_process_leaves_anything(
    stand_name: str, tmp_path_factory: pytest.TempPathFactory, guest: Guest, how: str
) -> None:
    command = [sys.executable, "-m", "contract.ending", stand_name, str(tmp_path_factory.mktemp("e")), how]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.stdout.split("\n") == ["in the middle", "nothing left", ""], done.stderr
    assert (done.returncode, "KeyError" in done.stderr) == {"raises": (1, True), "exits": (3, False)}.get(
        how, (0, False)
    )
