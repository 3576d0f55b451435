# SPDX-License-Identifier: Apache-2.0
"""Writes of CR3 that are told while the guest runs on: none missed without a word, nothing stands, nothing is left."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time

import layout

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.events import Event, EventKind, Intercept, InterceptFlag, Stands

CR3 = Intercept(EventKind.CR, 3)
OBSERVED = Intercept(EventKind.CR, 3, flags=InterceptFlag.OBSERVE)
ROOTS = {layout.TABLES_ADDRESS, layout.OTHER_ROOT_ADDRESS}


def count(machine: Microvmi) -> int:
    return int.from_bytes(machine.read_physical(layout.COUNTER_ADDRESS, 8), "little")


def counts(machine: Microvmi, seconds: float = 10.0) -> bool:
    """Whether the guest's counter moves within ``seconds``."""
    start, end = count(machine), time.monotonic() + seconds
    while count(machine) == start:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def rate(machine: Microvmi) -> float:
    """Rounds of the guest in a second, of which each writes CR3."""
    start, begin = count(machine), time.monotonic()
    time.sleep(1)
    return (count(machine) - start) / (time.monotonic() - begin)


def listened(machine: Microvmi, events: int) -> list[Event]:
    told = []
    for _ in range(events):
        event = machine.listen(20)
        assert event is not None
        told.append(event)
    return told


def check_none_is_missed(machine: Microvmi) -> None:
    """The guest writes two roots in turn, so each write goes on where the one before ended."""
    machine.toggle_intercept(OBSERVED)
    told = listened(machine, 100)
    assert {(event.vcpu, event.number, event.stands, event.lost) for event in told} == {(0, 3, Stands.NOTHING, 0)}
    assert all(new.old_value == old.new_value for old, new in itertools.pairwise(told))
    assert {event.new_value for event in told} == ROOTS
    try:
        machine.reply_event(told[0])
    except InvalidArgumentError as err:
        print(err)
    else:
        raise AssertionError("an answer that nobody waits for")


def check_nothing_stands_while_nobody_listens(machine: Microvmi) -> float:
    """Many times as many writes as the ring has room for."""
    observed, start, end = rate(machine), count(machine), time.monotonic() + 20
    while count(machine) < start + 20:
        assert time.monotonic() < end, "the guest stands"
        time.sleep(0.05)
    return observed


def check_who_observes_sees_the_stops(machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    while (standing := listened(machine, 1)[0]).stands is Stands.NOTHING:
        pass
    assert not counts(machine, 0.5)
    machine.reply_event(standing)
    machine.toggle_intercept(CR3, False)
    assert counts(machine)


def stopped_rate(machine: Microvmi) -> float:
    """The same with a listener that stops the guest at each write and answers."""
    machine.toggle_intercept(CR3)
    start, begin = count(machine), time.monotonic()
    while time.monotonic() < begin + 1:
        machine.reply_event(listened(machine, 1)[0])
    told = (count(machine) - start) / (time.monotonic() - begin)
    machine.toggle_intercept(CR3, False)
    return told


def victim() -> None:
    machine = Microvmi("tiny", driver="xen")
    machine.toggle_intercept(OBSERVED)
    listened(machine, 20)
    os.kill(os.getpid(), signal.SIGKILL)


def check_a_dead_observer(machine: Microvmi) -> None:
    """The ring fills, and the guest stands for want of room, until somebody puts the dead one aside."""
    done = subprocess.run([sys.executable, __file__, "victim"], timeout=50)
    assert done.returncode == -signal.SIGKILL
    time.sleep(0.5)
    assert not counts(machine, 0.5)
    machine.resume()
    assert counts(machine)


if sys.argv[1:] == ["victim"]:
    victim()
with Microvmi("tiny", driver="xen") as opened:
    alone = rate(opened)
    check_none_is_missed(opened)
    seen = check_nothing_stands_while_nobody_listens(opened)
    check_who_observes_sees_the_stops(opened)
    opened.toggle_intercept(OBSERVED, False)
    assert counts(opened)
    stopped = stopped_rate(opened)
    print(f"figure: {alone:.0f} rounds/s alone, {seen:.0f} observed, {stopped:.0f} stopped at each write")
with Microvmi("tiny", driver="xen") as opened:
    check_a_dead_observer(opened)
    opened.toggle_intercept(OBSERVED)
    assert counts(opened)
with Microvmi("tiny", driver="xen") as opened:
    assert counts(opened)
