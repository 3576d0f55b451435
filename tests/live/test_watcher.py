# SPDX-License-Identifier: Apache-2.0
"""Whenever this process is killed in a snapshot in the background, QEMU is soon as it was, without an opening."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi

from .counting import LONG, counting, numbers
from .firmware import need_qemu
from .test_background import await_state, marks, state_of
from .tiny import Tiny, wait_for
from .watchers import watchers_of

MIB = 128
KILLS = 100 if LONG else 10
SECONDS = 0.6
"""Of a snapshot within which it is killed; it takes about as long."""

VICTIM = """
import sys
from libmicrovmi_py import Microvmi
vm = Microvmi.open(sys.argv[1])
print("now", flush=True)
while True:
    vm.snapshot().close()
"""

UNMARKED = """
import os, signal, sys
from libmicrovmi_py import Microvmi
from libmicrovmi_py.transport.qmp import QmpClient
execute = QmpClient.execute
def killed(self, command, **arguments):
    if command == "chardev-add":
        os.kill(os.getpid(), signal.SIGKILL)
    return execute(self, command, **arguments)
QmpClient.execute = killed
vm = Microvmi.open(sys.argv[1])
print("now", flush=True)
vm.snapshot()
"""

STALLED = """
import os, signal, sys
from libmicrovmi_py import Microvmi
heard = []
signal.signal(signal.SIGCHLD, lambda *_: heard.append("SIGCHLD"))
def stall(done, total):
    if heard or not done:
        return
    try:
        os.wait()
    except ChildProcessError:
        heard.append("no child")
    print("now", flush=True)
    sys.stdin.readline()
with Microvmi.open(sys.argv[1]) as vm:
    print(vm.snapshot(progress=stall).snapshot_info.method.name, *heard, flush=True)
    try:
        os.waitpid(-1, 0x40000000)
    except ChildProcessError:
        print("none left", flush=True)
"""


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """One that counts, and has some memory that is not zero; a snapshot was taken of it."""
    need_qemu()
    with counting(tmp_path_factory.mktemp("watched"), MIB) as guest:
        with Microvmi.open(guest.uri) as vm:
            for mib in range(16, MIB - 16, 2):
                vm.write_physical(mib << 20, os.urandom(1 << 20))
            vm.snapshot().close()
        yield guest


def started(guest: Tiny, code: str, **options: object) -> subprocess.Popen[str]:
    """A program that says "now" when it is about to take a snapshot, or in the middle of one."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    program: subprocess.Popen[str] = subprocess.Popen([sys.executable, "-c", code, guest.uri], **pipes, **options)  # type: ignore[call-overload]
    assert program.stdout is not None
    assert program.stdout.readline() == "now\n"
    return program


def is_over(guest: Tiny) -> bool:
    return guest.monitor.execute("query-migrate").get("status") not in ("setup", "active")


def watched(guest: Tiny) -> int:
    """The one watcher that there is."""
    (pid,) = watchers_of(guest.process.pid)
    return pid


def check_as_it_was(guest: Tiny, before: tuple[object, ...]) -> None:
    """That it is, within seconds after the end of the migration, looked at by nobody of ours."""
    wait_for(lambda: is_over(guest), "an end of the migration")
    await_state(guest, before)
    wait_for(lambda: not watchers_of(guest.process.pid), "an end of the watcher")


def test_killed_at_any_moment_nothing_is_left(guest: Tiny) -> None:
    before, random_moments, in_the_middle = state_of(guest), random.Random(1), 0
    for _ in range(KILLS):
        with started(guest, VICTIM) as victim:
            time.sleep(random_moments.uniform(0, SECONDS))
            victim.kill()
        in_the_middle += marks(guest)
        check_as_it_was(guest, before)
    assert in_the_middle > KILLS // 4
    with Microvmi.open(guest.uri) as vm:
        seen = numbers(vm.read_physical, MIB)
        wait_for(lambda: numbers(vm.read_physical, MIB) != seen, "a guest that runs")


def test_what_qemu_was_given_before_the_mark_is_taken_back_too(guest: Tiny) -> None:
    before = state_of(guest)
    with started(guest, UNMARKED) as victim:
        assert victim.wait(60) == -signal.SIGKILL
    check_as_it_was(guest, before)


def test_a_user_s_own_migration_is_none_of_ours_once_it_was_taken_back(guest: Tiny) -> None:
    before = state_of(guest)
    with started(guest, STALLED) as victim:
        victim.kill()
    check_as_it_was(guest, before)
    guest.monitor.execute("migrate", uri="exec:cat > /dev/null")
    wait_for(lambda: guest.status() == "postmigrate", "a machine that was migrated away")
    guest.monitor.execute("cont")


def test_the_program_that_starts_it_notices_nothing_of_it(guest: Tiny) -> None:
    with started(guest, STALLED) as program:
        pid = watched(guest)
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""
        assert os.getsid(pid) == pid
        said, _ = program.communicate("\n", timeout=60)
    assert said.split("\n")[:2] == ["BACKGROUND no child", "none left"]
    wait_for(lambda: not watchers_of(guest.process.pid), "an end of the watcher")


def test_what_ends_all_processes_of_a_terminal_or_a_service_does_not_end_it(guest: Tiny) -> None:
    before = state_of(guest)
    with started(guest, STALLED, start_new_session=True) as victim:
        pid = watched(guest)
        os.kill(pid, signal.SIGTERM)
        os.killpg(victim.pid, signal.SIGKILL)
        assert victim.wait() == -signal.SIGKILL
    check_as_it_was(guest, before)


@pytest.mark.parametrize("how", ["os._exit(0)", "os.execv('/bin/true', ['true'])"])
def test_another_end_than_by_a_signal_is_noticed_too(guest: Tiny, how: str) -> None:
    before = state_of(guest)
    with started(guest, STALLED.replace("sys.stdin.readline()", f"sys.stdin.readline(); {how}")) as program:
        program.communicate("\n", timeout=60)
    check_as_it_was(guest, before)


def test_a_child_that_lives_on_does_not_keep_it_waiting(guest: Tiny) -> None:
    before = state_of(guest)
    forked = "if not os.fork():\n        import time\n        time.sleep(30)\n    print('now', flush=True)"
    with started(guest, STALLED.replace('print("now", flush=True)', forked), start_new_session=True) as victim:
        victim.kill()
        victim.wait()
        check_as_it_was(guest, before)
        os.killpg(victim.pid, signal.SIGKILL)  # the child


@pytest.mark.parametrize("what", ["missing", "not a program"])
def test_without_a_watcher_the_machine_is_paused(guest: Tiny, tmp_path: Path, what: str) -> None:
    package = Path(sys.modules["libmicrovmi_py"].__file__ or "").parent
    copy = tmp_path / "libmicrovmi_py"
    copy.mkdir()
    for path in package.iterdir():
        if path.name != "microvmi-watcher":
            (copy / path.name).symlink_to(path)
    if what == "not a program":
        (copy / "microvmi-watcher").write_bytes(b"")
    # Of the copy are the package's own files, and the folder that looks for the program.
    (copy / "transport").unlink()
    (copy / "transport").mkdir()
    for path in (package / "transport").glob("*.py"):
        (copy / "transport" / path.name).symlink_to(path)
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO)\n"
        "from libmicrovmi_py import Microvmi\n"
        "with Microvmi.open(sys.argv[1]) as vm: print(vm.snapshot().snapshot_info.method.name)\n"
    )
    command = [sys.executable, "-c", code, guest.uri]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.stdout == "PAUSED\n"
    reason = "No such file or directory" if what == "missing" else "Permission denied"
    assert f"microvmi-watcher, which undoes it if we are killed, cannot be started: {reason}" in done.stderr
