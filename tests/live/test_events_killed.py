# SPDX-License-Identifier: Apache-2.0
"""Whenever a program is killed that listens to events of QEMU, its guest runs on, and nothing of it is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.events import EventKind, Intercept
from libmicrovmi_py.linux.kernel import Kernel

from . import initramfs, packages
from .counting import LONG
from .guest import Boot, Config, Guest
from .tiny import wait_for
from .victims import ARMS, GOES_ON, KINDS, LISTENS, STANDS, Counted, started
from .watchers import watchers_of

KILLS = 100 if LONG else 8
PASSES = 500
"""How often each vCPU then comes to where the breakpoint was."""

SOON = 0.5 if LONG else 20.0
"""Seconds in which the guest runs; a machine that runs all tests at once may be busy."""

BUSY = b"(while :; do :; done) & (while :; do :; done) &\n"

NOTICES = """
import os, signal
heard = []
signal.signal(signal.SIGCHLD, lambda *_: heard.append("SIGCHLD"))
"""
TELLS = """
try:
    os.wait()
except ChildProcessError:
    heard.append("no child")
print("now", flush=True)
sys.stdin.readline()
vm.close()
try:
    os.waitpid(-1, 0x40000000)
except ChildProcessError:
    heard.append("none left")
print(*heard)
"""


@pytest.fixture(scope="module")
def guest(boot: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One whose vCPUs both compute."""
    initrd = tmp_path_factory.mktemp("busy") / "initrd"
    initramfs.build(packages.busybox(), initrd, {initramfs.SETUP: BUSY})
    with Guest(Config("private", 256), Boot(boot.kernel, initrd)) as guest:
        yield guest


@pytest.fixture(scope="module")
def counted(guest: Guest) -> Counted:
    return Counted(Kernel.find(Microvmi.open(guest.uri)))


@pytest.fixture
def words(guest: Guest, counted: Counted) -> Iterator[Any]:
    """What a program is told, by the kind of what it intercepts. The guest is as it was after the test."""
    before = labels(guest)
    yield lambda kind: [guest.uri, kind, *counted.words()]
    check_as_it_was(guest, counted)
    assert labels(guest) == before


def labels(guest: Guest) -> set[str]:
    """Names of character devices; a monitor's that serves a connection has one more."""
    devices = guest.monitor.execute("query-chardev")
    return {item["label"] for item in devices if not item["label"].startswith("#")}


def check_as_it_was(guest: Guest, counted: Counted) -> None:
    wait_for(lambda: not watchers_of(guest.pid), "an end of the watcher")
    assert not any("microvmi" in label for label in labels(guest))
    counted.until(5)
    assert guest.monitor.status() == "running"


def kill_both(guest: Guest, victim: subprocess.Popen[str]) -> None:
    """A program and its watcher, as by the end of a container; until QEMU has noticed."""
    for pid in watchers_of(guest.pid):
        os.kill(pid, signal.SIGKILL)
    victim.kill()
    wait_for(lambda: is_left(guest), "a connection that has ended")


def is_left(guest: Guest) -> bool:
    devices = guest.monitor.execute("query-chardev")
    return any((item["label"], item["filename"][:13]) == ("microvmi-events", "disconnected:") for item in devices)


def test_killed_at_any_moment_the_guest_runs_on(guest: Guest, counted: Counted, words: Any) -> None:
    moments, took = random.Random(1), []
    for number in range(KILLS):
        with started(LISTENS + GOES_ON, words(KINDS[number % len(KINDS)])) as victim:
            time.sleep(moments.uniform(0, 0.3))
            victim.kill()
            took.append((counted.until(1), KINDS[number % len(KINDS)]))
        check_as_it_was(guest, counted)
        if LONG or number == KILLS - 1:
            counted.until(PASSES)
            assert guest.monitor.status() == "running"
    took.sort()
    print(f"of {KILLS} kills the guest ran within {took[-1][0]:.3f} s, of half of them {took[KILLS // 2][0]:.3f} s")
    assert took[-1][0] < SOON, took[-5:]


def test_killed_while_it_begins_to_listen(guest: Guest, counted: Counted, words: Any) -> None:
    moments = random.Random(2)
    for _ in range(KILLS // 2):
        code = LISTENS.replace("what, site", 'print("now", flush=True)\nwhat, site')
        with started(code, words("breakpoint watch")) as victim:
            time.sleep(moments.uniform(0, 0.3))
            victim.kill()
            counted.until(1)
        check_as_it_was(guest, counted)


@pytest.mark.parametrize("how", ["os._exit(0)", "os.execv('/bin/true', ['true'])", "os.kill(os.getpid(), 11)"])
def test_another_end_than_by_a_kill_is_noticed_too(words: Any, how: str) -> None:
    with started(f"import os\n{LISTENS}{STANDS}{how}\n", words("breakpoint")) as program:
        program.communicate("\n", timeout=60)


def test_a_child_that_lives_on_does_not_keep_it_waiting(guest: Guest, counted: Counted, words: Any) -> None:
    forked = "import os, time\nif not os.fork():\n    time.sleep(60)\n"
    with started(LISTENS + forked + STANDS, words("breakpoint"), start_new_session=True) as victim:
        victim.kill()
        victim.wait()
        check_as_it_was(guest, counted)
        os.killpg(victim.pid, signal.SIGKILL)  # the child


def test_the_program_that_starts_it_notices_nothing_of_it(guest: Guest, words: Any) -> None:
    with started(NOTICES + LISTENS + TELLS, words("breakpoint")) as program:
        (pid,) = watchers_of(guest.pid)
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2", "3"]
        assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"microvmi-watcher\0events\0%d\0" % guest.pid)
        assert os.getsid(pid) == pid
        said, _ = program.communicate("\n", timeout=60)
    assert said == "no child none left\n"


@pytest.mark.parametrize("order", ["vm.pause()\n", "vm.pause()\nvm.reply_event(event)\n"])
def test_what_its_program_has_paused_stays_paused(guest: Guest, counted: Counted, words: Any, order: str) -> None:
    with started(LISTENS + order + STANDS, words("breakpoint")) as victim:
        victim.kill()
    wait_for(lambda: not watchers_of(guest.pid), "an end of the watcher")
    seen = counted.now()
    time.sleep(0.1)
    assert (guest.monitor.status(), counted.now()) == ("paused", seen)
    guest.monitor.execute("cont")


@pytest.mark.parametrize("kind", KINDS)
def test_what_its_watcher_did_not_live_to_undo_the_next_opening_undoes(
    guest: Guest, counted: Counted, words: Any, kind: str
) -> None:
    with started(LISTENS + (GOES_ON if "toggle" in kind else STANDS), words(kind)) as victim:
        kill_both(guest, victim)
    with Microvmi.open(guest.uri):
        counted.until(5)


def test_what_somebody_else_has_paused_stays_paused(guest: Guest, counted: Counted, words: Any) -> None:
    guest.monitor.execute("stop")
    with started(ARMS + STANDS, words("breakpoint watch")) as victim:
        assert guest.monitor.status() == "paused"
        victim.kill()
    wait_for(lambda: not watchers_of(guest.pid), "an end of the watcher")
    assert guest.monitor.status() == "paused"
    guest.monitor.execute("cont")


def test_what_somebody_else_has_paused_later_stays_paused(guest: Guest, counted: Counted, words: Any) -> None:
    with started(ARMS + STANDS, [*words("breakpoint")[:2], f"{counted.never:x}"]) as victim:
        counted.until(1)
        guest.monitor.execute("stop")
        victim.kill()
    wait_for(lambda: not watchers_of(guest.pid), "an end of the watcher")
    assert guest.monitor.status() == "paused"
    guest.monitor.execute("cont")


def test_so_does_the_next_that_listens(guest: Guest, counted: Counted, words: Any) -> None:
    with Microvmi.open(guest.uri) as machine:
        with started(LISTENS + STANDS, words("breakpoint watch")) as victim:
            kill_both(guest, victim)
        machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=counted.site))
        event = machine.listen(20)
        assert event is not None
        machine.reply_event(event)


def test_who_is_not_watched_over_gets_no_events(guest: Guest, words: Any, tmp_path: Path) -> None:
    package = Path(sys.modules["libmicrovmi_py"].__file__ or "").parent
    copy = tmp_path / "libmicrovmi_py"
    copy.mkdir()
    for path in package.iterdir():
        if path.name not in ("microvmi-watcher", "transport"):
            (copy / path.name).symlink_to(path)
    # The folder that looks for the program is the copy's own.
    (copy / "transport").mkdir()
    for path in (package / "transport").glob("*.py"):
        (copy / "transport" / path.name).symlink_to(path)
    command = [sys.executable, "-c", LISTENS, *words("breakpoint")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert IoError.__name__ in done.stderr
    assert "which undoes it if we are killed, cannot be started: No such file or directory" in done.stderr


def test_of_a_qemu_that_is_killed_meanwhile_no_watcher_is_left(guest: Guest, counted: Counted) -> None:
    with started(LISTENS + STANDS, [guest.uri, "breakpoint", *counted.words()]) as victim:
        assert watchers_of(guest.pid)
        guest.kill()  # so this test is the last one
        victim.kill()
    wait_for(lambda: not watchers_of(guest.pid), "an end of the watcher")
