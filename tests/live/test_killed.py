# SPDX-License-Identifier: Apache-2.0
"""QEMU is killed while eight threads read, each in its own way: fifty times, over every kind of memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import Programs

from .conftest import NewGuest

PLANS = {"private": ("private", 15), "paused": ("private", 10), "file": ("file", 5), "memfd": ("memfd", 20)}
"""What the readers expect -> kind of RAM and times; together fifty."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, include_dir: Path, library_path: Path) -> Path:
    """The program that kills."""
    return Programs(tmp_path_factory.mktemp("killed"), include_dir, library_path).linked("killed")


@pytest.mark.parametrize("plan", PLANS)
def test_every_reader_of_a_killed_machine_is_told_in_time(new_guest: NewGuest, killed: Path, plan: str) -> None:
    ram, times = PLANS[plan]
    for _ in range(times):
        guest = new_guest(ram=ram)
        if plan == "paused":
            guest.monitor.execute("cont")
        Programs.run(killed, guest.uri, guest.pid, plan if ram == "private" else "shared")
        guest.kill()
