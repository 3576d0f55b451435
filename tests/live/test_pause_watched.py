# SPDX-License-Identifier: Apache-2.0
"""A machine that is paused with ``watch=on`` runs again if the process that paused it is killed, and only then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import InvalidArgumentError, NotSupportedError

from .counting import counting, numbers
from .firmware import firmware, need_qemu
from .tiny import Tiny, wait_for
from .victims import STANDS, started
from .watchers import watchers_of

MIB = 16

PAUSES = """
import sys
from libmicrovmi_py import Microvmi
vm = Microvmi.open(sys.argv[1] + sys.argv[2])
vm.pause()
"""

COPIES = """
import sys
from libmicrovmi_py import Microvmi
def stall(done, total):
    if vm.driver.run_state().phase.name == "STOPPED":
        print("now", flush=True)
        sys.stdin.readline()
vm = Microvmi.open(sys.argv[1] + sys.argv[2])
vm.snapshot(pause_only=True, progress=stall)
"""


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """One that counts."""
    need_qemu()
    with counting(tmp_path_factory.mktemp("paused"), MIB) as guest:
        yield guest


def check_runs(guest: Tiny) -> None:
    guest.until("running")
    with Microvmi.open(guest.uri) as vm:
        seen = numbers(vm.read_physical, MIB)
        wait_for(lambda: numbers(vm.read_physical, MIB) != seen, "a guest that runs")
    wait_for(lambda: not watchers_of(guest.process.pid), "an end of the watcher")


def test_of_a_killed_program_that_asked_for_it_the_machine_runs(guest: Tiny) -> None:
    with started(PAUSES + STANDS, [guest.uri, "&watch=on"]) as victim:
        assert guest.status() == "paused"
        (pid,) = watchers_of(guest.process.pid)
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
        victim.kill()
    check_runs(guest)


def test_of_one_that_did_not_it_stands(guest: Tiny) -> None:
    with started(PAUSES + STANDS, [guest.uri, ""]) as victim:
        assert not watchers_of(guest.process.pid)
        victim.kill()
    assert guest.status() == "paused"
    guest.monitor.execute("cont")


@pytest.mark.parametrize("who", ["we", "others"])
def test_what_runs_again_is_not_ours_any_more(guest: Tiny, who: str) -> None:
    with Microvmi.open(f"{guest.uri}&watch=on") as vm:
        vm.pause()
        assert watchers_of(guest.process.pid)
        if who == "others":
            guest.monitor.execute("cont")
        vm.resume()
        wait_for(lambda: not watchers_of(guest.process.pid), "an end of the watcher")
        guest.monitor.execute("stop")
    assert guest.status() == "paused"
    guest.monitor.execute("cont")


def test_a_snapshot_that_pauses_is_watched_over_too(guest: Tiny) -> None:
    with started(COPIES, [guest.uri, "&watch=on"]) as victim:
        assert guest.status() == "paused"
        victim.kill()
    check_runs(guest)


def test_a_machine_that_stood_before_stands_on(guest: Tiny) -> None:
    guest.monitor.execute("stop")
    with started(PAUSES + STANDS, [guest.uri, "&watch=on"]) as victim:
        assert not watchers_of(guest.process.pid)
        victim.kill()
    assert guest.status() == "paused"
    guest.monitor.execute("cont")


def test_another_word_than_on_and_off_is_told(guest: Tiny) -> None:
    with pytest.raises(InvalidArgumentError, match="watch=yes: on or off"):
        Microvmi.open(f"{guest.uri}&watch=yes")


def test_a_monitor_by_tcp_cannot_be_handed_on(tmp_path: Path) -> None:
    with firmware(tmp_path, "-qmp", "tcp:127.0.0.1:0,server=on,wait=off") as guest:
        vm = Microvmi.open(f"vmi://qemu/?vm_name={guest.name}&watch=on")
        with vm, pytest.raises(NotSupportedError, match="watch=on: a monitor"):
            vm.pause()
        assert guest.runs()
