# SPDX-License-Identifier: Apache-2.0
"""The example program for snapshots: what it prints, the file that it writes, and how it fails."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_it_tells_how_it_was_taken_and_where_the_vcpus_were(run: Run) -> None:
    ended = run("snapshot", "-q", "vmi://fake/?vcpus=2")
    head, *vcpus = ended.stdout.splitlines()
    assert re.fullmatch(r"paused, stood still \d+\.\d{3} ms, 1\.0 MiB of data", head)
    assert [line.split(" at ")[0] for line in vcpus] == ["vCPU 0", "vCPU 1"]
    assert ended.stderr == ""


def test_how_far_it_is_is_told_on_standard_error(run: Run) -> None:
    assert run("snapshot", "vmi://fake/").stderr.splitlines()[-1] == "100 %"


def test_the_file_has_the_memory_and_its_holes(run: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(64 * MIB)
        for place, content in ((5 * MIB, b"x" * 5000), (63 * MIB, b"y")):
            file.seek(place)
            file.write(content)
    assert run("snapshot", "-q", "./source", "./target").stdout.startswith("static, stood still 0.000 ms, 0.0 MiB")
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < MIB


def test_one_that_takes_too_much_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 2 * MIB)
    ended = run("snapshot", "-q", "-m", "1", "./source", code=1)
    assert ended.stdout == ""
    assert re.fullmatch(r"snapshot: no snapshot of ./source: .*more than 1048576 bytes.*\n", ended.stderr)


def test_a_file_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path) -> None:
    ended = run("snapshot", "-q", "vmi://fake/", "./no/file", code=1)
    assert ended.stderr == "snapshot: ./no/file: No such file or directory\n"
