# SPDX-License-Identifier: Apache-2.0
"""Clients that are killed, and leave breakpoints in the machine; and clients that live, whose breakpoints stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from drivers.virtualbox.simulator import MOV_CR3, PLACED, SHM, Simulator
from needs import missing

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.virtualbox.driver import OpenMachine
from libmicrovmi_py.drivers.virtualbox.owner import has_one_other, may_have
from libmicrovmi_py.events import EventKind, Intercept
from libmicrovmi_py.transport.processes import Process

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534

RBX = 1
PAUSED, AT_BREAKPOINT = 1, 3
BREAKPOINT = Intercept(EventKind.BREAKPOINT, address=MOV_CR3)
CR3 = Intercept(EventKind.CR, 3)

CLIENT = f"""
import os, signal, sys
from libmicrovmi_py import Microvmi
from libmicrovmi_py.events import EventKind, Intercept
BREAKPOINT = Intercept(EventKind.BREAKPOINT, address={MOV_CR3})
MSR = Intercept(EventKind.MSR, 0xC0000082)
CR3 = Intercept(EventKind.CR, 3)
machine = Microvmi.open(sys.argv[1])
"""
TOLD = "machine.toggle_intercept({}); assert machine.listen(5) is not None"
UNTOLD = "machine.toggle_intercept(BREAKPOINT)"
NOT_HIT = "machine.pause(); machine.toggle_intercept(BREAKPOINT)"
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
STAYS = "print('ready', flush=True); sys.stdin.read(); machine.close()"


def command(vm: Simulator, *lines: str) -> list[str]:
    return [sys.executable, "-c", CLIENT + "\n".join(lines), vm.uri]


def killed(vm: Simulator, does: str) -> None:
    """A client does that, and is killed."""
    ended = subprocess.run(command(vm, does, KILLED), env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.returncode == -signal.SIGKILL


@contextmanager
def living(vm: Simulator, does: str) -> Iterator[None]:
    """A client that did that and has the machine open."""
    with subprocess.Popen(
        command(vm, does, STAYS),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            assert client.stdout.readline() == "ready\n"
            yield
        finally:
            client.stdin.close()
    assert client.returncode == 0


def comes_to(vm: Simulator, state: int) -> bool:
    end = time.monotonic() + 5
    while vm.state() != state and time.monotonic() < end:
        time.sleep(0.005)
    return vm.state() == state


def runs_on(vm: Simulator) -> bool:
    """Whether the guest goes round many times while nobody does anything."""
    before, end = vm.register(RBX), time.monotonic() + 5
    while vm.register(RBX) < before + 50 and time.monotonic() < end:
        time.sleep(0.005)
    return vm.register(RBX) >= before + 50 and vm.state() == 0


@pytest.mark.parametrize(
    ("does", "state"),
    [
        (TOLD.format("BREAKPOINT"), AT_BREAKPOINT),
        (TOLD.format("MSR"), AT_BREAKPOINT),
        (TOLD.format("CR3"), AT_BREAKPOINT),
        (UNTOLD, AT_BREAKPOINT),
        (NOT_HIT, PAUSED),
    ],
)
def test_after_a_client_that_was_killed_a_resume_lets_the_guest_run_on(vm: Simulator, does: str, state: int) -> None:
    killed(vm, does)
    assert comes_to(vm, state)
    assert vm.msr(PLACED) == 1
    with Microvmi.open(vm.uri) as machine:
        assert vm.state() == state
        machine.resume()
        assert runs_on(vm)
        assert vm.msr(PLACED) == 0


def test_a_breakpoint_that_is_hit_when_its_client_is_long_dead_stops_the_guest_until_a_resume(vm: Simulator) -> None:
    killed(vm, NOT_HIT)
    with Microvmi.open(vm.uri) as machine:
        vm.order("FDP_Resume")
        assert comes_to(vm, AT_BREAKPOINT)
        machine.pause()
        machine.resume()
        assert runs_on(vm)


def test_a_resume_leaves_our_own_breakpoints(vm: Simulator) -> None:
    with Microvmi.open(vm.uri) as machine:
        machine.pause()
        machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=0x6000))
        machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=0x6001))
        machine.resume()
        killed(vm, TOLD.format("BREAKPOINT"))
        assert vm.msr(PLACED) == 3
        machine.resume()
        assert runs_on(vm)
        assert vm.msr(PLACED) == 2


def test_the_first_intercept_puts_a_client_aside_that_was_killed_at_a_stop(vm: Simulator) -> None:
    killed(vm, TOLD.format("BREAKPOINT"))
    with Microvmi.open(vm.uri) as machine:
        machine.toggle_intercept(CR3)
        for _ in range(3):
            event = machine.listen(5)
            assert event is not None
            assert event.kind is EventKind.CR
            machine.reply_event(event)
        assert vm.msr(PLACED) == 1
    assert runs_on(vm)


def test_after_a_listener_that_was_killed_the_guest_runs_on(vm: Simulator) -> None:
    """A place has one breakpoint, whoever placed it, so it goes with the next one's."""
    killed(vm, TOLD.format("BREAKPOINT"))
    assert vm.state() & PAUSED
    with Microvmi.open(vm.uri) as machine:
        machine.toggle_intercept(BREAKPOINT)
        machine.toggle_intercept(BREAKPOINT, False)
        machine.resume()
        assert runs_on(vm)


def test_only_who_asks_for_it_puts_clients_aside(vm: Simulator) -> None:
    killed(vm, TOLD.format("BREAKPOINT"))
    with Microvmi.open(vm.uri) as machine:
        machine.pause()
        driver = machine.driver
        assert isinstance(driver, OpenMachine)
        driver.run(whoever=False)
        assert comes_to(vm, AT_BREAKPOINT)
    assert vm.state() == AT_BREAKPOINT
    assert vm.msr(PLACED) == 1


@pytest.mark.parametrize("place", [CR3, None])
def test_the_breakpoint_of_a_client_that_lives_stays(vm: Simulator, place: Intercept | None) -> None:
    with living(vm, TOLD.format("BREAKPOINT")), Microvmi.open(vm.uri) as machine:
        for _ in range(3):
            if place:
                machine.toggle_intercept(place)
                machine.toggle_intercept(place, False)
            machine.resume()
            assert comes_to(vm, AT_BREAKPOINT)
            assert vm.msr(PLACED) == 1


def test_a_client_that_lives_keeps_what_is_there(vm: Simulator) -> None:
    """Nobody knows whose a breakpoint is."""
    killed(vm, TOLD.format("BREAKPOINT"))
    with Microvmi.open(vm.uri) as machine:
        with living(vm, "pass"):
            machine.resume()
            assert comes_to(vm, AT_BREAKPOINT)
            assert vm.msr(PLACED) == 1
        machine.resume()
        assert runs_on(vm)


def test_another_opening_of_the_same_program_keeps_its_breakpoint(vm: Simulator) -> None:
    with Microvmi.open(vm.uri) as listener, Microvmi.open(vm.uri) as machine:
        listener.toggle_intercept(BREAKPOINT)
        assert listener.listen(5) is not None
        machine.resume()
        assert comes_to(vm, AT_BREAKPOINT)
        assert vm.msr(PLACED) == 1


# ------------------------------------------------------------------------------------------- who has it mapped


def test_a_machine_is_not_ours_alone_where_not_every_process_shows(vm: Simulator) -> None:
    first, player = Process.find(1), Process.find(vm.process.pid)
    assert first is not None
    assert player is not None
    status = (SHM / vm.name).stat()
    assert has_one_other(status, [first, player])
    assert not has_one_other(status, [player])
    assert not has_one_other(status, [first])


UNSEEN = """
import os, sys
sys.path.insert(0, sys.argv[1])
from libmicrovmi_py.drivers.virtualbox.driver import OpenMachine
from libmicrovmi_py.drivers.virtualbox.owner import may_have
from libmicrovmi_py.transport.processes import Process
path, pids = sys.argv[2], [int(pid) for pid in sys.argv[3:]]
status = os.stat(path)
processes = [Process.find(pid) for pid in pids]
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
print(*[may_have(process, status) for process in processes])
"""


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o600, "True False True"), (0o620, "True True True"), (0o644, "True False True")]
)
def test_a_process_that_cannot_be_looked_into_counts_if_its_user_can_open_the_object(
    tmp_path: Path, mode: int, expected: str
) -> None:
    if os.getuid() != 0:
        missing("acts as other users; to enable: run as root")
    path = tmp_path / "object"
    path.write_bytes(b"")
    os.chown(path, NOBODY - 1, NOBODY - 1)
    path.chmod(mode)
    sleepers = [subprocess.Popen(["sleep", "60"], user=user) for user in (NOBODY - 1, NOBODY - 2, 0)]
    try:
        pids = [str(sleeper.pid) for sleeper in sleepers]
        told = subprocess.run(
            [sys.executable, "-c", UNSEEN, str(ROOT), str(path), *pids], capture_output=True, text=True, check=True
        )
        assert told.stdout.strip() == expected
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def test_a_process_that_can_be_looked_into_counts_if_it_has_the_object_mapped(vm: Simulator) -> None:
    first, player = Process.find(1), Process.find(vm.process.pid)
    assert first is not None
    assert player is not None
    status = (SHM / vm.name).stat()
    assert may_have(player, status)
    assert not may_have(first, status)
