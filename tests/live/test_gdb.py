# SPDX-License-Identifier: Apache-2.0
"""The real gdb on a Debian guest that was moved (KASLR), in private RAM, with nothing but the guest's memory."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from needs import missing
from tools.gdb.remote import SECONDS, Client

from libmicrovmi_py import Microvmi
from libmicrovmi_py.linux.kernel import Kernel

from .guest import Boot, Config, Guest

COMMAND = (sys.executable, "-m", "libmicrovmi_py.command", "gdb")
ROOT = Path(__file__).resolve().parents[2]

BEGINNINGS = r"secondary_startup_64\w*|common_startup_64|ret_from_fork\w*|entry_\w+|asm_\w+|common_interrupt\w*"
"""Where everything that runs in an x86 kernel begins."""


@pytest.fixture(scope="module")
def moved(boot: Boot) -> Iterator[Guest]:
    """A guest whose kernel is somewhere else at every boot."""
    if shutil.which("gdb") is None:
        missing("gdb is not installed; to enable: apt-get install gdb-minimal")
    with Guest(Config("private", 256, line=""), boot) as guest:
        yield guest


@pytest.fixture
def guest(moved: Guest) -> Iterator[Guest]:
    """It runs before every test, and after it."""
    assert moved.monitor.status() == "running"
    yield moved
    assert moved.monitor.status() == "running"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's, with a folder of its own for what is kept."""
    kept = str(tmp_path_factory.mktemp("cache"))
    return {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": kept, "TERM": "dumb"}


def debugged(guest: Guest, environment: dict[str, str], *commands: str) -> str:
    """What gdb prints for commands; nothing is complained about."""
    words = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(
        [*COMMAND, guest.name, "--", "-nx", "-batch", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_threads_backtraces_and_variables_of_a_moved_kernel(guest: Guest, environment: dict[str, str]) -> None:
    out = debugged(
        guest,
        environment,
        "info threads",
        "thread apply all backtrace",
        "x/s &linux_banner",
        "p/x &_text",
        "x/2i schedule",
    )
    assert [line[2:11] for line in out.splitlines() if re.match(r"[* ] [12] ", line)] == ["1    Thre", "2    Thre"]
    assert re.search(r"Thread 2 \(vCPU 1, (kernel|user), \S.* \d+\) ", out), out
    traces = [part for part in out.split("\nThread ")[1:] if "#0" in part]
    assert len(traces) == 2
    for trace in traces:
        frames = re.findall(r"^#\d+ .*? in (\w+|\?\?) \(\)", trace, re.MULTILINE)
        of_a_program = "<signal handler called>" in trace and frames[-1] == "??"
        assert len(frames) == 1 or of_a_program or re.fullmatch(BEGINNINGS, frames[-1]), trace
    banner = re.search(r'<linux_banner>:\t"(.*)', out)
    assert banner is not None
    assert re.sub(" #[0-9]* ", " # ", banner[1])[:100] == guest.banner[:100]
    text = re.search(r"\$1 = (0x\w+)", out)
    assert text is not None
    assert int(text[1], 16) % (1 << 21) == 0
    assert int(text[1], 16) != 0xFFFFFFFF81000000, "the guest was not moved"
    assert "<schedule>:" in out


def test_backtraces_are_those_of_the_kernel_itself(guest: Guest, environment: dict[str, str]) -> None:
    """The init script sleeps between two counts: its last frames are always the same, through an interrupt or not."""
    for _ in range(5):
        out = debugged(guest, environment, "thread apply all -q backtrace")
        assert "corrupt stack" not in out
        if "start_secondary" in out or "start_kernel" in out:
            assert re.search(r"(do_idle|cpu_idle_poll\w*) \(\)\n#\d+ .* cpu_startup_entry \(\)\n#\d+ ", out), out
            return
    pytest.fail(f"no vCPU was ever idle: {out}")


def test_the_guest_runs_on_between_and_after(guest: Guest, environment: dict[str, str]) -> None:
    outputs = [debugged(guest, environment, "p *(unsigned long *)&jiffies_64") for _ in range(2)]
    first, second = (int(re.findall(r"^\$1 = (\d+)", out, re.MULTILINE)[0]) for out in outputs)
    assert first < second
    guest.monitor.execute("stop")
    try:
        debugged(guest, environment, "bt")
        assert guest.monitor.status() == "paused"
    finally:
        guest.monitor.execute("cont")


def test_breakpoints_steps_and_watchpoints(guest: Guest, environment: dict[str, str]) -> None:
    """By gdb's own commands on the symbols that it is served, and nothing of it is left."""
    out = debugged(
        guest,
        environment,
        *("break ktime_get", "hbreak tick_do_update_jiffies64", "continue", "x/i $pc", "stepi", "x/i $pc", "delete"),
        *("tbreak tick_do_update_jiffies64", "continue", "finish", "watch *(unsigned long *)&jiffies_64", "continue"),
        *("bt 1", "delete", "nexti", "detach"),
    )
    assert re.search(r"Thread \d hit Breakpoint [12], 0x\w+ in (ktime_get|tick_do_update_jiffies64) \(\)", out), out
    first, second = re.findall(r"^=> (0x\w+) <(?:ktime_get|tick_do_update_jiffies64)[^>]*>:", out, re.MULTILINE)
    assert 0 < int(second, 16) - int(first, 16) < 16
    assert re.search(r"hit Temporary breakpoint 3, 0x\w+ in tick_do_update_jiffies64 \(\)", out), out
    watched = re.search(r"hit Hardware watchpoint 4: .*\n\nOld value = (\d+)\nNew value = (\d+)\n", out)
    assert watched, out
    assert int(watched[2]) > int(watched[1])
    assert re.search(r"^#0 .* in tick_do_update_jiffies64 \(\)", out, re.MULTILINE), out
    check_nothing_is_left(guest)


def test_registers_are_written_at_a_breakpoint(guest: Guest, environment: dict[str, str]) -> None:
    commands = ("tbreak ktime_get", "continue", "set $r11 = 0x1234567", "stepi", "p/x $r11", "detach")
    out = debugged(guest, environment, *commands)
    assert "$1 = 0x1234567\n" in out, out
    check_nothing_is_left(guest)


def check_nothing_is_left(guest: Guest) -> None:
    """The stub is closed, no breakpoint is in memory or anywhere else, and the guest's clock goes on."""
    devices = guest.monitor.execute("query-chardev")
    assert not [item for item in devices if item["label"].startswith("microvmi")]
    assert guest.monitor.status() == "running"
    with Microvmi.open(guest.uri) as machine:
        kernel = Kernel.find(machine)
        clock = kernel.symbols.address("jiffies_64")
        before = kernel.pointer(clock)
        wait_for(lambda: kernel.pointer(clock) > before, "a guest that goes on")


# ------------------------------------------------------------------------------------------------ at a terminal, ends


@contextmanager
def at_a_terminal(guest: Guest, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command with a terminal of its own, and this end of it."""
    ours, its = os.openpty()
    words = ["setsid", "--ctty", *COMMAND, guest.name, "--", "-nx", "-ex", "set pagination off"]
    process = subprocess.Popen(words, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, text: bytes, process: subprocess.Popen[bytes]) -> bytes:
    """What came out, with ``text`` at its end or in it."""
    found, end = b"", time.monotonic() + 60
    while text not in found:
        assert time.monotonic() < end, found
        assert process.poll() is None, found
        found += os.read(terminal, 4096)
    return found


def test_ctrl_c_stops_a_machine_with_a_breakpoint(guest: Guest, environment: dict[str, str]) -> None:
    with at_a_terminal(guest, environment) as (process, terminal):
        read_until(terminal, b"(gdb) ", process)
        for command in (b"break kernel_halt\n", b"continue\n"):
            os.write(terminal, command)
        read_until(terminal, b"Continuing.", process)
        wait_for(lambda: guest.monitor.status() == "running", "a machine that runs")
        os.write(terminal, b"\x03")
        read_until(terminal, b"received signal SIGINT", process)
        os.write(terminal, b"continue\n")
        read_until(terminal, b"Continuing.", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    check_nothing_is_left(guest)


def test_ctrl_c_stops_the_machine_and_a_signal_lets_it_run(guest: Guest, environment: dict[str, str]) -> None:
    with at_a_terminal(guest, environment) as (process, terminal):
        read_until(terminal, b"(gdb) ", process)
        assert guest.monitor.status() == "paused"
        os.write(terminal, b"continue\n")
        read_until(terminal, b"Continuing.", process)
        wait_for(lambda: guest.monitor.status() == "running", "a machine that runs")
        os.write(terminal, b"\x03")
        read_until(terminal, b"received signal SIGINT", process)
        assert guest.monitor.status() == "paused"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    assert guest.monitor.status() == "running"


@contextmanager
def listening(guest: Guest, environment: dict[str, str], where: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server without symbols, and where it says that it listens."""
    process = subprocess.Popen(
        [*COMMAND, guest.name, "--no-symbols", "--listen", where], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().removeprefix("target remote ").strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_server_that_is_ended_lets_the_machine_run(
    guest: Guest, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    with listening(guest, environment, str(tmp_path / "s")) as (process, path):
        assert (tmp_path / "s").stat().st_mode & 0o077 == 0
        with Client(path) as client:
            assert client.ask(b"qC") == b"QC1"
            assert guest.monitor.status() == "paused"
            process.send_signal(number)
            assert process.wait(30) == -number
    assert not (tmp_path / "s").exists()


def test_a_debugger_that_is_killed_leaves_the_machine_running(guest: Guest, environment: dict[str, str]) -> None:
    with listening(guest, environment, "127.0.0.1:0") as (_, where):
        words = ["gdb", "-nx", "-ex", f"target remote {where}"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as gdb:
            wait_for(lambda: guest.monitor.status() == "paused", "a machine that stands")
            gdb.kill()
        wait_for(lambda: guest.monitor.status() == "running", "a machine that runs")


def test_a_machine_that_ends_is_told(boot: Boot, environment: dict[str, str], tmp_path: Path) -> None:
    with (
        Guest(Config("private", 64)) as firmware,
        listening(firmware, environment, str(tmp_path / "s")) as (process, path),
        Client(path) as client,
    ):
        client.ask(b"qC")
        client.send(b"c")
        firmware.kill()
        assert client.content() == b"W00"
        assert process.wait(30) == 1
