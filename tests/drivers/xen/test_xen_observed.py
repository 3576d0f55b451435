# SPDX-License-Identifier: Apache-2.0
"""Writes of control registers that are told while the vCPU runs on, over the Xen simulator."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from drivers.xen.simulator import CR3, CR4, cr, heard

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.xen.pending import MOST, observing
from libmicrovmi_py.errors import InvalidArgumentError, NotSupportedError
from libmicrovmi_py.events import Event, Stands

if TYPE_CHECKING:
    from drivers.xen.simulator import Simulator


def written(xen: Simulator, number: int, *, vcpu: int = 0, index: int = 1) -> None:
    """The guest writes a register; a vCPU that finds no room in the ring waits, and this until it has gone on."""
    end = time.monotonic() + 20
    while xen.get("late"):
        assert time.monotonic() < end, "a vCPU stands for want of room"
        time.sleep(0.0005)
    xen.event(vcpu, 4, cr(index, number, number - 1))


def takers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "libmicrovmi-xen"]


def settled(expected: list[str]) -> bool:
    """Whether so many threads take, after a moment at the latest."""
    end = time.monotonic() + 5
    while takers() != expected and time.monotonic() < end:
        time.sleep(0.005)
    return takers() == expected


def test_every_write_is_told_and_nothing_stands(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(observing(3))
    for number in range(1, 101):
        written(xen, number, vcpu=number % 3)
    events = [heard(machine) for _ in range(100)]
    assert [(event.vcpu, event.old_value, event.new_value) for event in events] == [
        (number % 3, number - 1, number) for number in range(1, 101)
    ]
    assert {(event.number, event.stands, event.lost) for event in events} == {(3, Stands.NOTHING, 0)}
    assert xen.get("stopped") == 0
    with pytest.raises(InvalidArgumentError, match="not open"):
        machine.reply_event(events[0])


def test_the_ring_is_emptied_while_nobody_listens_and_the_oldest_is_lost_with_a_word(
    xen: Simulator, machine: Microvmi
) -> None:
    machine.toggle_intercept(observing(3))
    for number in range(1, MOST + 6):
        written(xen, number)
    end = time.monotonic() + 20
    first = heard(machine)
    while first.lost < 5 and time.monotonic() < end:  # the last ones were still in the ring
        following = heard(machine)
        first = Event(0, first.kind, 0, new_value=following.new_value, lost=first.lost + following.lost)
    assert (first.lost, first.new_value > 5) == (5, True)


def test_who_listens_is_woken_by_what_the_thread_takes(xen: Simulator, machine: Microvmi) -> None:
    """A wait that nobody ends takes 0.1 s, of which the guest leaves most."""
    machine.toggle_intercept(observing(3))
    took = []
    for number in range(1, 11):
        threading.Timer(0.01, written, (xen, number)).start()
        start = time.monotonic()
        assert heard(machine).new_value == number
        took.append(time.monotonic() - start)
    assert min(took) < 0.06


def test_who_observes_sees_what_others_stop_at(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(observing(3))
    written(xen, 1)
    machine.toggle_intercept(CR3)
    written(xen, 2)
    machine.toggle_intercept(observing(4))
    written(xen, 9, index=2)
    told = [heard(machine) for _ in range(4)]
    standing = [event for event in told if event.stands is Stands.VCPU]
    assert [event.new_value for event in standing] == [2]
    assert [event.new_value for event in told if event.stands is Stands.NOTHING] == [1, 2, 9]
    assert (xen.get("stopped"), xen.get("armed"), xen.get("paused")) == (1, 2, 0)
    machine.reply_event(standing[0])
    machine.toggle_intercept(CR3, False)
    written(xen, 3)
    assert (heard(machine).new_value, xen.get("stopped")) == (3, 0)


def test_what_nobody_observes_any_more_is_not_told_and_nobody_takes(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(observing(3))
    machine.toggle_intercept(CR4)
    assert settled(["libmicrovmi-xen"])
    for number in range(1, 21):
        written(xen, number)
    machine.toggle_intercept(observing(3), False)
    assert settled([])
    assert (machine.listen(0), xen.get("armed")) == (None, 1)


def test_closing_ends_it(xen: Simulator) -> None:
    with xen.open() as machine:
        machine.toggle_intercept(observing(3))
        written(xen, 1)
    assert settled([])
    assert (xen.get("enabled"), xen.get("armed")) == (0, 0)


def test_it_is_for_all_vcpus(machine: Microvmi) -> None:
    with pytest.raises(NotSupportedError, match="name all of them"):
        machine.toggle_intercept(observing(3), vcpu=1)
