# SPDX-License-Identifier: Apache-2.0
"""What is kept of runs on other systems, and the page that is made of it."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from .facts import QUESTIONS, fill, questions, version
from .leftout import EMULATED, OLD_QEMU, Tests, options
from .report import Row
from .results import DATA, PAGE, keep, load, merged, page, write
from .runs import Task
from .settings import ROOT, SETS, SYSTEMS, Settings

ROW = Row(
    *("sid", "3.14.10", "11.1.3", "ok", {"passed": 5, "skipped": 2, "deselected": 1}, 125.0, True, "all"),
    *("Debian GNU/Linux forky/sid", "x86_64", "", "2.42", "gcc 16.1.0", "2026-11-02", "0.5.0"),
)


def test_the_page_is_what_is_made_of_the_data() -> None:
    assert PAGE.read_text() == page(load()), f"{PAGE} was changed by hand: make test-systems writes it"


def test_the_data_are_runs_in_order_each_once() -> None:
    rows = load()
    assert rows, f"{DATA} is empty"
    for row in rows:
        assert merged(rows, row) == rows
        assert row.system in SYSTEMS
        assert row.date
        assert row.source


def test_a_line_has_what_ran_where_and_how_it_ended() -> None:
    (line,) = [line for line in page([ROW]).splitlines() if "2026-11-02" in line]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("2026-11-02", "sid: Debian GNU/Linux forky/sid", "x86_64", "2.42", "gcc 16.1.0", "3.14.10", "11.1.3", "all"),
        *("ok", "5", "0", "2", "1", "2", "0.5.0"),
    ]
    by_emulator = replace(ROW, processor="aarch64", emulator="qemu-user 7.2.1")
    by_emulator = replace(by_emulator, tests="tests/memory", counts={"error": 3})
    (line,) = [line for line in page([by_emulator]).splitlines() if "2026-11-02" in line]
    assert "| aarch64, by qemu-user 7.2.1 |" in line
    assert "| `tests/memory` | ok | 0 | 3 | 0 | 0 |" in line


def test_a_run_replaces_the_one_that_it_repeats_alone(tmp_path: Path) -> None:
    data, made = tmp_path / "kept.json", tmp_path / "page.md"
    write([], data, made)
    others = [
        replace(ROW, python="3.9.2"),
        replace(ROW, compiler="clang 21.1.8"),
        replace(ROW, tests="no-live"),
        replace(ROW, tests="tests/memory"),
        replace(ROW, system="bookworm"),
    ]
    again = replace(ROW, python="3.14.11", compiler="gcc 16.2.0", qemu="11.2.0", counts={"failed": 1})
    for row in (ROW, *others, again):
        keep(row, data, made)
    kept = load(data)
    assert ROW not in kept
    assert {json.dumps(vars(row)) for row in kept} == {json.dumps(vars(row)) for row in (*others, again)}
    assert made.read_text() == page(kept)
    assert next(row.python for row in kept if row.system == "sid") == "3.9.2"  # by number, not by letter


def test_every_word_for_tests_that_is_used_is_explained() -> None:
    text = page([replace(ROW, tests=word) for word in SETS])
    assert all(f"\n| {word} | " in text for word in SETS)
    assert "\n| library | " not in page([ROW])


def test_a_system_tells_what_it_is_made_of() -> None:
    told = subprocess.run(["sh", "-c", questions("cc", str(ROOT))], capture_output=True, text=True, check=True).stdout
    assert len(told.splitlines()) == len(QUESTIONS)
    row = Row("host", "3.11.2")
    fill(row, told, "cc")
    assert version(row.glibc) == row.glibc
    assert row.compiler.startswith("cc ")
    assert version(row.compiler) in row.compiler
    assert row.date[:2] == "20"
    assert row.source.count(".") == 2


def test_what_is_not_there_is_a_dash() -> None:
    row = Row("bookworm-arm64", "3.11.2")
    fill(row, "Debian GNU/Linux 12 (bookworm)\naarch64\nglibc 2.36\nDebian clang version 14.0.6\n\n\n", "clang")
    assert (row.processor, row.glibc, row.compiler, row.qemu) == ("aarch64", "2.36", "clang 14.0.6", "-")


@pytest.mark.parametrize("left_out", [EMULATED, OLD_QEMU], ids=["emulated", "old QEMU"])
def test_tests_that_are_left_out_are_there_and_are_told_with_the_reason(left_out: Tests) -> None:
    text, given = page([ROW]), shlex.split(options(left_out))
    for reason, tests in left_out.items():
        assert reason in text
        for test in tests:
            path, _, name = test.partition("::")
            assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text() if name else (ROOT / path).is_file()
            assert f"--deselect={test}" in given


def test_only_systems_that_cannot_pass_them_leave_tests_out() -> None:
    before = {name: Task(Settings.from_environment({}), name, print, print).before for name in SYSTEMS}
    without = [name for name in before if "--deselect" not in before[name]]
    assert [name for name in SYSTEMS if name not in without] == ["bookworm-qemu5", "bookworm-arm64"]
    library = Settings.from_environment({"TESTS": "library"})
    assert "--deselect" not in Task(library, "bookworm-qemu5", print, print).before
