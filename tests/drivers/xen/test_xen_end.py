# SPDX-License-Identifier: Apache-2.0
"""The end of listening over the Xen simulator, and other listeners: none lost, all answered, nobody left stopped."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from drivers.xen.simulator import BREAKPOINT, CR3, CR4, cr, heard
from processors import x86_registers

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.xen.driver import OpenDomain
from libmicrovmi_py.drivers.xen.session import connect
from libmicrovmi_py.drivers.xen.xenctrl import Domain
from libmicrovmi_py.errors import DriverUnavailableError, IoError, VmGoneError
from libmicrovmi_py.events import Event

if TYPE_CHECKING:
    from drivers.xen.simulator import Simulator


@pytest.fixture
def driver(machine: Microvmi) -> Iterator[OpenDomain]:
    """The driver by itself, which is used as from above."""
    driver = machine.driver
    assert isinstance(driver, OpenDomain)
    yield driver
    driver.arm(CR3, frozenset())
    with driver.quiet():
        assert driver.end_events()


def test_the_end_answers_what_is_open_and_what_nobody_has_seen(xen: Simulator) -> None:
    machine = xen.open()
    machine.toggle_intercept(CR3)
    machine.toggle_intercept(BREAKPOINT)
    xen.event(0, 4, cr(1, 1, 0))
    xen.event(1, 6, struct.pack("<QQIB", 1, 0, 1, 6))
    heard(machine)
    xen.event(2, 4, cr(1, 1, 0))
    machine.close()
    left = [xen.get(what) for what in ("stopped", "armed", "enabled", "bound", "paused")]
    assert left == [0] * 5
    assert xen.get("injected") == 1


def test_a_vcpu_that_waits_for_room_in_the_ring_gets_it_at_the_end(xen: Simulator) -> None:
    machine = xen.open()
    machine.toggle_intercept(CR3)
    assert [xen.event(number % 3, 4, cr(1, number, 0)) for number in range(9)] == [True] * 8 + [False]
    heard(machine)
    machine.close()
    assert [xen.get(what) for what in ("stopped", "enabled", "paused")] == [0] * 3


def test_a_breakpoint_that_cannot_be_delivered_stops_nobody_at_the_end(xen: Simulator) -> None:
    machine = xen.open()
    machine.toggle_intercept(BREAKPOINT)
    xen.event(1, 6, struct.pack("<QQIB", 1, 0, 1, 6))
    event = heard(machine)
    xen.set("uninjectable", 1)
    with pytest.raises(IoError, match="delivering"):
        machine.reply_event(event)
    assert xen.get("stopped") == 1
    machine.close()
    assert (xen.get("stopped"), xen.get("injected")) == (0, 0)


def test_what_was_taken_from_the_ring_and_never_answered_stops_nobody_at_the_end(
    xen: Simulator, driver: OpenDomain
) -> None:
    driver.arm(CR3, frozenset({0}))
    for vcpu in (0, 1):
        xen.event(vcpu, 4, cr(1, 1, 0))
    assert driver.poll(0) is not None
    driver.arm(CR3, frozenset())
    assert xen.get("stopped") == 2
    with driver.quiet():
        assert driver.end_events()
    assert xen.get("stopped") == 0
    assert driver.end_events()


def test_who_does_not_wait_leaves_its_place_in_the_ring(xen: Simulator, driver: OpenDomain) -> None:
    driver.arm(CR3, frozenset({0}))
    for number in range(20):
        assert xen.event(0, 4, cr(1, number, 0), waits=False)
        stop = driver.poll(0)
        assert stop is not None
        assert (stop.new_value, stop.waits) == (number, False)


def test_the_domain_is_held_while_it_has_to_be_quiet(xen: Simulator, driver: OpenDomain) -> None:
    with driver.quiet():
        assert xen.get("paused") == 0, "nobody listens yet"
    driver.arm(CR3, frozenset({0}))
    with driver.quiet():
        assert xen.get("paused") == 1
    assert xen.get("paused") == 0


def test_a_paused_domain_stays_paused_when_events_end(xen: Simulator, machine: Microvmi) -> None:
    xen.set("paused", 1)
    machine.toggle_intercept(CR3)
    machine.close()
    assert xen.get("paused") == 1


def test_a_second_listener_is_told_that_there_is_one(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    with xen.open() as second, pytest.raises(DriverUnavailableError, match="another program listens"):
        second.toggle_intercept(CR4)
    assert xen.get("enabled") == 1


def die(xen: Simulator) -> None:
    """Play a listener that got SIGKILL with two vCPUs stopped: its channel is gone, its monitor is not."""
    victim = connect(xen.libraries, Domain(xen.libraries, 1, "victim"))
    for vcpu in (0, 2):
        xen.event(vcpu, 4, cr(1, 1, 0))
    assert next(victim.requests()).vcpu == 0
    xen.set("bound", 0)
    assert xen.get("stopped") == 2


def test_xen_never_puts_more_into_the_ring_than_there_is_room(xen: Simulator, machine: Microvmi) -> None:
    die(xen)
    machine.toggle_intercept(CR3)
    room = [xen.event(number % 3, 4, cr(1, number, 0)) for number in range(9)]
    assert room == [True] * 8 + [False]
    assert [heard(machine).new_value for _ in range(8)] == list(range(8))


def test_after_a_listener_that_died_the_next_one_lets_vcpus_go_on(xen: Simulator, machine: Microvmi) -> None:
    die(xen)
    machine.toggle_intercept(CR3)
    assert xen.get("stopped") == 0
    xen.event(1, 4, cr(1, 5, 4))
    event = heard(machine)
    assert (event.vcpu, event.new_value) == (1, 5)
    machine.reply_event(event)


def test_resume_lets_vcpus_go_on_that_a_dead_listener_left_stopped(xen: Simulator, machine: Microvmi) -> None:
    die(xen)
    xen.set("paused", 2)
    machine.resume()
    assert [xen.get(what) for what in ("stopped", "paused", "enabled")] == [0, 0, 0]


@pytest.mark.parametrize("moment", ["armed", "before it is heard", "before it is answered"])
def test_after_a_listener_was_killed_a_resume_lets_the_guest_run(xen: Simulator, moment: str) -> None:
    """Xen leaves a vCPU stopped that waits for a listener which is gone."""
    child = os.fork()
    if child == 0:
        machine = xen.open()
        machine.toggle_intercept(CR3)
        if moment != "armed":
            xen.event(0, 4, cr(1, 1, 0))
        if moment == "before it is answered":
            heard(machine)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (xen.get("enabled"), xen.get("bound"), xen.get("stopped")) == (1, 0, moment != "armed")
    with xen.open() as machine:
        machine.resume()
        assert (xen.get("enabled"), xen.get("stopped"), xen.get("armed")) == (0, 0, 0)


def test_listening_ends_with_the_domain(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    threading.Timer(0.2, xen.set, ("dying", 1)).start()
    start = time.monotonic()
    with pytest.raises(VmGoneError):
        machine.listen(30)
    assert time.monotonic() - start < 5
    assert xen.get("bound") == 0
    xen.forget()


def test_an_event_of_a_domain_that_ended_cannot_be_answered(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    xen.event(0, 4, cr(1, 1, 0))
    event = heard(machine)
    xen.set("dying", 1)
    with pytest.raises(VmGoneError):
        machine.memory_map()
    with pytest.raises(VmGoneError):
        machine.reply_event(event)
    machine.close()
    assert xen.get("bound") == 0
    xen.forget()


def test_listening_without_an_intercept_waits_its_time(machine: Microvmi) -> None:
    start = time.monotonic()
    assert machine.listen(0.15) is None
    assert 0.1 < time.monotonic() - start < 5


def test_other_calls_work_while_a_thread_listens(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    found: list[Event | None] = []
    listener = threading.Thread(target=lambda: found.append(machine.listen(10)))
    listener.start()
    machine.pause()
    x86_registers(machine, 1)
    machine.resume()
    machine.toggle_intercept(CR4)
    xen.event(1, 4, cr(2, 1, 0))
    listener.join(10)
    assert [event.number for event in found if event] == [4]
    machine.reply_event(found[0])  # type: ignore[arg-type]
