# SPDX-License-Identifier: Apache-2.0
"""The benchmark's runner, on a memory image and for moments: what it writes, not how fast anything is."""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "c_tests" / "bench" / "bench.py"
SVG = "{http://www.w3.org/2000/svg}"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the runner."""
    command = [sys.executable, str(RUNNER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "memory.raw"
    path.write_bytes(os.urandom(10 << 20))
    return path


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory, include_dir: Path) -> Path:
    """The folder of right.so and wrong.so."""
    folder = tmp_path_factory.mktemp("peers")
    compiler = shlex.split(os.environ.get("CC") or "cc")
    for name, flags in (("right", []), ("wrong", ["-DWRONG"])):
        source = Path(__file__).with_name("peer.c")
        output = folder / f"{name}.so"
        command = [*compiler, *flags, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{include_dir}"]
        subprocess.run([*command, "-o", str(output), str(source)], check=True)
    return folder


@pytest.fixture(scope="module")
def ended(
    image: Path, peers: Path, library_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One strict run, and the folder it wrote into."""
    folder = tmp_path_factory.mktemp("output")
    options = ["--library", library_path, "--image", image, "--seconds", 0.01, "--output", folder, "--strict"]
    return bench(*options, *(f"--peer={name}={peers / name}.so" for name in ("right", "wrong"))), folder


def rows(page: str) -> dict[str, list[str]]:
    """The rows of all tables of a page by their first cell."""
    lines = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    return {first.strip(): [cell.strip() for cell in others] for first, *others in lines}


def test_every_way_to_read_has_a_row_of_figures(ended: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    run, folder = ended
    found = rows((folder / "benchmarks.md").read_text())
    for subject in ("memcpy", "pread", "ours", "right"):
        assert len(found[subject]) == 7, run.stderr
        for cell in found[subject]:
            assert all(float(part.split()[0]) > 0 for part in cell.split(" / "))
    assert all(float(ratio) > 0 for ratio in found["ours, times the limit"])


def test_a_promise_is_measured_or_said_not_to_be(ended: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    run, folder = ended
    found = rows((folder / "benchmarks.md").read_text())
    assert found["shared RAM: 8 B hot"][2] in ("yes", "no")
    assert found["Python: readinto of 4 KiB"][2] in ("yes", "no")
    assert found["process start to the first byte of a guest"][2] in ("yes", "no")
    assert found["private RAM: 1 MiB"][1:3] == ["-", "not measured"]
    assert "shared RAM: 8 B hot" in run.stdout


def test_a_strict_run_fails_for_what_was_not_measured(ended: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    run, _ = ended
    assert (run.returncode, run.stderr) == (1, "")


def test_a_library_that_reads_something_else_is_left_out(
    ended: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    run, folder = ended
    page = (folder / "benchmarks.md").read_text()
    assert "- wrong (shared RAM): it does not read what is there" in page
    assert "wrong" not in rows(page)
    assert "not measured: wrong (shared RAM)" in run.stdout


def test_the_chart_has_a_bar_for_every_column(ended: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, folder = ended
    chart = ElementTree.parse(folder / "benchmarks.svg").getroot()
    bars = [float(bar.get("width", "0")) for bar in chart.iter(f"{SVG}rect")]
    assert len(bars) == 7
    assert min(bars) > 0
    assert "prefers-color-scheme: dark" in (chart.findtext(f"{SVG}style") or "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--library", "/no/such/library.so"], "/no/such/library.so is not there: run make lib"),
        (["--image", "/no/such/image"], "/no/such/image"),
        (["--image", RUNNER], "an image of at least 10 MiB is needed"),
    ],
)
def test_says_what_is_missing(arguments: list[object], text: str, library_path: Path, tmp_path: Path) -> None:
    ended = bench("--library", library_path, "--output", tmp_path, *arguments)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert text in ended.stderr
    assert os.listdir(tmp_path) == []


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that judges."""
    monkeypatch.syspath_prepend(str(RUNNER.parent))
    return importlib.import_module("results")


def test_the_limit_for_private_memory_is_the_cheaper_call(results: ModuleType) -> None:
    found = results.Results()
    lines = [("pread /proc/PID/mem", 8, 100), ("process_vm_readv", 8, 90), ("ours", 8, 99)]
    found.add("private", [["cell", name, "8 B hot", str(least), str(middle)] for name, least, middle in lines])
    assert found.limit("private", "8 B hot") == ("process_vm_readv", (8, 90))
    assert found.ratio("private", "ours", "8 B hot") == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("ours", "memcpy", "holds"), [(1.9, 2.0, True), (1.8, 2.0, False), (1.5, 1.5, False), (1.2, 1.5, False)]
)
def test_a_missed_gain_is_a_no_whatever_memcpy_reaches(
    results: ModuleType, ours: float, memcpy: float, holds: bool
) -> None:
    found = results.Results()
    found.add("shared", [["number", "gain ours", str(ours)], ["number", "gain memcpy", str(memcpy)]])
    claim = next(claim for claim in results.claims(found) if claim.text.startswith("two threads"))
    assert claim.holds is holds
