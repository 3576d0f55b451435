# SPDX-License-Identifier: Apache-2.0
"""Breakpoints and steps on drivers that have events, behind the simulators of their hypervisors; one by a real gdb."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contract.target import Target
from needs import missing
from tools.gdb.remote import SECONDS, Client, served

from libmicrovmi_py import EventKind, Microvmi
from libmicrovmi_py.events import Breakpoints

INT3 = b"\xcc"


def stand_of(name: str, folder: Path) -> Iterator[Target]:
    stand: Callable[[Path], Iterator[Target]] = importlib.import_module(f"contract.stands.{name}").stand
    return stand(folder)


@pytest.fixture(scope="module", params=["fake", "kvm", "virtualbox", "xen"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    yield from stand_of(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def machine(target: Target) -> Iterator[Microvmi]:
    with Microvmi.open(target.uri) as opened:
        yield opened


def left(target: Target, machine: Microvmi) -> int:
    """What the hypervisor says is left, when nothing is or after a while."""
    assert target.guest is not None
    end = time.monotonic() + 5
    while (found := target.guest.left(machine)) and time.monotonic() < end:
        time.sleep(0.01)
    return found


class Provoked:
    """Has the guest come by a place again and again, until the end of the block; some guests do so by themselves."""

    def __init__(self, target: Target, kind: EventKind) -> None:
        assert target.guest is not None
        self._guest, self._kind = target.guest, kind
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        self._over.wait(0.2)
        self._guest.provoke(self._kind)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(SECONDS)


PLACES = {"fake": 0x7C00, "virtualbox": 0x2003, "xen": 0x6123}
"""Where the guests of the stands execute something; that of KVMi does nothing but tell its instruction pointer."""

PAGE_TABLES = {0x3000: 0x6003, 0x6000: 0x7003, 0x7000: 0x83}
"""For KVMi's guest, whose CR3 is 0x3000: the first 2 MiB are where they are. Other stands have no paging."""


@pytest.fixture
def place(target: Target, machine: Microvmi) -> int:
    """An address that the guest comes by."""
    if machine.driver.name == "kvm":
        for address, entry in PAGE_TABLES.items():
            machine.write_physical(address, entry.to_bytes(8, "little"))
        return machine.read_state(0)["rip"]
    return PLACES[machine.driver.name]


def is_written(machine: Microvmi) -> bool:
    """Whether breakpoints are instructions in memory; the others are the hypervisor's."""
    return Breakpoints.PLACED not in machine.abilities.events.breakpoints


def test_a_breakpoint_stops_the_machine_and_a_step_is_one_instruction(
    target: Target, machine: Microvmi, place: int, tmp_path: Path
) -> None:
    before = machine.read_physical(place, 1)
    with served(machine, tmp_path) as path, Client(path) as client:
        assert client.ask(b"Z0,%x,1" % place) == b"OK"
        assert (machine.read_physical(place, 1) == INT3) is is_written(machine)
        if is_written(machine):
            assert client.ask(b"m%x,1" % place) == before.hex().encode()
        with Provoked(target, EventKind.BREAKPOINT):
            client.send(b"vCont;c")
            assert client.content() == b"T05swbreak:;thread:1;"
        assert client.ask(b"z0,%x,1" % place) == b"OK"
        assert machine.read_physical(place, 1) == before
        with Provoked(target, EventKind.SINGLE_STEP):
            client.send(b"vCont;s:1")
            assert client.content() == b"T05thread:1;"
        assert client.ask(b"D") == b"OK"
    assert left(target, machine) == 0


def test_a_breakpoint_that_stays_is_stepped_over(target: Target, machine: Microvmi, place: int, tmp_path: Path) -> None:
    with served(machine, tmp_path) as path, Client(path) as client:
        assert client.ask(b"Z0,%x,1" % place) == b"OK"
        with Provoked(target, EventKind.BREAKPOINT):
            assert client.ask(b"c") == b"T05swbreak:;thread:1;"
        if is_written(machine):
            client.send(b"c")
            end = time.monotonic() + SECONDS
            while machine.read_physical(place, 1) == INT3 and time.monotonic() < end:
                time.sleep(0.001)
            assert machine.read_physical(place, 1) != INT3, "it is not out of the way for the step"
            with Provoked(target, EventKind.SINGLE_STEP):
                while machine.read_physical(place, 1) != INT3 and time.monotonic() < end:
                    time.sleep(0.001)
            assert machine.read_physical(place, 1) == INT3
            client.raw(b"\x03")
            assert client.content() == b"T02thread:1;"
        else:
            assert client.ask(b"c") == b"T05swbreak:;thread:1;"
    assert left(target, machine) == 0


@pytest.mark.parametrize("when", ["inserted", "running", "hit", "stepping"])
def test_a_debugger_that_vanishes_leaves_no_breakpoint(
    target: Target, machine: Microvmi, place: int, tmp_path: Path, when: str
) -> None:
    before = machine.read_physical(place, 1)
    with served(machine, tmp_path) as path:
        with Client(path) as client:
            assert client.ask(b"Z0,%x,1" % place) == b"OK"
            if when == "running":
                client.send(b"c")
            elif when != "inserted":
                with Provoked(target, EventKind.BREAKPOINT):
                    assert client.ask(b"c") == b"T05swbreak:;thread:1;"
                if when == "stepping":
                    client.send(b"s")
        assert left(target, machine) == 0
        assert machine.read_physical(place, 1) == before


def test_writing_over_a_breakpoint_leaves_it_and_what_was_written(
    target: Target, machine: Microvmi, place: int, tmp_path: Path
) -> None:
    if not is_written(machine):
        return
    with served(machine, tmp_path) as path, Client(path) as client:
        client.ask(b"Z0,%x,1" % place)
        assert client.ask(b"M%x,2:9091" % place) == b"OK"
        assert client.ask(b"m%x,2" % place) == b"9091"
        assert machine.read_physical(place, 2) == INT3 + b"\x91"
        client.ask(b"z0,%x,1" % place)
        assert machine.read_physical(place, 2) == b"\x90\x91"


def test_a_driver_without_events_says_so_and_its_memory_is_left_alone(tmp_path: Path) -> None:
    with Microvmi.open("vmi://fake/?architecture=aarch64") as machine:
        before = machine.read_physical(0, 0x10000)
        with served(machine, tmp_path) as path, Client(path) as client:
            for packet in (b"Z0,4000,4", b"Z1,4000,4"):
                assert client.ask(packet) == b"E.the fake driver stops at no breakpoints: it has no events"
            assert client.ask(b"vCont;s:1") == b"E.the fake driver cannot step: it has no such events"
            assert client.ask(b"Z2,4000,4") == b""
            assert client.ask(b"?") == b"T05thread:1;"
        assert machine.read_physical(0, 0x10000) == before


def test_a_real_gdb_breaks_and_steps(tmp_path: Path) -> None:
    gdb = shutil.which("gdb")
    if gdb is None:
        missing("gdb is not installed; to enable: apt-get install gdb-minimal")
    for target in stand_of("virtualbox", tmp_path):
        with Microvmi.open(target.uri) as machine, served(machine, tmp_path) as path:
            commands = ("hbreak *0x2003", "continue", "stepi", "stepi", "stepi", "continue", "detach")
            words = [word for command in (f"target remote {path}", *commands) for word in ("-ex", command)]
            done = subprocess.run(
                [gdb, "-nx", "-batch", *words], capture_output=True, text=True, timeout=60, check=False
            )
            places = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("0x")]
            assert done.stdout.count("Breakpoint 1, 0x00002003 in") == 2, done.stderr
            assert places[-3:] == ["0x00002006", "0x00002000", "0x00002001"], done.stdout
            assert left(target, machine) == 0
