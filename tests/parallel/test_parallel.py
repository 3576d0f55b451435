# SPDX-License-Identifier: Apache-2.0
"""The runner of ``make test JOBS=2``, over small tests of its own: each runs once, and what any process says counts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from parallel import run, worker

CONFTEST = """
import os
from parallel.worker import Worker

def pytest_configure(config):
    config.pluginmanager.register(Worker(os.environ.pop("MICROVMI_PARALLEL")))
"""
WRITES = """
import os, time, pytest

@pytest.mark.parametrize("number", range(3))
def test_it(number):
    time.sleep(0.05)
    with open({journal!r}, "a") as journal:
        journal.write(f"{name} {{number}} {{os.getpid()}}\\n")

@pytest.mark.skip(reason="install it")
def test_skipped():
    pass
"""
MEETS = """
import os, time

def test_it():
    end = time.monotonic() + 60
    while not os.path.getsize({journal!r}) and time.monotonic() < end:
        time.sleep(0.02)
    with open({journal!r}, "a") as journal:
        journal.write(f"0 0 {{os.getpid()}}\\n")
"""
"""It lasts until another process runs a test, however late that starts."""

Outcome = tuple[bool, list[list[str]], str]
Runs = Callable[..., Outcome]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runs:
    """Runs four files of tests, and some given ones, by two processes: whether all is well, the journal, the report."""
    tests, folder, journal = tmp_path / "tests", tmp_path / "out" / "run", tmp_path / "journal"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))

    def run_them(**more: str) -> Outcome:
        tests.mkdir()
        folder.mkdir(parents=True)
        (folder.parent / "seconds.json").write_text("{}")
        (tests / "conftest.py").write_text(CONFTEST)
        for name in ("a", "b", "c", "d"):
            (tests / f"test_{name}.py").write_text(WRITES.format(journal=str(journal), name=name))
        for name, text in more.items():
            (tests / f"test_{name}.py").write_text(text)
        journal.touch()
        codes = run.run_all(folder, 2, [str(tests)])
        good = run.report(folder, codes, 0)
        return good, [line.split() for line in journal.read_text().splitlines()], capsys.readouterr().out

    return run_them


def test_every_test_runs_once_and_a_file_in_one_process(runs: Runs, tmp_path: Path) -> None:
    good, journal, printed = runs(**{"0": MEETS.format(journal=str(tmp_path / "journal"))})
    assert good
    expected = ["00", *(f"{name}{n}" for name in "abcd" for n in range(3))]
    assert sorted(name + number for name, number, _ in journal) == expected
    assert len({(name, process) for name, _, process in journal}) == 5
    assert len({process for _, _, process in journal}) == 2
    *begun, reason, words = printed.splitlines()
    assert (reason, words) == ("SKIPPED [4] install it", "13 passed, 4 skipped in 0 s by 2 processes")
    assert sorted(Path(line.split()[-1]).name for line in begun) == [f"test_{name}.py" for name in "0abcd"]


def test_one_failure_of_one_process_fails_the_run_and_is_shown(runs: Runs) -> None:
    good, journal, printed = runs(bad="def test_bad():\n    left, right = 1, 2\n    assert left == right\n")
    assert not good
    assert "assert 1 == 2" in printed
    assert "12 passed" in printed
    assert "1 failed" in printed
    assert len(journal) == 12


def test_a_process_that_crashes_fails_the_run(runs: Runs) -> None:
    good, _, printed = runs(bad="import os\n\ndef test_bad():\n    os.abort()\n")
    assert not good
    told = re.search(r"ended with -6, its output is (\S+)", printed)
    assert told
    assert "test_bad" in Path(told[1].rstrip(":,")).read_text()  # of a long output only the end is shown


def test_a_file_that_cannot_be_imported_fails_the_run(runs: Runs) -> None:
    good, journal, printed = runs(bad="import no_such_module\n")
    assert not good
    assert journal == []
    assert "No module named 'no_such_module'" in printed


def test_tests_that_measure_time_run_when_nothing_else_runs(runs: Runs, tmp_path: Path) -> None:
    text = WRITES.format(journal=str(tmp_path / "journal"), name="alone")
    good, journal, printed = runs(alone="import pytest\npytestmark = pytest.mark.alone\n" + text)
    assert good
    assert [name for name, _, _ in journal[12:]] == ["alone"] * 3
    assert "15 passed" in printed


def item(file: str, *fixtures: str) -> Any:
    """As much of a test as its group depends on."""
    return SimpleNamespace(nodeid=f"{file}::test_it", fixturenames=fixtures)


def test_tests_that_share_guests_are_one_group_and_so_is_the_xen_lab_which_comes_first() -> None:
    items = [item("tests/bench/test_a.py"), item("tests/xenlab/test_a.py", "lab"), item("tests/xenlab/test_b.py")]
    items += [item(f"tests/live/test_{name}.py", "booted", "guest") for name in "ab"] + [item("tests/live/test_b.py")]
    groups = {worker.group_of(item) for item in items}
    ordered = sorted(groups, key=lambda group: worker.place_of(group, {}))
    assert ordered == [worker.XEN, "tests/bench/test_a.py", worker.GUESTS, "tests/live/test_b.py"]
    seconds = {worker.XEN: 2.0, worker.GUESTS: 3.0, "tests/bench/test_a.py": 1.0}
    ordered = sorted(groups, key=lambda group: worker.place_of(group, seconds))
    assert ordered == ["tests/live/test_b.py", worker.GUESTS, worker.XEN, "tests/bench/test_a.py"]


def test_what_took_long_comes_first_in_the_next_run(runs: Runs, tmp_path: Path) -> None:
    folder, names = tmp_path / "out" / "run", ["together-1", "together-2", "alone-1"]
    alone = "@pytest.mark.alone\ndef test_quick():\n    pass\n"
    runs(c=f"import pytest, time\n\ndef test_it():\n    time.sleep(1)\n\n{alone}")
    seconds = run.learn(folder, names)
    assert len(seconds) == 4
    assert max(seconds, key=seconds.__getitem__).endswith("test_c.py")
    assert json.loads((tmp_path / "out" / "seconds.json").read_text()) == seconds
    taken = folder / "taken-together"
    taken.unlink()
    run.run_all(folder, 1, [str(tmp_path / "tests")])
    assert taken.read_text().splitlines() == sorted(seconds, key=seconds.__getitem__, reverse=True)
