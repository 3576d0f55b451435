# SPDX-License-Identifier: Apache-2.0
"""The example program for differences: what it prints, what it ends with, and how it fails."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

FRAME = 4096
MIB = 1 << 20

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def images(tmp_path: Path) -> tuple[str, str]:
    """Two that differ in two places, and in their lengths."""
    older = bytearray(b"\5" * 8 * MIB)
    newer = older + b"\0"
    newer[5 * FRAME] = newer[6 * FRAME] = newer[-2] = 6
    (tmp_path / "older").write_bytes(older)
    (tmp_path / "newer").write_bytes(newer)
    return "./older", "./newer"


def test_each_run_of_pages_is_a_line(run: Run, images: tuple[str, str]) -> None:
    ended = run("diff", *images, code=1)
    assert ended.stdout.splitlines() == [
        "0x0000000000005000 0x2000 ram",
        "0x00000000007ff000 0x2000 ram",
    ]
    assert ended.stderr == "4 pages differ\n"


def test_runs_that_several_calls_find_are_joined(run: Run, tmp_path: Path) -> None:
    (tmp_path / "older").write_bytes(b"")
    (tmp_path / "newer").write_bytes(b"")
    for name in ("older", "newer"):
        with (tmp_path / name).open("r+b") as file:
            file.truncate(40 * MIB)
    (tmp_path / "newer").write_bytes(b"\1" * 40 * MIB)
    fake = "vmi://fake/?size=0x2800000&pattern=zero"
    for older in ("./older", fake):
        assert run("diff", older, "./newer", code=1).stdout == "0x0000000000000000 0x2800000 ram\n"


def test_the_same_are_the_same(run: Run, images: tuple[str, str]) -> None:
    ended = run("diff", images[0], images[0])
    assert (ended.stdout, ended.stderr) == ("", "0 pages differ\n")
    assert run("diff", "-q", images[0], images[0]).stderr == ""
    assert run("diff", "-q", *images, code=1).stdout == ""


def test_what_cannot_be_read_is_told_behind_what_was_found(run: Run, images: tuple[str, str]) -> None:
    fake = "vmi://fake/?size=0x800000&unreadable=0x6000-0x7000"
    ended = run("diff", fake, images[0], code=2)
    assert ended.stdout == "0x0000000000000000 0x6000 ram\n"
    assert ended.stderr.startswith("diff: at 0x6000: ")
    assert "cannot open" in run("diff", images[0], "./nobody", code=2).stderr
