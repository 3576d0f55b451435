# SPDX-License-Identifier: Apache-2.0
"""Real machines as they are listed: running, paused, held by another client, of another user, without a monitor."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from transport.other_user import run_as_nobody

from libmicrovmi_py import ListedMachine, MachineState, Microvmi, MicrovmiError, list_vms
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.drivers.qemu import inquiry

from .firmware import Firmware, firmware, free_ports, need_root, new_name, open_folder
from .monitor import Monitor

MIB = 1 << 20
OPEN_ONLY = Ability.MAP | Ability.EVENTS
UUID = "0f9c4b3e-1111-4222-8333-444455556666"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user can enter and write."""
    with open_folder() as path:
        yield path


def qmp(path: Path) -> tuple[str, ...]:
    return "-qmp", f"unix:{path},server=on,wait=off"


@contextmanager
def three(folder: Path) -> Iterator[list[Firmware]]:
    """A machine that runs, one that stands, one whose monitor somebody else holds."""
    more = [("-smp", "2", "-uuid", UUID), ("-S",), ("-smp", "3")]
    with ExitStack() as stack:
        yield [
            stack.enter_context(firmware(folder, *qmp(folder / f"q{number}"), *options, mib=64 << number))
            for number, options in enumerate(more)
        ]


def listed(pid: int, state: MachineState | None = None) -> ListedMachine:
    """The machine in that process. In that state: as soon as it is, as a busy host may not answer in time."""
    end = time.monotonic() + 20
    while True:
        (found,) = [machine for machine in list_vms("qemu") if machine.process_id == pid]
        if state in (None, found.state) or time.monotonic() > end:
            assert state in (None, found.state), found
            return found


def opening(uri: str) -> str:
    with pytest.raises(MicrovmiError) as caught:
        Microvmi.open(uri)
    return str(caught.value)


def test_three_machines_are_told_as_they_are(folder: Path) -> None:
    with three(folder) as (running, paused, busy), Monitor(folder / "q2").held():
        ran, stood = listed(running.pid, MachineState.RUNNING), listed(paused.pid, MachineState.PAUSED)
        held = listed(busy.pid, MachineState.UNKNOWN)
        assert [(one.memory // MIB, one.vcpus) for one in (ran, stood, held)] == [(64, 2), (128, 1), (256, 3)]
        assert (ran.uuid, ran.user_id, ran.reason) == (UUID, os.geteuid(), "")
        assert (held.abilities, held.reason) == (0, opening(f"{held.uri}&timeout=0.5"))
        for one, guest in ((ran, running), (stood, paused)):
            with Microvmi.open(one.uri) as machine:
                assert one.abilities == machine.abilities.can & ~OPEN_ONLY
                assert machine.vcpu_count() == one.vcpus
            assert one.name == guest.name
        assert running.runs()
        assert not paused.runs()


def test_a_machine_whose_process_is_stopped_is_told_so_at_once(folder: Path) -> None:
    with firmware(folder, *qmp(folder / "q")) as guest:
        os.kill(guest.pid, signal.SIGSTOP)
        try:
            before = time.monotonic()
            machine = listed(guest.pid)
            assert time.monotonic() - before < inquiry.ALL + 1.0
            assert (machine.state, machine.memory) == (MachineState.OTHER, 64 * MIB)
            assert machine.reason == opening(f"{machine.uri}&timeout=0.2")
        finally:
            os.kill(guest.pid, signal.SIGCONT)
        assert listed(guest.pid, MachineState.RUNNING)


def test_a_machine_without_a_monitor_is_told_with_what_there_is(folder: Path) -> None:
    with firmware(folder, "-monitor", "none", "-no-user-config", human=False, mib=80) as guest:
        wait_for_memory(guest.pid)
        machine = listed(guest.pid)
        assert (machine.memory, machine.vcpus) == (80 * MIB, 1)
        with Microvmi.open(machine.uri) as opened:
            assert opened.max_addr == 80 * MIB
            assert machine.abilities == opened.abilities.can & ~Ability.MAP
            assert "without a monitor there is the memory alone" in machine.reason


def wait_for_memory(pid: int) -> None:
    """A QEMU that has no monitor tells nobody that it is up."""
    deadline = time.monotonic() + 20
    while not listed(pid).abilities and time.monotonic() < deadline:
        time.sleep(0.05)


LIST_AS_NOBODY = """
import json
from libmicrovmi_py import Microvmi, MicrovmiError, list_vms
from libmicrovmi_py.transport.native import native
native(), list_vms()
become_nobody()
(one,) = [machine for machine in list_vms() if machine.process_id == {pid}]
try:
    error = ""
    Microvmi.open(one.uri + "&timeout=1").close()
except MicrovmiError as err:
    error = str(err)
print(json.dumps([one.name, one.user_id, int(one.abilities), int(one.state), one.memory, one.reason, error]))
"""


@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_another_user_is_told_why_he_may_not(folder: Path, mode: int) -> None:
    need_root("another user's view")
    with firmware(folder, *qmp(folder / "q")) as guest:
        (folder / "q").chmod(mode)
        told = json.loads(run_as_nobody(LIST_AS_NOBODY.format(pid=guest.pid)))
    name, user, abilities, state, memory, reason, error = told
    assert (name, user, memory) == (guest.name, 0, 64 * MIB)
    assert "denied" in reason or "refused" in reason
    if mode == 0o700:
        assert (reason, abilities, state) == (error, 0, MachineState.UNKNOWN)
    else:
        assert reason == error
        assert state == MachineState.RUNNING


def test_monitors_of_every_kind_are_asked(folder: Path) -> None:
    port = free_ports(1)
    device = f"socket,id=c,path={folder}/t,server=on,wait=off,telnet=on"
    kinds = [
        ("-chardev", device, "-mon", "chardev=c,mode=control"),
        ("-qmp", f"telnet:127.0.0.1:{port},server=on,wait=off"),
        ("-qmp-pretty", f"unix:{folder}/p,server=on,wait=off"),
    ]
    for options in kinds:
        with firmware(folder, "-S", *options) as guest:
            assert listed(guest.pid, MachineState.PAUSED), options


def test_two_machines_of_one_name_are_told_apart(folder: Path) -> None:
    name = new_name("twin")
    with firmware(folder, "-S", *qmp(folder / "a"), name=name) as first:
        with firmware(folder, "-S", *qmp(folder / "b"), name=name, mib=128) as second:
            uris = [listed(guest.pid).uri for guest in (first, second)]
            assert [Microvmi.open(uri).max_addr // MIB for uri in uris] == [64, 128]
        assert listed(first.pid).uri == f"vmi://qemu/?vm_name={name}"
        assert "ended: list them anew" in opening(uris[1])


def test_listing_all_the_time_disturbs_neither_the_guest_nor_another_client(folder: Path) -> None:
    with firmware(folder, *qmp(folder / "q")) as guest:
        monitor = Monitor(folder / "q")
        for _ in range(50):
            list_vms("qemu")
            assert monitor.execute("query-status")["running"]
        assert guest.runs()
