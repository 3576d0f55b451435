# SPDX-License-Identifier: Apache-2.0
"""Every run state of QEMU, and what becomes of it by a pause, a resume, a close, the end and the death of our process.

The table in docs/drivers/qemu.md is what these tests saw, cell by cell. States that last only a moment are played.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from drivers.qemu_with_monitor import QemuWithMonitor, qemu_with_monitor

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import MicrovmiError

from . import tiny as guests
from .guest import QEMU, Boot
from .monitor import Monitor
from .packages import ROOT
from .tiny import GO, Tiny, step, tiny, wait_for

Machine = Tiny | QemuWithMonitor
PAGE = ROOT / "docs" / "drivers" / "qemu.md"
AT_ONCE = 12
OPERATIONS = ("pause", "resume", "close", "exit", "SIGKILL")
_DISK = (
    '{"driver":"raw","node-name":"d","file":{"driver":"blkdebug","image":{"driver":"null-co","size":1048576},'
    '"inject-error":[{"event":"none","iotype":"write","errno":5}]}}'
)


@dataclass(frozen=True)
class State:
    """A run state: how a guest that we paused is brought into it, by others, and how it is started."""

    name: str
    bring: Callable[[Tiny, Path, ExitStack], None]
    act: bytes = guests.NOTHING
    options: tuple[str, ...] = ()
    comes_back: bool = False
    """Whether a machine that is let run is in it again at once."""


def act(guest: Tiny, folder: Path, stack: ExitStack) -> None:
    """Let the firmware do its one thing."""
    guest.monitor.execute("stop")
    with Microvmi.open(guest.uri) as machine:
        machine.write_physical(GO, b"\1")
    guest.monitor.execute("cont")


def migrate(guest: Tiny, folder: Path, stack: ExitStack) -> None:
    path = folder / f"{guest.name}.migration"
    incoming = stack.enter_context(tiny(folder, options=("-incoming", f"unix:{path}")))
    guest.monitor.execute("migrate", uri=f"unix:{path}")
    guest.until("postmigrate")
    incoming.until("paused", "running")


def debug(guest: Tiny, folder: Path, stack: ExitStack) -> None:
    stack.enter_context(step(guest))


def reset(guest: Tiny, folder: Path, stack: ExitStack) -> None:
    guest.monitor.execute("stop")
    guest.monitor.execute("system_reset")


def order(command: str) -> Callable[[Tiny, Path, ExitStack], None]:
    return lambda guest, folder, stack: guest.monitor.execute(command)


def nothing(guest: Tiny, folder: Path, stack: ExitStack) -> None:
    """It is in that state already."""


REAL = (
    State("running", order("cont")),
    State("paused", order("stop")),
    State("prelaunch", reset),
    State("debug", debug),
    State("suspended", act, guests.SLEEP),
    State("shutdown", act, guests.OFF, ("-no-shutdown",)),
    State("watchdog", act, guests.WATCHDOG, ("-device", "ib700", "-action", "watchdog=pause")),
    State("guest-panicked", act, guests.PANIC, ("-device", "pvpanic", "-action", "panic=pause")),
    State("io-error", act, guests.WRITE, ("-blockdev", _DISK, "-device", "ide-hd,bus=ide.0,drive=d,werror=stop"), True),
    State("inmigrate", nothing, options=("-incoming", "defer")),
    State("postmigrate", migrate),
)
PLAYED = ("internal-error", "save-vm", "restore-vm", "finish-migrate", "colo")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mvs-") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def version(boot: Boot) -> int:
    """QEMU's major version."""
    text = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)", text)
    assert found
    return int(found[1])


@contextmanager
def started(state: State | str, folder: Path) -> Iterator[tuple[Machine, Callable[[], None]]]:
    """A machine, and what brings it into a state."""
    with ExitStack() as stack:
        if isinstance(state, str):
            played = stack.enter_context(qemu_with_monitor(folder))
            yield played, lambda: played.execute("play-state", status=state)
            return
        guest = stack.enter_context(tiny(folder, state.act, state.options))

        def bring() -> None:
            state.bring(guest, folder, stack)
            guest.until(state.name)

        yield guest, bring


def outcome(machine: Machine, call: Callable[[], None]) -> str:
    """What a call makes of a machine: its run state afterwards, and whether the call was refused."""
    try:
        call()
    except MicrovmiError:
        return f"refused, {machine.status()}"
    return machine.status()


PROGRAM = """
import sys; sys.path.insert(0, sys.argv[1])
from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import MicrovmiError
machine = Microvmi.open(sys.argv[2])
try:
    machine.pause()
except MicrovmiError:
    pass
print("paused", flush=True)
input()
"""


def seen(state: State | str, operation: str, folder: Path) -> str:
    """One cell of the table."""
    with started(state, folder) as (machine, bring):
        if operation in ("pause", "resume"):
            with Microvmi.open(machine.uri) as opened:
                bring()
                found = outcome(machine, opened.pause if operation == "pause" else opened.resume)
                if isinstance(state, State) and state.comes_back:
                    wait_for(lambda: machine.status() == state.name, state.name)
                    return state.name
                return found
        if operation == "close":
            opened = Microvmi.open(machine.uri)
            try_to_pause(opened)
            bring()
            return outcome(machine, opened.close)
        command = [sys.executable, "-c", PROGRAM, str(ROOT), machine.uri]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "paused\n"
            bring()
            if operation == "SIGKILL":
                process.kill()
            process.communicate("\n", timeout=30)
        return machine.status()


def try_to_pause(machine: Microvmi) -> None:
    try:
        machine.pause()
    except MicrovmiError:
        """A machine that waits for a migration cannot be paused; it is then closed as any other."""


def rows() -> dict[str, list[str]]:
    """The table of the page, by state."""
    found = re.findall(r"^\| `([a-z-]+)`([^|]*)\|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return {name + note.rstrip(): [cell.strip() for cell in cells.split("|")] for name, note, cells in found}


def row_of(state: State | str, version: int) -> str:
    """The name of a state's row: QEMU stops a machine that sleeps since version 9."""
    name = state if isinstance(state, str) else state.name
    if name == "suspended":
        return name + (", QEMU 9 and later" if version >= 9 else ", QEMU before 9")
    return name + (" (played)" if isinstance(state, str) else "")


@pytest.fixture(scope="module")
def cells(request: pytest.FixtureRequest, boot: Boot, folder: Path) -> Iterator[dict[tuple[str, str], Future[str]]]:
    """What is seen of the states that are asked for; most of it is waiting, so it is done several at a time."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = [cast("State | str", item.callspec.params["state"]) for item in items if "cells" in item.fixturenames]
    with qemu_with_monitor(folder):
        pass  # its program is there now: one that is being written cannot be started
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            (name_of(state), operation): pool.submit(seen, state, operation, folder)
            for operation in reversed(OPERATIONS)  # the longest first
            for state in asked
        }


def name_of(state: State | str) -> str:
    return state if isinstance(state, str) else state.name


@pytest.mark.parametrize("state", [*REAL, *PLAYED], ids=name_of)
def test_the_table_of_run_states_is_what_happens(
    cells: dict[tuple[str, str], Future[str]], version: int, state: State | str
) -> None:
    found = [cells[name_of(state), operation].result() for operation in OPERATIONS]
    row = row_of(state, version)
    assert rows().get(row) == found, f"docs/drivers/qemu.md, {row}: | {' | '.join(found)} |"


# -------------------------------------------------------------------------------------------- a process that is stopped


STOPPED = """
import os, signal, sys, time; sys.path.insert(0, sys.argv[1])
from libmicrovmi_py import Microvmi, release_all
from libmicrovmi_py.errors import MicrovmiError
machine, qemu, way = Microvmi.open(sys.argv[2].replace("timeout=5", "timeout=1")), int(sys.argv[3]), sys.argv[4]
if way != "never paused":
    machine.pause()
time.sleep(0.3)  # until QEMU has seen that we hung up: a monitor that it takes for held is left alone
os.kill(qemu, signal.SIGSTOP)
try:
    if way == "close":
        machine.close()
    elif way == "release":
        release_all(2)
except MicrovmiError as err:
    print(err, flush=True)
if way != "exit":
    os._exit(0)
"""


def leave(guest: Tiny, way: str) -> str:
    """Run a program that pauses the machine, stops QEMU itself, and leaves; what it printed. QEMU then goes on."""
    command = [sys.executable, "-c", STOPPED, str(ROOT), guest.uri, str(guest.process.pid), way]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    finally:
        os.kill(guest.process.pid, signal.SIGCONT)
    return done.stdout


def open_files(guest: Tiny) -> int:
    return len(os.listdir(f"/proc/{guest.process.pid}/fd"))


@pytest.mark.parametrize("way", ["close", "release", "exit"])
def test_a_qemu_that_is_stopped_lets_its_machine_run_when_it_goes_on(boot: Boot, folder: Path, way: str) -> None:
    with tiny(folder) as guest:
        time.sleep(0.5)  # until QEMU has seen that the client before hung up
        files = open_files(guest)
        said = leave(guest, way)
        assert way == "exit" or f"kill -CONT {guest.process.pid}" in said
        guest.until("running")
        with Microvmi.open(guest.uri) as machine:  # the monitor is free again
            assert machine.vcpu_count() == 1
        wait_for(lambda: open_files(guest) == files, "the files of before")


def test_one_that_others_stopped_stays_stopped(boot: Boot, folder: Path) -> None:
    with tiny(folder) as guest:
        guest.monitor.execute("stop")
        leave(guest, "close")
        with Microvmi.open(guest.uri) as machine:
            assert machine.vcpu_count() == 1
        assert guest.status() == "paused"


def test_nothing_is_left_at_a_monitor_that_another_holds(boot: Boot, folder: Path) -> None:
    with tiny(folder) as guest, Microvmi.open(guest.uri.replace("timeout=5", "timeout=0.5")) as machine:
        machine.pause()
        with Monitor(folder / guest.name).held():
            os.kill(guest.process.pid, signal.SIGSTOP)
            try:
                with pytest.raises(MicrovmiError):
                    machine.close()
            finally:
                os.kill(guest.process.pid, signal.SIGCONT)
        time.sleep(0.5)
        assert guest.status() == "paused"
