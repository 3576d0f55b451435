# SPDX-License-Identifier: Apache-2.0
"""Writes of CR3 that are told while nothing stops: all of them, by what the guest counts, and QEMU's log as it was."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.qemu.loglevel import logs
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError, NotSupportedError
from libmicrovmi_py.events import UNKNOWN_VCPU, EventKind, Intercept, InterceptFlag, Stands
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.watcher import Job, Watcher

from .counting import LONG
from .firmware import need_qemu
from .guest import Boot, Config, Guest
from .switching import SECONDS, Switcher, changes_between_two, switching_guest
from .watchers import watchers_of

OBSERVE = Intercept(EventKind.CR, 3, flags=InterceptFlag.OBSERVE)
TURNS = 50_000 if LONG else 20_000

LINES = 1_500_000
"""More than wait in the program, and on the way to us."""
RECORD = struct.Struct("=QII")
END = RECORD.pack(0x8005_0033, 0, 0)

OBSERVER = """
import sys
from libmicrovmi_py import Microvmi
from libmicrovmi_py.events import EventKind, Intercept, InterceptFlag
with Microvmi.open(sys.argv[1]) as machine:
    machine.toggle_intercept(Intercept(EventKind.CR, 3, flags=InterceptFlag.OBSERVE))
    print("now", flush=True)
    while sys.argv[2] == "listens":
        machine.listen(1)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def switching(boot: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with switching_guest(boot, tmp_path_factory.mktemp("observe")) as guest:
        yield guest


@pytest.fixture
def pair(switching: Guest) -> Iterator[Switcher]:
    """That of vCPU 0; QEMU's log and descriptors are the same before and after."""
    process, before = Process.find(switching.pid), (switching.monitor.execute("query-fdsets"), marks(switching))
    assert process
    assert not logs(process)
    pair = Switcher(switching, 0)
    yield pair
    pair.close()
    assert not logs(process)
    assert (switching.monitor.execute("query-fdsets"), marks(switching)) == before
    assert switching.monitor.status() == "running"
    await_end(switching)


def marks(guest: Guest) -> list[str]:
    """Names of character devices of ours."""
    labels = [item["label"] for item in guest.monitor.execute("query-chardev")]
    return [label for label in labels if label.startswith("microvmi")]


def observed(machine: Microvmi, pair: Switcher) -> tuple[list[int], int]:
    """The values told until the turns are over, and how many were lost."""
    values, lost, quiet = [], 0, False
    while not quiet:
        done = pair.done
        event = machine.listen(0.05)
        if event is not None:
            assert (event.kind, event.vcpu, event.number) == (EventKind.CR, UNKNOWN_VCPU, 3)
            assert event.stands is Stands.NOTHING
            values.append(event.new_value)
            lost += event.lost
        quiet = done and event is None
    return values, lost


def test_every_write_is_told_and_nothing_stops(switching: Guest, pair: Switcher) -> None:
    with Microvmi.open(switching.uri) as machine:
        machine.toggle_intercept(OBSERVE)
        process = Process.find(switching.pid)
        assert process
        assert logs(process)
        before = pair.turns
        pair.order(TURNS)
        values, lost = observed(machine, pair)
        assert lost == 0
        assert changes_between_two(values) == pair.turns - before >= TURNS
        machine.toggle_intercept(OBSERVE, False)
        assert machine.listen(0) is None


def test_an_event_that_waits_for_no_answer_cannot_be_answered(switching: Guest, pair: Switcher) -> None:
    with Microvmi.open(switching.uri) as machine:
        machine.toggle_intercept(OBSERVE)
        pair.order(10)
        event = machine.listen(SECONDS)
        assert event is not None
        with pytest.raises(InvalidArgumentError, match="not open"):
            machine.reply_event(event)
        with pytest.raises(NotSupportedError, match="CR4"):
            machine.toggle_intercept(Intercept(EventKind.CR, 4, flags=InterceptFlag.OBSERVE))


def test_the_guest_goes_on_while_who_observes_stands(switching: Guest, pair: Switcher) -> None:
    command = [sys.executable, "-c", OBSERVER, switching.uri, "listens"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout
            assert program.stdout.readline() == "now\n"
            program.send_signal(signal.SIGSTOP)
            pair.order(TURNS)
            pair.await_done()
        finally:
            program.send_signal(signal.SIGCONT)
            program.terminate()
    await_end(switching)


@pytest.mark.parametrize("habit", ["listens", "sleeps"])
def test_sigkill_ends_the_log(switching: Guest, pair: Switcher, habit: str) -> None:
    command = [sys.executable, "-c", OBSERVER, switching.uri, habit]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout
            assert program.stdout.readline() == "now\n"
            pair.order(TURNS)
        finally:
            program.kill()
    await_end(switching)
    pair.await_done()


def test_the_next_observer_ends_what_nobody_could(switching: Guest, pair: Switcher) -> None:
    """The watcher was killed as well: the guest runs on all the same."""
    command = [sys.executable, "-c", OBSERVER, switching.uri, "sleeps"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdout.readline() == "now\n"
        with Microvmi.open(switching.uri) as machine, pytest.raises(DriverUnavailableError, match="another program"):
            machine.toggle_intercept(OBSERVE)
        for pid in watchers_of(switching.pid):
            subprocess.run(["kill", "-KILL", str(pid)], check=True)
        program.kill()
    pair.order(TURNS)
    pair.await_done()
    with Microvmi.open(switching.uri) as machine:
        machine.toggle_intercept(OBSERVE)
        pair.order(10)
        assert machine.listen(SECONDS) is not None


def await_end(guest: Guest) -> None:
    process, deadline = Process.find(guest.pid), time.monotonic() + SECONDS
    assert process
    while logs(process) or marks(guest) or watchers_of(guest.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_log_of_somebody_else_is_not_taken(switching: Guest, pair: Switcher) -> None:
    switching.monitor.human("log guest_errors")
    try:
        with Microvmi.open(switching.uri) as machine, pytest.raises(DriverUnavailableError, match="somebody uses"):
            machine.toggle_intercept(OBSERVE)
        process = Process.find(switching.pid)
        assert process
        assert logs(process)
    finally:
        switching.monitor.human("log none")


def test_what_finds_no_room_is_counted() -> None:
    """The program that reads the log, a pipe of ours in place of it, and nobody who takes what it hands on."""
    process = Process.find(os.getpid())
    assert process
    watcher, (read, write) = Watcher(Job.OBSERVE), os.pipe()
    watcher.start(None, process, read)
    os.close(read)
    watcher.connection.sendall(b"1 /dev/null\n")
    line = "2026-11-26T08:00:00Z CR3 update: CR3=%016x\n"
    for first in range(0, LINES, 1000):
        os.write(write, b"nothing\n" + "".join(line % value for value in range(first, first + 1000)).encode())
    data = bytearray()
    watcher.connection.settimeout(0.2)
    while len(data) % RECORD.size or not data.endswith(END):
        try:
            data += watcher.connection.recv(1 << 20)
        except TimeoutError:  # all that was written has found room, or none
            os.write(write, b"CR0 update: CR0=0x80050033\n")
    os.close(write)
    expected = missed = 0
    for value, number, lost in RECORD.iter_unpack(data):
        expected, missed = expected + lost, missed + lost
        if expected == LINES:
            assert (value, number) == (0x8005_0033, 0)
            break
        assert (value, number) == (expected, 3)
        expected += 1
    assert expected == LINES
    assert missed > 0
    watcher.end()


@pytest.mark.parametrize(
    ("option", "value"), [("-d", "unimp"), ("-D", "/dev/null"), ("-trace", "nothing_of_that_name")]
)
def test_a_log_of_the_command_line_is_not_taken(option: str, value: str) -> None:
    need_qemu()
    with (
        Guest(Config("private", 16), options=(option, value)) as guest,
        Microvmi.open(guest.uri) as machine,
        pytest.raises(DriverUnavailableError, match=f"somebody uses.*{option}"),
    ):
        machine.toggle_intercept(OBSERVE)
