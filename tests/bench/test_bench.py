# SPDX-License-Identifier: Apache-2.0
"""The benchmark's runner, on a memory image and for moments: what it writes, not how fast anything is."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "c_tests" / "bench" / "bench.py"
SVG = "{http://www.w3.org/2000/svg}"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the runner."""
    command = [sys.executable, str(RUNNER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


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


BUILD = """
import sys
from pathlib import Path
import programs
built = programs.Programs(Path(sys.argv[1]), Path(sys.argv[2]))
print(*(built.path(name).name for name in programs.SOURCES), built.empty_call().name)
"""


def test_every_program_can_be_built(library_path: Path, tmp_path: Path) -> None:
    """Also those that need a guest to run."""
    command = [sys.executable, "-c", BUILD, str(tmp_path), str(library_path)]
    ended = subprocess.run(command, cwd=RUNNER.parent, capture_output=True, text=True, timeout=240, check=False)
    assert ended.stderr == ""
    assert set(ended.stdout.split()) <= set(os.listdir(tmp_path))
    assert "sparse" in ended.stdout


ON_SIMULATORS = [
    "fake, from C: 8 B",
    *(f"{name}, from C: {size}" for name in ("virtualbox", "kvm") for size in ("8 B", "1 MiB")),
    "kvm, a libkvmi that answers at once, from C: 8 B",
    "kvm, two threads on two machines, 4 KiB reads",
    "fake, 8 B beside another context's 16 MiB: a C program",
    "fake, 8 B beside another context's 16 MiB: a Python program",
    "Python: read of 1 MiB",
    "Python: read_physical of 1 MiB",
    "Python: seek and read of 8 B",
    "Python: 256 pages by read_physical_batch",
    "process start to the first byte of an image",
]


def test_simulators_and_what_python_costs_have_rows_with_a_partner(
    ended: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, folder = ended
    found = rows((folder / "benchmarks.md").read_text())
    for name in ON_SIMULATORS:
        limit, measured, holds, beside = found[name]
        assert holds in ("yes", "no"), name
        ratio, _, spread = measured.partition(" x ")
        low, high = (float(part) for part in spread.strip("()").split(" - "))
        assert 0 < low <= high
        assert float(ratio) > 0
        partner = limit.removeprefix("<= ").removeprefix(">= ").partition(" x ")[2].partition(" + ")[0] or "alone"
        assert f", {partner}: " in beside, name


def test_a_row_without_a_limit_says_so(ended: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, folder = ended
    found = rows((folder / "benchmarks.md").read_text())
    for name in ("virtualbox, from C: 256 pages", "kvm, from C: 256 pages", "kdump, zlib: open", "kdump, zlib: 8 B"):
        limit, measured, holds, _ = found[name]
        assert (limit, holds) == ("no limit yet", "-")
        assert " x (" in measured
    limit, measured, holds = found["QEMU: pause and resume"][:3]
    assert (limit, measured, holds) == ("<= 3 x connect, stop; connect, cont", "-", "not measured")


def test_no_limit_but_that_of_latency_is_a_time_of_some_machine(
    ended: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, folder = ended
    page = (folder / "benchmarks.md").read_text()
    promises = page[page.index("## Promises") : page.index("## Shared RAM")]
    limits = {name: limit for name, (limit, *_) in rows(promises).items() if name != "promise"}
    times = {name for name, limit in limits.items() if " x " not in limit and "%" not in limit and "no" not in limit}
    assert times == {name for name in ON_SIMULATORS if "16 MiB" in name}


def test_a_part_alone_is_printed_and_nothing_is_written(library_path: Path, tmp_path: Path) -> None:
    before = (ROOT / "docs" / "benchmarks.md").stat().st_mtime_ns
    run = bench("--library", library_path, "--only", "lookup", "--seconds", 0.01)
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert lines[:3:2] == ["Promises", lines[2]]
    assert [line.split("  ")[0] for line in lines[3:]] == ["8 B random among 10,000 regions"]
    assert (ROOT / "docs" / "benchmarks.md").stat().st_mtime_ns == before


def test_a_part_that_nobody_knows_is_refused_with_those_there_are(library_path: Path) -> None:
    run = bench("--library", library_path, "--only", "everything")
    assert run.returncode == 2
    assert "latency" in run.stderr.partition("choose from")[2]


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


def test_reads_of_a_load_are_compared_as_words(ended: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, folder = ended
    cells = rows((folder / "benchmarks.md").read_text())["a load of 8 bytes"]
    assert [cell != "-" for cell in cells] == [True, True, False, False, False, False, False]
