# SPDX-License-Identifier: Apache-2.0
"""Simulated VirtualBox machines for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.virtualbox.simulator import Simulator, build, simulated

from libmicrovmi_py import Microvmi

SIZE = 0x800000
HOLE = 0x300000


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The libFDP of the tests, with the program that plays machines beside it."""
    return build(tmp_path_factory.mktemp("virtualbox"))


@pytest.fixture
def vm(library: Path) -> Iterator[Simulator]:
    """A machine of 8 MiB with a page missing at ``HOLE``."""
    with simulated(library, {0: HOLE, HOLE + 0x1000: SIZE - HOLE - 0x1000}) as one:
        yield one


@pytest.fixture
def machine(vm: Simulator) -> Iterator[Microvmi]:
    """That machine, open."""
    with Microvmi.open(vm.uri) as opened:
        yield opened
