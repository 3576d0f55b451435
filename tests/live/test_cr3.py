# SPDX-License-Identifier: Apache-2.0
"""Changes of the address space, told when they are done: none is missed, and none is told that did not happen.

The guest counts its turns in its memory, which is read at each event: as all vCPUs stand then, each event has a count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.x86.registers import X86Registers
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import Event, EventKind, Intercept, InterceptFlag, Reply, ReplyAction, Stands

from .counting import LONG
from .guest import VCPUS, Boot, Guest
from .switching import SECONDS, Switcher, changes_between_two, switching_guest

CHANGES = Intercept(EventKind.CR, 3)
EVERY = Intercept(EventKind.CR, 3, flags=InterceptFlag.EVERY_WRITE)
OBSERVE = Intercept(EventKind.CR, 3, flags=InterceptFlag.OBSERVE)
TURNS = 5_000 if LONG else 400
KPTI = 1 << 12
"""Of CR3: which of the two tables of a process."""
LINES = ["nokaslr", "pti=on"]


@pytest.fixture(scope="module", params=LINES)
def switching(request: pytest.FixtureRequest, boot: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with switching_guest(boot, tmp_path_factory.mktemp("cr3"), request.param) as guest:
        yield guest


@pytest.fixture
def pairs(switching: Guest) -> Iterator[list[Switcher]]:
    """Those of the vCPUs; the guest runs after the test as before it, and takes turns when it is told to."""
    pairs = [Switcher(switching, vcpu) for vcpu in range(VCPUS)]
    yield pairs
    for pair in pairs:
        pair.order(100)
        pair.await_done()
        pair.close()
    assert switching.monitor.status() == "running"
    labels = [item["label"] for item in switching.monitor.execute("query-chardev")]
    assert not [label for label in labels if label.startswith("microvmi")]


def listened(machine: Microvmi, pairs: list[Switcher], turns: int) -> dict[int, list[Event]]:
    """The changes by vCPU until all pairs took so many turns; each is told once, after it."""
    told: dict[int, list[Event]] = defaultdict(list)
    for pair in pairs:
        pair.order(turns)
    while not all(pair.done for pair in pairs):
        if (event := machine.listen(0.2)) is not None:
            take(machine, event, told)
    machine.pause()
    while (event := machine.listen(0)) is not None:
        take(machine, event, told)
    return told


def take(machine: Microvmi, event: Event, told: dict[int, list[Event]]) -> None:
    assert (event.kind, event.number, event.stands) == (EventKind.CR, 3, Stands.MACHINE)
    assert event.old_value != event.new_value
    before = told[event.vcpu]
    assert not before or before[-1].new_value == event.old_value
    before.append(event)
    machine.reply_event(event)


@pytest.mark.parametrize("busy", [1, VCPUS])
def test_every_change_is_told_and_no_other(switching: Guest, pairs: list[Switcher], busy: int) -> None:
    busy_pairs = pairs[:busy]
    with Microvmi.open(switching.uri) as machine:
        machine.pause()
        before = [pair.turns for pair in busy_pairs]
        machine.toggle_intercept(CHANGES)
        machine.resume()
        told = listened(machine, busy_pairs, TURNS)
        for vcpu, pair in enumerate(busy_pairs):
            turns = pair.turns - before[vcpu]
            assert changes_between_two(event.new_value for event in told[vcpu]) == turns >= TURNS


def test_a_change_cannot_be_denied(switching: Guest, pairs: list[Switcher]) -> None:
    with Microvmi.open(switching.uri) as machine:
        machine.toggle_intercept(CHANGES)
        pairs[0].order(10)
        event = machine.listen(SECONDS)
        assert event is not None
        assert machine.read_registers(event.vcpu).cr3 == event.new_value  # type: ignore[union-attr]
        with pytest.raises(NotSupportedError, match="EVERY_WRITE"):
            machine.reply_event(event, Reply(ReplyAction.DENY))
        machine.reply_event(event)


def test_all_three_ways_are_told_at_once(switching: Guest, pairs: list[Switcher]) -> None:
    """Of what one pair does: each write before it happens, each change after it, and each write without a stop."""
    told: dict[InterceptFlag, list[int]] = defaultdict(list)
    with Microvmi.open(switching.uri) as machine:
        before = pairs[0].turns
        for intercept in (EVERY, CHANGES, OBSERVE):
            machine.toggle_intercept(intercept)
        pairs[0].order(20)
        while not pairs[0].done:
            if (event := machine.listen(0.2)) is not None:
                sort(machine, event, told)
        machine.pause()
        while (event := machine.listen(0)) is not None:
            sort(machine, event, told)
    pair = {value for value, _ in Counter(told[CHANGES.flags]).most_common(2)}
    told[OBSERVE.flags] = [value for value in told[OBSERVE.flags] if value in pair]  # it is told of both vCPUs
    turns = pairs[0].turns - before
    assert [changes_between_two(told[flag]) for flag in (CHANGES.flags, EVERY.flags, OBSERVE.flags)] == [turns] * 3


def sort(machine: Microvmi, event: Event, told: dict[InterceptFlag, list[int]]) -> None:
    """By which intercept it was told of: who observes stops nothing, and a change has happened."""
    if event.stands is Stands.NOTHING:
        told[OBSERVE.flags].append(event.new_value & ~KPTI)
        return
    registers = machine.read_registers(event.vcpu)
    assert isinstance(registers, X86Registers)
    after = (registers.cr3 ^ event.new_value) & ~KPTI == 0
    if event.vcpu == 0:
        told[CHANGES.flags if after else EVERY.flags].append(event.new_value & ~KPTI)
    machine.reply_event(event)
