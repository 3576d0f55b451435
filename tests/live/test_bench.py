# SPDX-License-Identifier: Apache-2.0
"""The benchmark on a guest that it measured before: a run needs nothing that the run before took away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .firmware import need_qemu
from .guest import MIB, Boot, Config, Guest

BENCH = Path(__file__).resolve().parents[2] / "c_tests" / "bench"

RUN = """
import sys
from pathlib import Path
import bench, guests, parts, programs
library, work, uri, name, pid, hva, monitor = sys.argv[1:]
machine = guests.Machine(uri, 1 << 20, 32 << 20, name, None, int(pid), int(hva), Path(monitor))
run = parts.Bench(bench.parse(["--seconds", "0.01"]), programs.Programs(Path(work), Path(library)))
run.columns(machine, "private")
assert run.results.pairs["private kept page"].partner > 0
"""


def test_a_second_run_on_the_same_guest_measures_as_the_first(boot: Boot, library_path: Path, tmp_path: Path) -> None:
    with Guest(Config("private", 128), boot) as guest:
        hva = int(guest.monitor.human(f"gpa2hva {MIB:#x}").split()[-1], 16) - MIB
        arguments = [library_path, tmp_path, guest.uri, guest.name, guest.pid, hva, guest.monitor.path]
        for _ in range(2):
            command = [sys.executable, "-c", RUN, *map(str, arguments)]
            ended = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, timeout=100, check=False)
            assert (ended.returncode, ended.stderr) == (0, "")
            assert guest.monitor.status() == "running"


@pytest.mark.parametrize(
    ("part", "figures"),
    [
        ("virtual", ["shared RAM, virtual: 8 B hot", "Python: 256 virtual pages by read_batch"]),
        ("vcpus", ["QEMU: all registers of 64 vCPUs", "QEMU: the guest stands for them"]),
    ],
)
def test_a_part_that_needs_no_kernel_is_measured(part: str, figures: list[str], library_path: Path) -> None:
    need_qemu()
    command = [sys.executable, "bench.py", "--library", str(library_path), "--only", part, "--seconds", "0.01"]
    ended = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [line for line in figures if f"\n{line} " not in ended.stdout] == []
