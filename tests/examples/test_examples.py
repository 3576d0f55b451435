# SPDX-License-Identifier: Apache-2.0
"""The example programs: what they write, how they fail, and that no machine stays paused behind them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers.dump import builders
from qemu_simulators import QemuSimulators

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "tests" / "plugins"
FRAME = 4096

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the driver of that name notes what happened to its machine."""
    return tmp_path / "journal"


ENDINGS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SIGNALLED = ["env", "--default-signal=INT,TERM,HUP"]
"""In front of a command: what the tests themselves were started to ignore, as in the background, is not ignored."""
ENV = {"MICROVMI_PLUGIN_PATH": str(PLUGINS), "PATH": os.defpath}


def until_paused(program: subprocess.Popen[bytes], journal: Path) -> None:
    """Wait until a program has paused its machine."""
    while not journal.exists():
        assert program.poll() is None
        time.sleep(0.01)


def numbered(first: int, last: int) -> bytes:
    """Frames of the fake machine, up to but without ``last``."""
    return b"".join(frame.to_bytes(8, "little") * (FRAME // 8) for frame in range(first, last))


class TestMemDump:
    def test_puts_every_byte_at_its_physical_address(self, run: Run, tmp_path: Path) -> None:
        run("mem-dump", "vmi://fake/?size=0x900000&holes=0x4000-0x5000,0x7ff000-0x801000&rom=0x2000-0x3000")
        content = bytearray(numbered(0, 0x900))
        content[0x4000:0x5000] = bytes(FRAME)
        content[0x7FF000:0x801000] = bytes(2 * FRAME)
        assert (tmp_path / "memory.dump").read_bytes() == content

    def test_copies_an_image(self, run: Run, tmp_path: Path) -> None:
        content = os.urandom(5 << 20) + bytes(3 << 20) + os.urandom(FRAME)
        (tmp_path / "image").write_bytes(content)
        run("mem-dump", "-o", "copy", "./image")
        assert (tmp_path / "copy").read_bytes() == content

    def test_takes_a_word_that_is_no_machine_for_a_file(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "image").write_bytes(os.urandom(FRAME))
        run("mem-dump", "-o", "copy", "image")
        assert (tmp_path / "copy").read_bytes() == (tmp_path / "image").read_bytes()

    def test_leaves_holes_for_zeros(self, run: Run, tmp_path: Path) -> None:
        run("mem-dump", "-o", "zeros", "vmi://fake/?size=0x1000000&pattern=zero")
        status = (tmp_path / "zeros").stat()
        assert status.st_size == 0x1000000
        assert status.st_blocks * 512 <= 64 << 10

    def test_is_readable_by_its_owner_only(self, run: Run, tmp_path: Path) -> None:
        run("mem-dump", "vmi://fake/")
        assert (tmp_path / "memory.dump").stat().st_mode & 0o777 == 0o600

    def test_shows_no_progress_without_a_terminal(self, run: Run) -> None:
        ended = run("mem-dump", "vmi://fake/")
        assert ended.stdout == ""
        assert ended.stderr.startswith("memory.dump: 1.0 MiB of memory, ")
        assert ended.stderr.count("\n") == 1
        assert "%" not in ended.stderr

    def test_is_silent_when_asked_to_be(self, run: Run) -> None:
        ended = run("mem-dump", "-q", "vmi://fake/")
        assert ended.stdout + ended.stderr == ""

    def test_pauses_and_resumes(self, run: Run, journal: Path) -> None:
        run("mem-dump", f"vmi://journal/?size=0x3000&path={journal}")
        assert journal.read_text().split() == ["pause", "resume", "close"]

    def test_names_the_address_it_cannot_read_and_leaves_nothing(self, run: Run, journal: Path, tmp_path: Path) -> None:
        ended = run("mem-dump", f"vmi://journal/?size=0x9000&broken=0x5000&path={journal}", code=1)
        assert "cannot read memory at 0x5000: the frame at 0x5000 is broken" in ended.stderr
        assert journal.read_text().split() == ["pause", "resume", "close"]
        assert os.listdir(tmp_path) == ["journal"]

    @pytest.mark.parametrize("number", ENDINGS)
    def test_interrupted_resumes_and_leaves_nothing(
        self, bin_dir: Path, journal: Path, tmp_path: Path, number: signal.Signals
    ) -> None:
        uri = f"vmi://journal/?size=0x8000000&delay=0.0002&path={journal}"
        env = {"MICROVMI_PLUGIN_PATH": str(PLUGINS)}
        command = [*SIGNALLED, str(bin_dir / "mem-dump"), "-q", uri]
        with subprocess.Popen(command, cwd=tmp_path, env={**env, "PATH": os.defpath}) as program:
            while not list(tmp_path.glob("memory.dump.*")) or not journal.exists():
                assert program.poll() is None
                time.sleep(0.01)
            program.send_signal(number)
            assert program.wait(30) == 128 + number
        assert journal.read_text().split() == ["pause", "resume", "close"]
        assert os.listdir(tmp_path) == ["journal"]

    def test_keeps_an_older_dump_until_the_new_one_is_complete(self, run: Run, journal: Path, tmp_path: Path) -> None:
        (tmp_path / "memory.dump").write_text("older")
        run("mem-dump", f"vmi://journal/?size=0x9000&broken=0x5000&path={journal}", code=1)
        assert (tmp_path / "memory.dump").read_text() == "older"
        run("mem-dump", "vmi://fake/")
        assert (tmp_path / "memory.dump").stat().st_size == 1 << 20

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["no-such-machine"], "cannot open no-such-machine: no suitable microvmi driver available"),
            (["/no/such/image"], "cannot open /no/such/image: "),
            (["vmi://fake/?size=1"], "cannot open vmi://fake/?size=1: "),
            (["-o", "/no/such/directory/dump", "vmi://fake/"], "/no/such/directory/dump"),
            (["-o", "/dev/null", "vmi://fake/"], "/dev/null: exists and is not a regular file"),
        ],
    )
    def test_says_what_went_wrong(self, run: Run, tmp_path: Path, arguments: list[str], text: str) -> None:
        ended = run("mem-dump", *arguments, code=1)
        assert ended.stdout == ""
        assert ended.stderr.startswith("mem-dump: ")
        assert text in ended.stderr
        assert os.listdir(tmp_path) == []


def registers(text: str) -> dict[str, int]:
    """``name value`` lines as a mapping."""
    return {name: int(value, 0) for name, value in (line.split() for line in text.splitlines() if line)}


class TestRegsDump:
    def test_prints_one_vcpu(self, run: Run) -> None:
        found = registers(run("regs-dump", "vmi://fake/?vcpus=3", 1).stdout)
        assert len(found) == 1 + 41 + 8 * 4 + 2 * 2
        assert found["vcpu"] == 1
        assert found["rip"] == 0xFFF0
        assert found["rflags"] == 2
        assert (found["cs_base"], found["cs_limit"], found["cs_selector"]) == (0xFFFF0000, 0xFFFF, 0xF000)
        assert (found["cs_attributes"], found["idt_limit"], found["dr7"], found["xcr0"]) == (0x93, 0xFFFF, 0x400, 1)

    def test_prints_those_of_an_aarch64_machine(self, run: Run) -> None:
        found = registers(run("regs-dump", "vmi://arm/", 1).stdout)
        assert found.pop("vcpu") == 1
        assert [value >> 56 for value in found.values()] == list(range(1, 81))
        assert (found["x30"] >> 56, found["pc"] >> 56, found["midr_el1"] >> 56) == (31, 32, 49)

    def test_prints_no_register_that_is_not_known(self, run: Run, tmp_path: Path) -> None:
        notes = builders.prstatus(builders.values(0)) + builders.prstatus(builders.values(1))
        (tmp_path / "core").write_bytes(builders.elf({0: bytes(FRAME)}, notes))
        parts = run("regs-dump", "./core").stdout.split("\n\n")
        assert [registers(part)["vcpu"] for part in parts] == [0, 1]
        for part in parts:
            assert set(registers(part)) == {
                *("vcpu", *builders.GENERAL, "fs_base", "gs_base"),
                *(f"{name}_selector" for name in builders.SEGMENTS),
            }

    def test_prints_all_vcpus(self, run: Run) -> None:
        parts = run("regs-dump", "vmi://fake/?vcpus=3").stdout.split("\n\n")
        assert [registers(part)["vcpu"] for part in parts] == [0, 1, 2]

    def test_pauses_and_resumes(self, run: Run, journal: Path) -> None:
        run("regs-dump", f"vmi://journal/?path={journal}", code=1)
        assert journal.read_text().split() == ["pause", "resume", "close"]

    def test_says_which_vcpus_there_are(self, run: Run) -> None:
        ended = run("regs-dump", "vmi://fake/?vcpus=2", 2, code=1)
        assert ended.stdout == ""
        assert ended.stderr == "regs-dump: no vCPU 2: the machine has 2, numbered from 0\n"

    def test_says_that_an_image_has_no_registers(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "image").write_bytes(bytes(FRAME))
        ended = run("regs-dump", "./image", code=1)
        assert ended.stdout == ""
        assert ended.stderr.startswith("regs-dump: cannot get the number of vCPUs: ")


class TestPause:
    def test_waits_for_enter(self, run: Run, journal: Path) -> None:
        ended = run("pause", f"vmi://journal/?path={journal}", keys="not yet\n")
        assert ended.stdout == "paused; press Enter to let it run\nrunning\n"
        assert journal.read_text().split() == ["pause", "resume", "close"]

    def test_waits_for_a_time(self, run: Run, journal: Path) -> None:
        start = time.monotonic()
        ended = run("pause", "-t", "0.3", f"vmi://journal/?path={journal}")
        assert time.monotonic() - start >= 0.3
        assert ended.stdout == "paused for 0.3 s\nrunning\n"
        assert journal.read_text().split() == ["pause", "resume", "close"]

    def test_may_leave_the_resume_to_the_library(self, run: Run, journal: Path) -> None:
        run("pause", "--keep", "-t", "0", f"vmi://journal/?path={journal}")
        assert journal.read_text().split()[:2] == ["pause", "resume"]

    @pytest.mark.parametrize("number", ENDINGS)
    @pytest.mark.parametrize("options", [[], ["-t", "60"], ["--keep"]], ids=["enter", "time", "keep"])
    def test_ended_by_a_signal_resumes(
        self, bin_dir: Path, journal: Path, number: signal.Signals, options: list[str]
    ) -> None:
        command = [*SIGNALLED, str(bin_dir / "pause"), *options, f"vmi://journal/?path={journal}"]
        with subprocess.Popen(command, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as program:
            until_paused(program, journal)
            program.send_signal(number)
            assert program.wait(30) == 128 + number
        assert journal.read_text().split() == ["pause", "resume", "close"]

    def test_started_to_ignore_a_signal_ignores_it(self, bin_dir: Path, journal: Path) -> None:
        command = [*SIGNALLED, "nohup", str(bin_dir / "pause"), "-t", "0.5", f"vmi://journal/?path={journal}"]
        with subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
            until_paused(program, journal)
            program.send_signal(signal.SIGHUP)
            assert program.wait(30) == 0
        assert journal.read_text().split() == ["pause", "resume", "close"]

    def test_an_image_is_always_paused(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "image").write_bytes(bytes(FRAME))
        ended = run("pause", "-t", "0", "./image")
        assert (ended.stdout, ended.stderr) == ("paused for 0 s\nrunning\n", "")

    def test_says_why_a_machine_cannot_be_paused(self, run: Run) -> None:
        ended = run("pause", "vmi://borrower/", code=1)
        assert ended.stdout == ""
        assert ended.stderr == "pause: cannot pause vmi://borrower/: the borrower driver cannot pause the machine\n"


class TestEvents:
    @pytest.mark.parametrize("number", ENDINGS)
    def test_ended_by_a_signal_ends_as_ever(self, bin_dir: Path, number: signal.Signals) -> None:
        command = [*SIGNALLED, str(bin_dir / "events"), "vmi://fake/", "cr3"]
        with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
            assert program.stdout is not None
            program.stdout.readline()
            program.send_signal(number)
            assert program.communicate(timeout=30)[1] == b""
            assert program.returncode == 128 + number

    def test_prints_what_the_machine_does(self, run: Run) -> None:
        ended = run("events", "-n", "4", "vmi://fake/", "cr3", "msr:0x174")
        assert ended.stdout.splitlines() == [
            "vcpu 0 cr3 0 -> 0x1000",
            "vcpu 0 msr:0x174 0 -> 0",
            "vcpu 0 cr3 0x1000 -> 0x2000",
            "vcpu 0 msr:0x174 0 -> 0x1",
        ]

    def test_tells_the_first_write_to_a_page(self, run: Run) -> None:
        ended = run("events", "-t", "0.5", "vmi://fake/", "access:0x3210")
        assert ended.stdout == "vcpu 0 access -w- at 0x3000\n"

    def test_says_what_cannot_be_watched(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "image").write_bytes(bytes(FRAME))
        assert run("events", "./image", "cr3", code=1).stderr == (
            "events: cannot watch cr3: the dump driver cannot intercept events\n"
        )
        assert "xyz: not one of cr0" in run("events", "vmi://fake/", "xyz", code=1).stderr
        assert "control register 7" in run("events", "vmi://fake/", "cr7", code=1).stderr


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mem-dump", []),
        ("mem-dump", ["-x", "vmi://fake/"]),
        ("mem-dump", ["vmi://fake/", "vmi://fake/"]),
        ("mem-dump", ["-o"]),
        ("regs-dump", []),
        ("regs-dump", ["vmi://fake/", "first"]),
        ("regs-dump", ["vmi://fake/", "-1"]),
        ("regs-dump", ["vmi://fake/", "65536"]),
        ("pause", []),
        ("pause", ["-t", "soon", "vmi://fake/"]),
        ("pause", ["-t", "nan", "vmi://fake/"]),
        ("pause", ["--kept", "vmi://fake/"]),
        ("events", ["vmi://fake/"]),
        ("events", ["-n", "few", "vmi://fake/", "cr3"]),
        ("translate", ["vmi://fake/"]),
        ("translate", ["vmi://fake/", "there"]),
        ("translate", ["-m", "6", "vmi://fake/", "0"]),
        ("translate", ["-b", "-1", "vmi://fake/", "0"]),
        ("translate", ["-v", "65536", "vmi://fake/", "0"]),
        ("read-virtual", []),
        ("read-virtual", ["vmi://fake/", "there"]),
        ("read-virtual", ["vmi://fake/", "0", "1"]),
        ("list", ["fake", "qemu"]),
        ("list", ["-l"]),
        ("diff", ["vmi://fake/"]),
        ("diff", ["-x", "vmi://fake/", "vmi://fake/"]),
        ("snapshot", []),
        ("snapshot", ["-m", "much", "vmi://fake/"]),
    ],
)
def test_a_wrong_command_line_is_told_apart(run: Run, name: str, arguments: list[str]) -> None:
    ended = run(name, *arguments, code=2)
    assert ended.stdout == ""
    assert f"usage: {name} " in ended.stderr


@pytest.mark.parametrize(
    "name", ["mem-dump", "regs-dump", "pause", "events", "translate", "read-virtual", "list", "diff", "snapshot"]
)
def test_help_is_no_error(run: Run, name: str) -> None:
    assert run(name, "-h").stdout.startswith(f"usage: {name} ")


def test_list_prints_a_table_of_machines_and_what_opens_them(run: Run) -> None:
    head, machine = run("list", "fake").stdout.splitlines()
    assert head.split() == ["DRIVER", "PROCESS", "USER", "STATE", "MiB", "VCPUS", "NAME", "URI"]
    assert machine.split() == ["fake", "-", "-", "running", "1", "1", "-", "vmi://fake/"]


def test_list_tells_what_is_in_the_way_of_a_machine(run: Run, tmp_path: Path) -> None:
    with QemuSimulators(tmp_path) as machines:
        started = machines.launch("-m", "64")
        os.kill(started.process.pid, signal.SIGSTOP)
        lines = run("list", "qemu").stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.split()[1] == str(started.process.pid))
    assert lines[at].split()[3:5] == ["other", "64"]
    assert lines[at + 1].startswith(
        f"  cannot be opened: {started.name} (pid {started.process.pid}) is stopped by a signal"
    )


def test_list_says_that_there_are_no_machines_and_no_such_driver(run: Run) -> None:
    assert run("list", "dump", code=1).stderr == "list: there are no machines\n"
    assert "there is no driver nonesuch" in run("list", "nonesuch", code=1).stderr
