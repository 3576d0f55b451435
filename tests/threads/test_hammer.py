# SPDX-License-Identifier: Apache-2.0
"""Threads do everything at once, on one context, on many, and on one that another thread destroys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from drivers.virtualbox.simulator import build, simulated

if TYPE_CHECKING:
    from threads.conftest import Run

FAKE = "vmi://fake/?size=0x200000&holes=0x180000-0x190000"


def test_on_a_machine_that_python_reads(run: Run, seconds: int) -> None:
    run("hammer", "fake", FAKE, seconds)


def test_on_a_machine_whose_pages_are_not_kept(run: Run, seconds: int) -> None:
    run("hammer", "fake", f"{FAKE}&cache=0", seconds)


def test_on_a_mapped_image(run: Run, seconds: int, tmp_path: Path) -> None:
    run("hammer", "image", tmp_path / "image.raw", seconds)


@pytest.mark.parametrize("options", [(), ("-fake", "private")], ids=["shared", "private"])
def test_on_another_process(
    run: Run, seconds: int, start_machine: Callable[..., str], options: tuple[str, ...]
) -> None:
    run("hammer", "process", start_machine(*options), seconds)


@pytest.mark.parametrize("uri", [FAKE, "image"])
def test_a_call_from_the_end_of_a_thread(run: Run, tmp_path: Path, uri: str) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes([0] * 4096 + [1] * 4096))
    run("threads", "late", image if uri == "image" else uri)


@pytest.mark.parametrize("arguments", [("race",), ("threads", "ended"), ("threads", "destroy")])
def test_threads_that_come_and_go(run: Run, arguments: tuple[str, ...]) -> None:
    run(*arguments)


def test_on_a_library_of_a_hypervisor(run: Run) -> None:
    run("foreign")


def test_on_a_machine_that_a_library_reads(run: Run, seconds: int, tmp_path: Path) -> None:
    with simulated(build(tmp_path), {0: 0x180000, 0x190000: 0x70000}) as machine:
        run("hammer", "virtualbox", machine.uri, seconds)
