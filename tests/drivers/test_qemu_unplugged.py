# SPDX-License-Identifier: Apache-2.0
"""A DIMM that is unplugged while a machine is open: an old map does not write it."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import c_ubyte
from pathlib import Path
from typing import Any

import pytest
from drivers.qemu_with_monitor import QemuWithMonitor
from qemu_simulators import QemuSimulators

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import MicrovmiError, NotMappedError

DIMM = 0x180000
NOT_MAPPED = 6


@pytest.fixture(params=["private", "shared"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    (tmp_path / "dimm").touch()
    return ["-dimm", str(tmp_path / "dimm"), *(("-fake", "private") if request.param == "private" else ())]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[QemuSimulators]:
    with QemuSimulators(tmp_path) as simulators:
        yield simulators


def test_a_dimm_is_written_while_it_is_there(machines: QemuSimulators, options: list[str]) -> None:
    with Microvmi.open(machines.start(*options)) as machine:
        for value in (b"\x01", b"\x02"):
            machine.write_physical(DIMM + 8, value * 16)
            assert machine.read_physical(DIMM + 8, 16) == value * 16


def test_an_old_map_does_not_write_a_dimm_that_is_gone(
    machines: QemuSimulators, options: list[str], tmp_path: Path
) -> None:
    with Microvmi.open(machines.start(*options)) as machine:
        machine.write_physical(DIMM, b"\x01" * 16)
        (tmp_path / "dimm").unlink()
        with pytest.raises(NotMappedError) as caught:
            machine.write_physical(DIMM, b"\x02" * 16)
        assert (caught.value.address, caught.value.completed) == (DIMM, 0)
        machine.memory.seek(DIMM)
        with pytest.raises(NotMappedError):
            machine.memory.write(b"\x02" * 16)
        machine.write_physical(0x1000, b"\x03" * 16)  # other memory goes on
        assert machine.read_physical(0x1000, 16) == b"\x03" * 16


def test_not_from_c_either(machines: QemuSimulators, options: list[str], tmp_path: Path, lib: Any, opened: Any) -> None:
    context = opened(machines.start(*options))
    data = (c_ubyte * 16)(*b"\x01" * 16)
    assert lib.microvmi_write_physical(context, DIMM, data, 16), lib.microvmi_last_error()
    (tmp_path / "dimm").unlink()
    assert not lib.microvmi_write_physical(context, DIMM, data, 16)
    assert lib.microvmi_last_error_code() == NOT_MAPPED
    assert lib.microvmi_write_physical(context, 0x1000, data, 16), lib.microvmi_last_error()


def test_what_cannot_be_asked_is_not_written(machines: QemuSimulators, options: list[str]) -> None:
    uri = machines.start(*options, "-fake", "refuse-when-paused=human-monitor-command")
    with Microvmi.open(uri) as machine:
        before = machine.read_physical(DIMM, 16)
        machine.pause()
        with pytest.raises(MicrovmiError, match="not now"):
            machine.write_physical(DIMM, b"\x02" * 16)
        assert machine.read_physical(DIMM, 16) == before


@pytest.mark.parametrize("how", ["", "in-place", "owned"])
@pytest.mark.parametrize("renew", ["pause", "memory_map"])
def test_another_dimm_in_the_place_of_one_is_read_where_it_is(
    machines: QemuSimulators, options: list[str], tmp_path: Path, renew: str, how: str
) -> None:
    started = machines.launch(*options, "-fake", how, "-fake", "plain")
    qemu = QemuWithMonitor(*started)
    with Microvmi.open(qemu.uri) as machine:
        machine.memory_map()
        assert machine.read_physical(DIMM, 16) != b"\xfb" * 16
        (tmp_path / "dimm").unlink()
        assert qemu.execute("query-memory-devices") == []
        (tmp_path / "dimm").touch()
        assert qemu.execute("query-memory-devices") != []
        getattr(machine, renew)()
        assert machine.read_physical(DIMM, 1 << 16) == b"\xfb" * (1 << 16)
