# SPDX-License-Identifier: Apache-2.0
"""Machines made of bytes that a server of gdb's protocol serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.gdb.remote import Client, served

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.fake import FakeDriver


@pytest.fixture
def machine() -> Iterator[Microvmi]:
    """Two vCPUs of x86, and memory with a hole."""
    with Microvmi.open("vmi://fake/?size=0x80000&vcpus=2&holes=0x9000-0xa000") as opened:
        yield opened


@pytest.fixture
def driver(machine: Microvmi) -> FakeDriver:
    assert isinstance(machine.driver, FakeDriver)
    return machine.driver


@pytest.fixture
def path(machine: Microvmi, tmp_path: Path) -> Iterator[str]:
    """Where the machine is served."""
    with served(machine, tmp_path) as where:
        yield where


@pytest.fixture
def client(path: str) -> Iterator[Client]:
    with Client(path) as connected:
        yield connected
