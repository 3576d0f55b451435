# SPDX-License-Identifier: Apache-2.0
"""Threads compare two contexts in one call, while others destroy one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from libmicrovmi_py import Microvmi

if TYPE_CHECKING:
    from threads.conftest import Run

FRAME = 4096


def image(path: Path, size: int, *, changed: bool) -> Path:
    """One that differs from others in frames 3 and 4."""
    path.write_bytes((b"\5" * 3 * FRAME + bytes([changed]) * 2 * FRAME).ljust(size, b"\5"))
    return path


def test_on_images(run: Run, seconds: int, tmp_path: Path) -> None:
    older, newer = (image(tmp_path / str(changed), 1 << 20, changed=changed) for changed in (False, True))
    run("differ", "many", older, newer, seconds)


def test_on_machines_that_python_reads(run: Run, seconds: int, tmp_path: Path) -> None:
    newer = tmp_path / "image"
    newer.write_bytes((bytes(3 * FRAME) + b"\1" * 2 * FRAME).ljust(8 * FRAME, b"\0"))
    run("differ", "many", f"vmi://fake/?size={8 * FRAME}&pattern=zero", newer, seconds)


@pytest.mark.parametrize("options", [(), ("-fake", "private")], ids=["shared", "private"])
def test_on_processes(run: Run, seconds: int, start_machine: Callable[..., str], options: tuple[str, ...]) -> None:
    older, newer = start_machine(*options), start_machine(*options)
    with Microvmi.open(newer) as vm:
        vm.write_physical(3 * FRAME, b"\xfe" * 2 * FRAME)
    run("differ", "many", older, newer, seconds)
