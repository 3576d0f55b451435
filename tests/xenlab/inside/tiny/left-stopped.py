# SPDX-License-Identifier: Apache-2.0
"""A domain that others left stopped, by pauses or by a listener that died, runs again after a resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import layout

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.events import Event, EventKind, Intercept, Reply, ReplyAction

CR4 = Intercept(EventKind.CR, 4)
SYSENTER_CS = Intercept(EventKind.MSR, layout.MSR_SYSENTER_CS)


def counts(machine: Microvmi, seconds: float = 10.0) -> bool:
    """Whether the guest's counter moves within ``seconds``."""

    def now() -> int:
        return int.from_bytes(machine.read_physical(layout.COUNTER_ADDRESS, 8), "little")

    start, end = now(), time.monotonic() + seconds
    while now() == start:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def heard(machine: Microvmi) -> Event:
    event = machine.listen(20)
    assert event is not None
    return event


def victim() -> None:
    machine = Microvmi("tiny", driver="xen")
    machine.toggle_intercept(CR4)
    heard(machine)
    os.kill(os.getpid(), signal.SIGKILL)


def check_pauses_of_others(machine: Microvmi) -> None:
    for _ in range(3):
        subprocess.run(["xl", "pause", "tiny"], check=True, timeout=30)
    assert not counts(machine, 0.5)
    machine.pause()
    machine.resume()
    assert counts(machine)


def check_a_dead_listener(machine: Microvmi) -> None:
    done = subprocess.run([sys.executable, __file__, "victim"], timeout=50)
    assert done.returncode == -signal.SIGKILL
    assert not counts(machine, 0.5)
    machine.resume()
    assert counts(machine)


def check_a_live_listener(machine: Microvmi) -> None:
    """It is left alone, by an intercept and by a resume."""
    machine.toggle_intercept(CR4)
    with Microvmi("tiny", driver="xen") as second:
        try:
            second.toggle_intercept(SYSENTER_CS)
        except DriverUnavailableError as err:
            print(err)
        else:
            raise AssertionError("there are two listeners")
        second.resume()
    machine.reply_event(heard(machine))
    machine.toggle_intercept(CR4, False)
    assert counts(machine)


def check_an_msr_is_denied_and_tried_again(machine: Microvmi) -> None:
    machine.toggle_intercept(SYSENTER_CS)
    first = heard(machine)
    machine.reply_event(first, Reply(ReplyAction.RETRY))
    again = heard(machine)
    assert (again.old_value, again.new_value) == (first.old_value, first.new_value)
    machine.reply_event(again, Reply(ReplyAction.DENY))
    following = heard(machine)
    assert following.old_value == first.old_value
    assert following.new_value != first.new_value
    machine.reply_event(following)
    machine.toggle_intercept(SYSENTER_CS, False)
    assert counts(machine)


if sys.argv[1:] == ["victim"]:
    victim()
with Microvmi("tiny", driver="xen") as opened:
    check_pauses_of_others(opened)
    check_a_dead_listener(opened)
    check_a_live_listener(opened)
    check_an_msr_is_denied_and_tried_again(opened)
with Microvmi("tiny", driver="xen") as opened:
    assert counts(opened)
