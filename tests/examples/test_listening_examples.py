# SPDX-License-Identifier: Apache-2.0
"""The example programs that listen to one thing: what they print, how they end, and how they fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ENDINGS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SIGNALLED = ["env", "--default-signal=INT,TERM,HUP,PIPE"]
"""In front of a command: what the tests themselves were started to ignore is not ignored."""
LISTENING = [["events", "vmi://fake/", "cr3"], ["cr3-watch", "vmi://fake/"], ["trace", "vmi://fake/", "0x7cc0"]]
LISTENING += [["who-writes", "vmi://fake/", "0x3000", "8"]]


class TestCr3Watch:
    @pytest.mark.parametrize("way", ["changes", "every"])
    def test_prints_what_is_loaded_and_what_was(self, run: Run, way: str) -> None:
        ended = run("cr3-watch", "-w", way, "-n", "3", "vmi://fake/?vcpus=2")
        assert [re.sub("vcpu [01]  ", "", line) for line in ended.stdout.splitlines()][:1] == ["0 -> 0x1000"]
        assert ended.stdout.count("\n") == 3
        assert ended.stderr == "cr3-watch: 3 seen, 0 lost\n"

    def test_observes_without_a_vcpu_and_without_an_answer(self, run: Run) -> None:
        ended = run("cr3-watch", "-w", "observe", "-n", "4", "vmi://fake/")
        assert ended.stdout.splitlines() == ["0x1000", "0x2000", "0x1000", "0x2000"]

    def test_counts_only(self, run: Run) -> None:
        ended = run("cr3-watch", "-q", "-n", "100", "vmi://fake/")
        assert (ended.stdout, ended.stderr) == ("", "cr3-watch: 100 seen, 0 lost\n")

    def test_says_which_ways_there_are(self, run: Run) -> None:
        ended = run("cr3-watch", "-w", "often", "vmi://fake/", code=2)
        assert ended.stderr.startswith("cr3-watch: often: not one of changes, every and observe\n")


class TestTrace:
    def test_prints_registers_at_an_address(self, run: Run) -> None:
        ended = run("trace", "-n", "2", "vmi://fake/?vcpus=2", "0x7cc0")
        line = r"vcpu [01]  0x7cc0  rdi=\w+ rsi=\w+ rdx=\w+ .* rsp=\w+ cr3=\w+  from \w+\n"
        assert re.fullmatch(f"({line}){{2}}", ended.stdout), ended.stdout

    def test_places_several(self, run: Run) -> None:
        ended = run("trace", "-n", "8", "vmi://fake/", "0x7cc0", "0x7cd0")
        assert {line.split()[2] for line in ended.stdout.splitlines()} == {"0x7cc0", "0x7cd0"}

    def test_says_what_is_no_address(self, run: Run) -> None:
        assert run("trace", "vmi://fake/", "schedule", code=1).stderr == "trace: schedule: not a number\n"


class TestWhoWrites:
    def test_prints_each_write_and_who_did_in_the_end(self, run: Run) -> None:
        ended = run("who-writes", "-n", "3", "vmi://fake/", "0x3000", "8")
        lines = ended.stdout.splitlines()
        assert len(lines) == 3
        assert all(re.fullmatch(r"vcpu 0  -w  before 0x\w+(  now 0x\w+)?", line) for line in lines), lines
        assert re.fullmatch(r"who-writes:        3  before 0x\w+\n", ended.stderr), ended.stderr

    def test_tells_reads_as_well(self, run: Run) -> None:
        ended = run("who-writes", "-r", "-n", "4", "vmi://fake/", "0x3000", "8")
        assert {line.split()[2] for line in ended.stdout.splitlines()} <= {"r-", "-w", "rw"}
        assert "r" in ended.stdout

    def test_says_what_cannot_be_watched(self, run: Run) -> None:
        ended = run("who-writes", "vmi://fake/", "0x3000", "0", code=1)
        assert ended.stderr.startswith("who-writes: cannot watch 0x3000: ")


@pytest.mark.parametrize("number", ENDINGS)
@pytest.mark.parametrize("words", LISTENING, ids=lambda words: words[0])
def test_a_signal_ends_it(bin_dir: Path, words: list[str], number: signal.Signals) -> None:
    command = [*SIGNALLED, str(bin_dir / words[0]), *words[1:]]
    with subprocess.Popen(command, env={"PATH": os.defpath}, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.send_signal(number)
        assert b"cannot" not in program.communicate(timeout=30)[1]
        assert program.returncode == 128 + number


@pytest.mark.parametrize("words", LISTENING, ids=lambda words: words[0])
def test_a_reader_who_goes_ends_it(bin_dir: Path, words: list[str]) -> None:
    command = [*SIGNALLED, str(bin_dir / words[0]), *words[1:]]
    with subprocess.Popen(command, env={"PATH": os.defpath}, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.stdout.close()
        assert program.wait(30) == 128 + signal.SIGPIPE
