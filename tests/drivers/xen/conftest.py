# SPDX-License-Identifier: Apache-2.0
"""The driver over a simulator of Xen."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.xen.simulator import Simulator

from libmicrovmi_py import Microvmi


@pytest.fixture(scope="session")
def simulator_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulator, compiled."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    path = tmp_path_factory.mktemp("xen") / "libxensimulator.so"
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-shared", "-fPIC", "-O1"]
    subprocess.run([*compiler, *flags, Path(__file__).with_name("simulator.c"), "-o", path], check=True)
    return path


@pytest.fixture
def xen(simulator_library: Path) -> Iterator[Simulator]:
    """A simulator as new. Afterwards nothing is left over: no mapping, no pause, no vCPU that waits, no stray call."""
    simulator = Simulator(simulator_library)
    yield simulator
    left = {what: simulator.get(what) for what in ("mapped", "stopped", "stray", "enabled", "bound", "armed")}
    assert left == dict.fromkeys(left, 0)


@pytest.fixture
def machine(xen: Simulator) -> Iterator[Microvmi]:
    """The domain, opened."""
    with xen.open() as opened:
        yield opened
