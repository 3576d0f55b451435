# SPDX-License-Identifier: Apache-2.0
"""Events beside others who debug the machine, pause it, or listen to it: they keep what they have, and are told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tools.gdb.remote import Client

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import DriverUnavailableError, MicrovmiError
from libmicrovmi_py.events import EventKind, Intercept, PageAccess

from .guest import Guest
from .looping import COUNTER, LOOP, looping, turns, wait_for_turns

TURN = Intercept(EventKind.BREAKPOINT, address=LOOP)
NEVER = Intercept(EventKind.BREAKPOINT, address=0x9000)
COUNTED = Intercept(EventKind.VIRTUAL_ACCESS, address=COUNTER, size=4, access=PageAccess.WRITE)
STEP = Intercept(EventKind.SINGLE_STEP)
COMMAND = (sys.executable, "-m", "libmicrovmi_py.command")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def loop(boot: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One guest for all tests."""
    with looping(tmp_path_factory.mktemp("loop")) as guest:
        yield guest


@pytest.fixture
def guest(loop: Guest) -> Iterator[Guest]:
    """It runs before every test and after it, and nobody has its stub."""
    assert (loop.monitor.status(), stubs(loop)) == ("running", set())
    yield loop
    assert stubs(loop) == set()
    assert loop.monitor.status() == "running"
    wait_for_turns(loop)


def stubs(guest: Guest) -> set[str]:
    """The character devices that are neither a monitor's nor a console's."""
    labels = {item["label"] for item in guest.monitor.execute("query-chardev")}
    return {label for label in labels if label[0] != "#" and not label.startswith(("compat_monitor", "serial", "par"))}


def heard(machine: Microvmi, number: int = 3) -> None:
    """So many events, answered."""
    for _ in range(number):
        event = machine.listen(20)
        assert event is not None
        machine.reply_event(event)


def path_of(guest: Guest) -> str:
    return f"{guest.directory}/gdb"


@contextmanager
def users_stub(guest: Guest) -> Iterator[str]:
    """A stub that the user opened by hand; where it listens."""
    guest.monitor.human(f"gdbserver unix:{path_of(guest)},server=on,wait=off")
    try:
        yield path_of(guest)
    finally:
        guest.monitor.human("gdbserver none")
        Path(path_of(guest)).unlink(missing_ok=True)


class Debugger(Client):
    """A debugger that has just connected, as gdb does, to QEMU's own stub: the machine stands."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.acknowledges = False  # the next packet does
        self.ask(b"qSupported:multiprocess-")
        self.ask(b"?")

    def ask(self, content: bytes) -> bytes:
        """Some versions tell of the stop by the connection, unasked."""
        self.send(content)
        while (answer := self.content()).startswith(b"T02") and content != b"?":
            pass
        return answer


# ------------------------------------------------------------------------------------------- a user's own debugger


@pytest.mark.parametrize("options", [["-gdb", "unix:{},server=on,wait=off"], None], ids=["gdb", "chardev"])
def test_a_stub_of_the_command_line_is_not_taken(boot: object, tmp_path: Path, options: list[str] | None) -> None:
    where = tmp_path / "stub"
    words = [word.format(where) for word in options or []]
    if options is None:
        words = ["-chardev", f"socket,id=mine,path={where},server=on,wait=off", "-gdb", "chardev:mine"]
    with looping(tmp_path, words) as guest, Microvmi.open(guest.uri) as machine:
        before = stubs(guest)
        with pytest.raises(DriverUnavailableError, match=r"events are told by .*somebody else's"):
            machine.toggle_intercept(TURN)
        assert stubs(guest) == before
        wait_for_turns(guest)
        with Debugger(str(where)) as client:
            assert client.ask(b"m7c05,1") == b"66"
            assert client.ask(b"D") == b"OK"
        wait_for_turns(guest)


def test_a_debugger_that_is_attached_keeps_what_it_has(guest: Guest) -> None:
    with users_stub(guest) as path, Debugger(path) as client:
        assert client.ask(b"Z0,%x,1" % LOOP) == b"OK"
        with Microvmi.open(guest.uri) as machine, pytest.raises(DriverUnavailableError, match="somebody else's"):
            machine.toggle_intercept(TURN)
        client.send(b"c")
        assert client.content().startswith(b"T05")
        assert client.ask(b"z0,%x,1" % LOOP) == b"OK"
        assert client.ask(b"D") == b"OK"


@pytest.mark.parametrize("intercept", [TURN, COUNTED, STEP], ids=["breakpoint", "watch", "step"])
@pytest.mark.parametrize("opened", [False, True], ids=["quiet", "event open"])
def test_who_takes_the_stub_has_it(guest: Guest, intercept: Intercept, opened: bool) -> None:
    """The listener is told once, and nothing of it is left when the debugger goes."""
    with Microvmi.open(guest.uri) as machine:
        machine.toggle_intercept(intercept)
        heard(machine)
        event = machine.listen(20) if opened else None
        with users_stub(guest) as path, Debugger(path) as client:
            with pytest.raises(DriverUnavailableError, match="somebody else's"):
                machine.listen(5)
            if event is not None:
                with pytest.raises(MicrovmiError):
                    machine.reply_event(event)
            assert client.ask(b"qC").startswith(b"QC")
            assert client.ask(b"D") == b"OK"
        wait_for_turns(guest)
    wait_for_turns(guest)
    assert guest.monitor.status() == "running"


@pytest.mark.parametrize("intercept", [TURN, COUNTED], ids=["breakpoint", "watch"])
def test_who_opens_a_stub_and_never_comes_leaves_nothing_of_ours(guest: Guest, intercept: Intercept) -> None:
    with Microvmi.open(guest.uri) as machine:
        machine.toggle_intercept(intercept)
        heard(machine)
        with users_stub(guest), pytest.raises(DriverUnavailableError, match="somebody else's"):
            machine.listen(5)
    wait_for_turns(guest)


def test_a_debugger_works_after_events(guest: Guest) -> None:
    with Microvmi.open(guest.uri) as machine:
        machine.toggle_intercept(TURN)
        machine.toggle_intercept(COUNTED)
        heard(machine, 20)
    with users_stub(guest) as path, Debugger(path) as client:
        client.send(b"c")
        wait_for_turns(guest)
        client.raw(b"\x03")
        assert client.content().startswith(b"T02")
        assert client.ask(b"Z0,%x,1" % LOOP) == b"OK"
        client.send(b"c")
        assert client.content().startswith(b"T05")
        assert client.ask(b"z0,%x,1" % LOOP) == b"OK"
        assert client.ask(b"D") == b"OK"


# --------------------------------------------------------------------------------------------------- others of ours


@contextmanager
def listener(guest: Guest, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Another program that listens."""
    command = [*COMMAND, "events", guest.uri, "--no-symbols", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), process.stderr and process.stderr.read()
            yield process
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_second_listener_is_refused_and_the_first_goes_on(guest: Guest, number: signal.Signals) -> None:
    with listener(guest, "--breakpoint", hex(LOOP)) as process:
        with Microvmi.open(guest.uri) as machine, pytest.raises(DriverUnavailableError, match="listens to events"):
            machine.toggle_intercept(COUNTED)
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
        assert (process.returncode, told) == (-number, "")


def test_a_reader_who_goes_leaves_the_guest_running(guest: Guest) -> None:
    with listener(guest, "--watch", f"{COUNTER:#x}:4") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(30) == -signal.SIGPIPE


def test_the_memory_of_a_machine_that_is_listened_to_is_read_by_others(guest: Guest) -> None:
    with listener(guest, "--breakpoint", hex(LOOP)), Microvmi.open(guest.uri) as machine:
        first = machine.read_physical(COUNTER, 4)
        end = time.monotonic() + 20
        while machine.read_physical(COUNTER, 4) == first:
            assert time.monotonic() < end
        assert machine.read_registers(0) is not None


# --------------------------------------------------------------------------------------------------- stop and cont


def test_a_machine_that_others_paused_is_listened_to_when_they_let_it_run(guest: Guest) -> None:
    guest.monitor.execute("stop")
    with Microvmi.open(guest.uri) as machine:
        machine.toggle_intercept(TURN)
        assert machine.listen(0.2) is None
        guest.monitor.execute("cont")
        heard(machine)


def test_a_machine_that_others_pause_meanwhile_stays_paused(guest: Guest) -> None:
    """While it runs, that is: QEMU takes no pause of a machine that stands at an event, as it stands."""
    with Microvmi.open(guest.uri) as machine:
        machine.toggle_intercept(NEVER)
        wait_for_turns(guest)
        guest.monitor.execute("stop")
        assert machine.listen(0.5) is None
        assert guest.monitor.status() == "paused"
        count = turns(guest)
    assert (guest.monitor.status(), turns(guest)) == ("paused", count)
    guest.monitor.execute("cont")


def test_a_stop_and_a_cont_that_nobody_heard_of_change_nothing(guest: Guest) -> None:
    with Microvmi.open(guest.uri) as machine:
        machine.toggle_intercept(NEVER)
        guest.monitor.execute("stop")
        guest.monitor.execute("cont")
        wait_for_turns(guest)
        machine.toggle_intercept(TURN)
        heard(machine)


def test_somebody_who_lets_it_run_at_an_event_loses_nothing_but_that(guest: Guest) -> None:
    with Microvmi.open(guest.uri) as machine:
        machine.toggle_intercept(COUNTED)
        event = machine.listen(20)
        assert event is not None
        guest.monitor.execute("cont")
        try:
            machine.reply_event(event)
        except MicrovmiError as err:
            assert "somebody" in str(err)  # noqa: PT017
        heard(machine)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def test_a_debugger_at_a_port_is_left_alone(boot: object, tmp_path: Path) -> None:
    """What -s opens, at loopback only."""
    port: Any = free_port()
    with looping(tmp_path, ["-gdb", f"tcp:127.0.0.1:{port}"]) as guest, Microvmi.open(guest.uri) as machine:
        with pytest.raises(DriverUnavailableError, match="somebody else's"):
            machine.toggle_intercept(TURN)
        assert any(str(port) in item["filename"] for item in guest.monitor.execute("query-chardev"))
