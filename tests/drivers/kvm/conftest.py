# SPDX-License-Identifier: Apache-2.0
"""Played machines with KVMi, and the libkvmi to reach them with."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from drivers.kvm.library import library
from drivers.kvm.simulator import Simulator

from libmicrovmi_py import Microvmi


@pytest.fixture(scope="session")
def libkvmi(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a libkvmi.so."""
    return library(tmp_path_factory.mktemp("libkvmi"))


@pytest.fixture(scope="session")
def pieces() -> dict[int, bytes]:
    """What memory holds: two pieces with a hole of two frames between."""
    chance = random.Random(1)
    return {0: chance.randbytes(0x40000), 0x42000: chance.randbytes(0x8000)}


@pytest.fixture
def socket_path(tmp_path: Path) -> str:
    """Where the driver listens."""
    return str(tmp_path / "introspector")


@pytest.fixture
def simulator(socket_path: str, pieces: Mapping[int, bytes]) -> Iterator[Simulator]:
    """A machine of two vCPUs that wants to be introspected; it must have had nothing to complain of."""
    simulator = Simulator(socket_path, pieces).start()
    yield simulator
    simulator.stop()
    assert simulator.complaints == []


@pytest.fixture
def reach(socket_path: str, libkvmi: str) -> Iterator[Callable[..., Microvmi]]:
    """Opens the machine that connects, with parameters of one's own if need be."""
    opened = []

    def reach(**parameters: Any) -> Microvmi:
        given = {"kvm_unix_socket": socket_path, "library": libkvmi, "timeout": 5, **parameters}
        opened.append(Microvmi(driver="kvm", **given))
        return opened[-1]

    yield reach
    for machine in opened:
        machine.close()


@pytest.fixture
def machine(simulator: Simulator, reach: Callable[..., Microvmi]) -> Microvmi:
    """The simulator machine, open."""
    return reach()
