# SPDX-License-Identifier: Apache-2.0
"""The driver over a stand-in for Xen's libraries."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from standin import StandIn

from libmicrovmi_py import Microvmi


@pytest.fixture(scope="session")
def stand_in_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, compiled."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    path = tmp_path_factory.mktemp("xen") / "libstandin.so"
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-shared", "-fPIC", "-O1"]
    subprocess.run([*compiler, *flags, Path(__file__).with_name("stand_in.c"), "-o", path], check=True)
    return path


@pytest.fixture
def xen(stand_in_library: Path) -> Iterator[StandIn]:
    """A stand-in as new. Afterwards nothing is left over: no mapping, no pause, no vCPU that waits, no stray call."""
    stand_in = StandIn(stand_in_library)
    yield stand_in
    left = {what: stand_in.get(what) for what in ("mapped", "stopped", "stray", "enabled", "bound", "armed")}
    assert left == dict.fromkeys(left, 0)


@pytest.fixture
def machine(xen: StandIn) -> Iterator[Microvmi]:
    """The domain, opened."""
    with xen.open() as opened:
        yield opened
