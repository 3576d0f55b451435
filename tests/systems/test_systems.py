# SPDX-License-Identifier: Apache-2.0
"""The program behind ``make test-systems``: what it asks for, tells and counts. The trees it makes by itself."""

from __future__ import annotations

import io
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .commands import Host
from .facts import emulator
from .report import Progress, Row, counts, table
from .runs import FOR_LIBRARY, Task, _other_qemu, _packages, _wanted
from .settings import DEBIANS, HOST, ROOT, SETS, SYSTEMS, Settings, SetupError, System

CALL = "import os, sys; from systems.__main__ import main; {before}; sys.exit(main())"


def _run(before: str = "pass", **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": "/no-such-directory", "PYTHONPATH": str(ROOT / "tests"), **environment}
    command = [sys.executable, "-c", CALL.format(before=before)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_an_ordinary_user_is_told_what_it_takes(tmp_path: Path) -> None:
    before = "os.setresuid(65534, 65534, 65534)" if os.geteuid() == 0 else "pass"
    ended = _run(before, XDG_CACHE_HOME=str(tmp_path))
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "need root (chroot): sudo make test-systems; without: SYSTEMS=host" in ended.stderr


def test_without_debootstrap_the_command_is_told(tmp_path: Path) -> None:
    ended = _run("os.geteuid = lambda: 0", XDG_CACHE_HOME=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "test-systems: no debootstrap, which makes the trees: apt-get install debootstrap\n"


def test_a_system_that_is_not_known_lists_those_that_are() -> None:
    ended = _run(SYSTEMS="sid buster")
    assert ended.returncode == 2
    known = "bookworm trixie sid bookworm-qemu5 bookworm-arm64 host"
    assert ended.stderr == f"test-systems: SYSTEMS=buster: no such system; it takes {known}\n"


def test_without_an_emulator_the_command_is_told() -> None:
    with pytest.raises(SetupError, match="nothing runs z80's programs here: apt-get install qemu-user-static") as told:
        System("bookworm", "z80", "z80").check()
    assert "\n" not in str(told.value)
    System("bookworm").check()
    System("bookworm", "its own", platform.machine()).check()


def test_an_emulator_is_asked_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the link that Debian's kernel entries have it takes a program and no options."""
    program, link = tmp_path / "qemu-z80-static", tmp_path / "z80-binfmt-P"
    program.write_text('#!/bin/sh\ncase $0 in *-binfmt-P) exit 1 ;; esac\necho "qemu-z80 version 7.2.22 (Debian)"\n')
    program.chmod(0o755)
    link.symlink_to(program)
    (tmp_path / "qemu-z80").write_text(f"enabled\ninterpreter {link}\nflags: PF\n")
    monkeypatch.setattr("systems.settings.EMULATORS", tmp_path)
    assert emulator(System("bookworm", "z80", "z80")) == "qemu-user 7.2.22"


def test_a_system_has_all_tests_that_it_can_run_unless_others_were_chosen() -> None:
    ours = Settings.from_environment({})
    emulated = [name for name in DEBIANS if DEBIANS[name].emulated]
    assert {name: ours.tests_of(name) for name in SYSTEMS} == {
        **dict.fromkeys(DEBIANS, "all"),
        **dict.fromkeys(emulated, "library"),
        HOST: "no-live",
    }
    chosen = Settings.from_environment({"TESTS": "tests/memory  tests/capi", "CC": "clang"})
    assert {chosen.tests_of(name) for name in SYSTEMS} == {"tests/memory tests/capi"}
    assert Task(chosen, "sid", print, print).before == "export PYTEST_ADDOPTS='tests/memory tests/capi'; "
    live = Task(Settings.from_environment({"TESTS": "tests/memory tests/live/test_read.py"}), "sid", print, print)
    assert live.before == "export CI=true; export PYTEST_ADDOPTS='tests/memory tests/live/test_read.py'; "
    assert Task(chosen, "sid", print, print).make == "make CC=clang"
    assert "CI" not in Task(ours, HOST, print, print).before
    assert all(not Task(ours, name, print, print).machines for name in emulated)


def test_the_set_that_needs_no_machine_skips_what_has_none_of_its_packages() -> None:
    task = Task(Settings.from_environment({"TESTS": "library"}), "sid", print, print)
    assert "CI" not in task.before
    assert sorted(_packages(task).split()) == sorted([*FOR_LIBRARY, "gcc"])
    assert {*FOR_LIBRARY} < {*_packages(Task(Settings.from_environment({}), "sid", print, print)).split()}


def test_another_releases_qemu_takes_the_place_of_each_package_of_it() -> None:
    command = _other_qemu("bullseye", "http://mirror/debian")
    assert command.startswith("echo deb http://mirror/debian bullseye main > /etc/apt/sources.list.d/bullseye.list && ")
    assert command.endswith(" --allow-downgrades qemu-system-arm/bullseye qemu-system-x86/bullseye qemu-utils/bullseye")


def test_words_for_tests_name_what_is_there() -> None:
    ignored = [word.removeprefix("--ignore=") for words in SETS.values() for word in words.split()]
    assert "tests/live" in ignored
    assert all((ROOT / path).exists() for path in ignored)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            "x\n=== 3 failed, 170 passed, 2 skipped in 256.37s (0:04:16) ===\n",
            {"failed": 3, "passed": 170, "skipped": 2},
        ),
        ("=== 7 passed, 4 deselected in 9.00s ===\n", {"passed": 7, "deselected": 4}),
        ("12 passed in 0.50s\nmake: done\n", {"passed": 12}),
        ("1 passed in 0.1s\n=== 1 failed, 1 error in 2.00s ===\n", {"failed": 1, "error": 1}),
        ("3 passed, but not in the last line\nmake: *** Error 1\n", {}),
    ],
)
def test_tests_are_counted_by_pytests_last_line(log: str, expected: dict[str, int]) -> None:
    assert counts(log) == expected


def test_a_run_is_good_only_when_all_of_it_passed() -> None:
    good = Row("sid", "3.14", "11.1", "ok", {"passed": 5, "skipped": 1}, 90.0, ended=True)
    assert good.good
    bad = [
        Row("sid", "3.14"),
        Row("sid", "3.14", demo="failed", counts={"passed": 5}, ended=True),
        Row("sid", "3.14", demo="ok", counts={"passed": 5, "error": 1}, ended=True),
        Row("sid", "3.14", demo="ok", counts={"passed": 5}),
        Row("sid", "3.14", demo="ok", ended=True),
    ]
    assert not any(row.good for row in bad)
    head, first, second = table([good, bad[2]]).splitlines()
    assert head.split() == ["system", "Python", "QEMU", "tests", "demo", "passed", "failed", "skipped", "minutes"]
    assert first.split() == ["sid", "3.14", "11.1", "all", "ok", "5", "0", "1", "1.5"]
    assert second.split() == ["sid", "3.14", "-", "all", "ok", "5", "1", "0", "0.0"]


def test_each_step_is_one_line_in_a_pipe_and_a_failure_shows_its_log(tmp_path: Path) -> None:
    stream = io.StringIO()
    host = Host(HOST, Settings.from_environment({"MICROVMI_SYSTEMS_DIR": str(tmp_path)}), Progress(stream))
    assert host.run("a good one", "good", "echo fine") == (True, "fine\n")
    assert host.run("a bad one", "bad", "echo the reason; exit 3") == (False, "the reason\n")
    assert re.sub(r", \d+ s\n", ", N s\n", stream.getvalue()).splitlines() == [
        "host: a good one: ok, N s",
        "host: a bad one: FAILED, N s",
        "    the reason",
        f"    all of it: {tmp_path}/host/logs/bad.log",
    ]


def test_signals_that_we_ignore_are_not_ignored_by_what_we_run(tmp_path: Path) -> None:
    code = (
        "import io, signal; from systems.commands import Host; from systems.report import Progress\n"
        "from systems.settings import HOST, Settings; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        f"settings = Settings.from_environment({{'MICROVMI_SYSTEMS_DIR': {str(tmp_path)!r}}})\n"
        "print(Host(HOST, settings, Progress(io.StringIO())).run('x', 'x', 'kill -HUP $$; echo lived')[1])"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    ended = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert "lived" not in ended.stdout


def test_the_pythons_that_were_asked_for_are_taken() -> None:
    found = ["python3.14", "python3.13", "python3.15"]
    assert _wanted(found, ()) == found
    assert _wanted(found, ("python3",)) == ["python3.14"]
    assert _wanted(found, ("python3.15", "python3.9")) == ["python3.15"]
