# SPDX-License-Identifier: Apache-2.0
"""``microvmi`` on a real guest: dumps equal what QEMU saves, and whatever ends it leaves the guest running."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from command.checks import check_error, check_interrupt, check_json, check_pipe, check_terminal, places_in
from command.running import MICROVMI, environment, interrupted, piped
from command.stand import names, stand_of
from needs import missing

from libmicrovmi_py import Microvmi

from . import oracle
from .guest import Config, Guest

pytestmark = pytest.mark.parametrize("booted", [Config("private")], indirect=True, ids=str)

LINUX = [name for name in names() if stand_of(name).guest == "linux"]
SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
MIB = 1 << 20


@pytest.fixture
def places(guest: Guest, tmp_path: Path, request: pytest.FixtureRequest) -> Mapping[str, str]:
    """What stands put into their words; the dump has no kernel in it. Without what the stand needs the test ends."""
    name = request.node.callspec.params.get("name", "")
    if name in LINUX and (reason := stand_of(name).missing):
        missing(reason)
    (tmp_path / "folder").mkdir()
    dump = tmp_path / "dump"
    dump.write_bytes(bytes(MIB))
    return places_in(tmp_path / "folder", guest.uri, "", str(dump))


@pytest.mark.parametrize("name", LINUX)
def test_what_is_for_linux_works_in_a_pipe(name: str, places: Mapping[str, str]) -> None:
    check_pipe(name, stand_of(name), places)


@pytest.mark.parametrize("name", LINUX)
def test_what_is_for_linux_works_at_a_terminal(name: str, places: Mapping[str, str]) -> None:
    check_terminal(name, stand_of(name), places)


@pytest.mark.parametrize("name", LINUX)
def test_the_json_of_what_is_for_linux_is_a_document(name: str, places: Mapping[str, str]) -> None:
    check_json(name, stand_of(name), places)


@pytest.mark.parametrize("name", LINUX)
def test_an_error_of_what_is_for_linux_is_one_line(name: str, places: Mapping[str, str]) -> None:
    check_error(name, stand_of(name), places)


@SIGNALS
@pytest.mark.parametrize("name", LINUX)
def test_a_signal_to_what_is_for_linux_leaves_the_guest_running(
    name: str, places: Mapping[str, str], guest: Guest, number: signal.Signals
) -> None:
    check_interrupt(name, stand_of(name), places, number, lambda: True)
    assert guest.monitor.status() == "running"


LASTING = {
    "dump": (("{folder}/raw", "--pause", "--force"), "the machine is paused while it is read"),
    "diff": (("--wait", "60"), "a snapshot is read"),
    "pause": ((), "the machine is paused"),
    "read": (("0", "512M", "--pause"), "0000000000000000 "),
}
"""Of those that need no Linux: uses that take their time, and what they print when they have begun."""


@SIGNALS
@pytest.mark.parametrize("name", LASTING)
def test_a_signal_leaves_the_guest_running(
    name: str, places: Mapping[str, str], guest: Guest, number: signal.Signals
) -> None:
    words, begun = LASTING[name]
    arguments = [word.format(**places) for word in words]
    done = interrupted(number, [name, guest.uri, *arguments], lambda text: begun in text)
    assert done.code == -number, done.out[-300:]
    assert guest.monitor.status() == "running"


def test_a_signal_at_any_moment_of_something_short_leaves_the_guest_running(guest: Guest) -> None:
    """It may come while the machine is let run again."""
    for moment in range(12):
        command = [*MICROVMI, "regs", guest.uri, "--pause"]
        with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            assert b"paused while it is read" in process.stderr.readline()
            time.sleep(moment / 1000)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) in (0, -signal.SIGINT)
        assert guest.monitor.status() == "running"


def test_a_machine_whose_pause_was_killed_is_let_run_by_resume(guest: Guest) -> None:
    interrupted(signal.SIGKILL, ["pause", guest.uri], lambda text: "the machine is paused" in text)
    assert guest.monitor.status() == "paused"
    assert piped("resume", guest.uri).code == 0
    assert guest.monitor.status() == "running"


def test_a_pause_that_somebody_else_ends_is_told(guest: Guest) -> None:
    command = [*MICROVMI, "pause", guest.uri]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"the machine is paused\n"
            guest.monitor.execute("cont")
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, told) == (1, b"microvmi: somebody else let the machine run\n")


def test_a_dump_is_what_qemu_saves(paused: Guest, tmp_path: Path) -> None:
    raw, core = tmp_path / "raw", tmp_path / "core.elf"
    done = piped("dump", paused.uri, raw, "--live", "--json")
    assert json.loads(done.out)["data"] < raw.stat().st_size
    assert raw.stat().st_blocks * 512 < raw.stat().st_size / 2, "it is not sparse"
    ram = [item for item in oracle.memory_map(paused.monitor) if item.kind == "ram"]
    assert [oracle.first_difference(paused.monitor, item, raw) for item in ram] == [None] * len(ram)
    assert piped("dump", paused.uri, core, "--live").code == 0
    assert b"OSRELEASE=" in core.read_bytes()[: 64 << 10], "there is no VMCOREINFO"
    compared = json.loads(piped("diff", raw, core, "--json").out)
    different = [int(item["start"], 16) for item in compared["ranges"]]
    assert not [start for start in different for item in ram if item.start <= start < item.end]
    with Microvmi.open(str(core)) as dump, Microvmi.open(paused.uri) as machine:
        assert [state["rip"] for state in dump.read_states()] == [state["rip"] for state in machine.read_states()]


def test_a_snapshot_is_the_default_and_standard_error_says_so(guest: Guest, tmp_path: Path) -> None:
    done = piped("dump", guest.uri, tmp_path / "raw")
    assert done.err.startswith("microvmi: a snapshot is read: the machine stood still ")
    assert guest.monitor.status() == "running"


def test_the_guest_is_listed_and_opened_by_its_name_and_process(guest: Guest) -> None:
    machines = json.loads(piped("list", "--json").out)
    (machine,) = [item for item in machines if item["name"] == guest.name]
    assert (machine["state"], machine["process_id"]) == ("running", guest.pid)
    told = {piped("info", word).out for word in (guest.name, guest.pid, machine["uri"])}
    assert len(told) == 1
    assert "state         running" in told.pop()
