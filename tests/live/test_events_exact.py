# SPDX-License-Identifier: Apache-2.0
"""Events of two vCPUs that do the same at the same time: none is missed, none told twice, by their own count."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import MicrovmiError, VmGoneError
from libmicrovmi_py.events import EventKind, Intercept, InterceptFlag, PageAccess

from .guest import Guest
from .racing import COUNTS, LENGTH, ORDERS, VARIABLE, WRITES, number, order, racing, wait_for

TURNS = 1000
WATCH = Intercept(EventKind.VIRTUAL_ACCESS, address=VARIABLE, size=4, access=PageAccess.WRITE)
STEPS = Intercept(EventKind.SINGLE_STEP)
HARDWARE = [Intercept(EventKind.BREAKPOINT, address=place, flags=InterceptFlag.HARDWARE) for place in WRITES]


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory, boot: object) -> Iterator[Guest]:
    """One guest for all tests that leave it alive."""
    with racing(tmp_path_factory.mktemp("race")) as guest:
        yield guest


@pytest.fixture
def machine(race: Guest) -> Iterator[Microvmi]:
    """Both vCPUs run before and after."""
    runs(race)
    with Microvmi.open(race.uri) as machine:
        yield machine
    runs(race)


def runs(guest: Guest) -> None:
    """Both vCPUs do what they are told."""
    assert guest.monitor.status() == "running"
    with Microvmi.open(guest.uri) as machine:
        order(machine, 3, 3)
        wait_for(lambda: [number(machine, place) for place in COUNTS] == [3, 3])


def told(machine: Microvmi, total: int) -> Counter[tuple[int, int]]:
    """How often each vCPU was told of, by where it goes on; to the last event of so many."""
    found = Counter[tuple[int, int]]()
    for _ in range(total):
        event = machine.listen(20)
        assert event is not None, (found, [number(machine, place) for place in (*COUNTS, *ORDERS)])
        found[event.vcpu, event.instruction_pointer] += 1
        machine.reply_event(event)
    assert machine.listen(0.2) is None
    assert [number(machine, place) for place in ORDERS] == [0, 0]
    return found


def test_every_hit_of_a_hardware_breakpoint_of_both_vcpus_is_told(machine: Microvmi) -> None:
    for intercept in HARDWARE:
        machine.toggle_intercept(intercept)
    order(machine, TURNS, TURNS // 10)
    found = told(machine, TURNS + TURNS // 10)
    assert found == {(0, WRITES[0]): TURNS, (1, WRITES[1]): TURNS // 10}
    assert [number(machine, place) for place in COUNTS] == [TURNS, TURNS // 10]


def test_a_watch_tells_each_of_two_who_write_at_the_same_time(machine: Microvmi) -> None:
    machine.toggle_intercept(WATCH)
    order(machine, TURNS, TURNS)
    found = told(machine, 2 * TURNS)
    assert found == {(vcpu, place + LENGTH): TURNS for vcpu, place in enumerate(WRITES)}


def test_execution_of_a_range_is_told_before(machine: Microvmi) -> None:
    machine.toggle_intercept(
        Intercept(EventKind.VIRTUAL_ACCESS, address=WRITES[1] - 2, size=8, access=PageAccess.EXECUTE)
    )
    order(machine, 0, 5)
    for _ in range(5):
        event = machine.listen(20)
        assert event is not None
        while event.virtual_address != WRITES[1]:
            machine.reply_event(event)
            event = machine.listen(20)
            assert event is not None
        assert (event.vcpu, event.access, event.instruction_pointer) == (1, PageAccess.EXECUTE, WRITES[1])
        assert number(machine, COUNTS[1]) == number(machine, VARIABLE)  # neither has happened yet
        machine.reply_event(event)


def test_somebody_who_lets_it_run_at_an_event_takes_nothing_from_the_next(machine: Microvmi, race: Guest) -> None:
    machine.toggle_intercept(HARDWARE[0])
    order(machine, 20, 0)
    event = machine.listen(20)
    assert event is not None
    race.monitor.execute("cont")
    machine.reply_event(event)
    seen = 0
    while (event := machine.listen(0.5)) is not None:
        seen += 1
        machine.reply_event(event)
    assert 17 <= seen <= 20


def test_what_others_stopped_and_let_run_is_heard_again(machine: Microvmi, race: Guest) -> None:
    machine.toggle_intercept(HARDWARE[0])
    race.monitor.execute("stop")
    assert machine.listen(0.3) is None
    assert race.monitor.status() == "paused"
    machine.write_physical(ORDERS[0], (5).to_bytes(4, "little"))
    race.monitor.execute("cont")
    for _ in range(5):
        event = machine.listen(20)
        assert event is not None
        machine.reply_event(event)


def test_a_vcpu_that_sleeps_is_not_waited_for(boot: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One that never woke up executes nothing: nobody can step it, and the other runs on when all is over."""
    with racing(tmp_path_factory.mktemp("alone"), alone=True) as guest:
        for intercepts in ([WATCH], [HARDWARE[0], WATCH], [WATCH, STEPS]):
            with Microvmi.open(guest.uri) as machine:
                for intercept in intercepts:
                    machine.toggle_intercept(intercept)
                order(machine, 50)
                for _ in range(10):
                    event = machine.listen(20)
                    assert event is not None
                    assert event.vcpu == 0
                    machine.reply_event(event)
            with Microvmi.open(guest.uri) as machine:
                assert guest.monitor.status() == "running"
                order(machine, 3)
                wait_for(lambda machine=machine: number(machine, COUNTS[0]) == 3)  # type: ignore[misc]


def test_qemu_is_killed_at_an_event(tmp_path_factory: pytest.TempPathFactory, boot: object) -> None:
    with racing(tmp_path_factory.mktemp("killed")) as guest:
        machine = Microvmi.open(guest.uri)
        machine.toggle_intercept(HARDWARE[0])
        order(machine, 5, 0)
        event = machine.listen(20)
        assert event is not None
        guest.kill()
        with pytest.raises(MicrovmiError):
            machine.reply_event(event)
        with pytest.raises(VmGoneError):
            machine.listen(5)
        machine.close()


def test_it_is_closed_while_others_listen_and_answer(race: Guest) -> None:
    for _ in range(5):
        machine = Microvmi.open(race.uri)
        machine.toggle_intercept(WATCH)
        order(machine, 1 << 20, 1 << 20)
        threads = [threading.Thread(target=listens, args=(machine,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        machine.close()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        runs(race)


def listens(machine: Microvmi) -> None:
    """Until it is closed."""
    try:
        while True:
            event = machine.listen(5)
            if event is not None:
                machine.reply_event(event)
    except MicrovmiError:
        pass
