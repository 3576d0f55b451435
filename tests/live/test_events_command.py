# SPDX-License-Identifier: Apache-2.0
"""``microvmi events`` and the examples that listen, on a Debian guest of two vCPUs: names, and a guest as before."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.linux.kernel import Kernel

from . import initramfs, packages
from .guest import Boot, Config, Guest

COMMAND = (sys.executable, "-m", "libmicrovmi_py.command", "events")
ROOT = Path(__file__).resolve().parents[2]
SWITCHING = b"(while :; do sleep 0.02; done) & (while :; do ls / > /dev/null; done) &\n"
"""Processes that come and go, and sleep."""


@pytest.fixture(scope="module")
def switching(boot: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest with several processes."""
    initrd = tmp_path_factory.mktemp("switching") / "initrd"
    initramfs.build(packages.busybox(), initrd, {initramfs.SETUP: SWITCHING})
    with Guest(Config("private", 256), Boot(boot.kernel, initrd)) as guest:
        yield guest


@pytest.fixture(scope="module")
def kernel(switching: Guest) -> Kernel:
    """Its symbols."""
    return Kernel.find(Microvmi.open(switching.uri))


@pytest.fixture
def guest(switching: Guest, kernel: Kernel) -> Iterator[Guest]:
    """It runs before a test and after it, and nothing is left at QEMU."""
    assert switching.monitor.status() == "running"
    yield switching
    assert switching.monitor.status() == "running"
    assert not [it for it in switching.monitor.execute("query-chardev") if it["label"].startswith("microvmi")]
    clock, end = kernel.symbols.address("jiffies_64"), time.monotonic() + 30
    before = kernel.pointer(clock)
    while kernel.pointer(clock) == before:
        assert time.monotonic() < end, "the guest stands still"
        time.sleep(0.02)


def events(guest: Guest, *words: str) -> list[dict[str, object]]:
    """What it prints, as documents."""
    done = subprocess.run(
        [*COMMAND, guest.name, "--json", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("way", [[], ["--every"], ["--observe"]], ids=["changes", "every", "observe"])
def test_cr3_is_told_with_the_process_it_belongs_to(guest: Guest, way: list[str]) -> None:
    found = events(guest, *way, "--count", "40")
    assert [(told["event"], told["number"]) for told in found] == [("cr", 3)] * 40
    names = {told["process"]["name"] for told in found if isinstance(told["process"], dict)}
    assert names & {"init", "sh", "sleep", "ls", "busybox", "exe"}, found


def test_functions_and_variables_are_named(guest: Guest, kernel: Kernel) -> None:
    own = own_task(kernel)
    found = events(guest, "--breakpoint", "ktime_get", "--watch", "jiffies_64", "--watch", own, "--count", "60")
    assert {"ktime_get", "jiffies_64"} & {told["symbol"] for told in found}, found
    tasks = [told for told in found if told["symbol"] == own]
    assert {told["event"] for told in tasks} == {"virtual_access"}
    assert {told["vcpu"] for told in tasks} <= {0, 1}
    assert "__switch_to" in {str(told["instruction_symbol"]).partition("+")[0] for told in tasks}
    assert all(told["process"] for told in found if told["symbol"] == "ktime_get")


def own_task(kernel: Kernel) -> str:
    """The variable of each vCPU's own that names its process; from Linux 6.2 to 6.14 it is the first of several."""
    return next(name for name in ("current_task", "pcpu_hot") if kernel.symbols.get(name) is not None)


def test_a_symbol_that_is_none_is_told(guest: Guest) -> None:
    words = [*COMMAND, guest.name, "--breakpoint", "no_such_function"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=env, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "microvmi: the guest's kernel has no symbol no_such_function\n"


# ----------------------------------------------------------------------------------------------------- the examples


def example(programs: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [str(programs / str(words[0])), *map(str, words[1:])]
    return subprocess.run(command, env={}, cwd="/", capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("way", ["changes", "every", "observe"])
def test_cr3_watch(guest: Guest, programs: Path, way: str) -> None:
    done = example(programs, "cr3-watch", "-w", way, "-n", 50, guest.name)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 50), done.stderr
    line = r"0x\w+" if way == "observe" else r"vcpu [01]  0x\w+ -> 0x\w+"
    assert all(re.fullmatch(line, text) for text in done.stdout.splitlines()), done.stdout
    assert re.fullmatch(r"cr3-watch: 50 seen, \d+ lost\n", done.stderr)


@pytest.mark.parametrize("options", [[], ["-H"]], ids=["software", "hardware"])
def test_trace(guest: Guest, programs: Path, kernel: Kernel, options: list[str]) -> None:
    place = kernel.symbols.address("ktime_get")
    done = example(programs, "trace", *options, "-n", 10, guest.name, hex(place))
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert re.match(rf"vcpu [01]  {place:#x}  rdi=", line), line
        caller, _ = kernel.symbols.at(int(line.rpartition(" ")[2], 16))
        assert caller


def test_who_writes(guest: Guest, programs: Path, kernel: Kernel) -> None:
    done = example(programs, "who-writes", "-n", 10, guest.name, hex(kernel.symbols.address("jiffies_64")), 8)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"(who-writes: +(\d+)  before (0x\w+)\n)+", done.stderr)
    assert found, done.stderr
    assert kernel.symbols.at(int(found[3], 16))[0].startswith(("tick_", "do_timer"))
    values = [int(line.rpartition(" ")[2], 16) for line in done.stdout.splitlines()]
    assert values == sorted(set(values))


def test_a_signal_in_the_middle_leaves_the_guest_running(guest: Guest, programs: Path) -> None:
    with subprocess.Popen([programs / "cr3-watch", guest.name], env={}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
