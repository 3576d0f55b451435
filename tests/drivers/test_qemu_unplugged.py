# SPDX-License-Identifier: Apache-2.0
"""A DIMM that is unplugged while a machine is open: an old map does not write it."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref, c_ubyte, c_ulong
from pathlib import Path
from typing import Any

import pytest
from drivers.qemu_with_monitor import QemuWithMonitor
from qemu_simulators import QemuSimulators

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import IoError, MicrovmiError, NotMappedError

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


@pytest.fixture
def vanishing(request: pytest.FixtureRequest, machines: QemuSimulators, tmp_path: Path) -> QemuWithMonitor:
    """A machine whose DIMM is private memory, which QEMU gives back; something else may come in its place."""
    (tmp_path / "dimm").touch()
    options = ["-dimm", str(tmp_path / "dimm"), "-fake", "private", "-fake", request.param]
    return QemuWithMonitor(*machines.launch(*options))


def take_out(qemu: QemuWithMonitor, folder: Path) -> None:
    (folder / "dimm").unlink()
    assert qemu.execute("query-memory-devices") == []


SIZES = [8, 4096, 20 << 10]
"""Bytes of a read by each of the ways into a process."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("vanishing", ["reused", "unmapped"], indirect=True)
def test_what_came_where_a_dimm_was_is_not_taken_for_it(vanishing: QemuWithMonitor, tmp_path: Path, size: int) -> None:
    with Microvmi.open(vanishing.uri) as machine:
        assert machine.read_physical(DIMM, size) == bytes([0]) * min(size, 4096) + b"".join(
            bytes([page]) * 4096 for page in range(1, size // 4096)
        )
        take_out(vanishing, tmp_path)
        buffer = bytearray(size)
        with pytest.raises(IoError, match="unplugged") as caught:
            machine.read_physical(DIMM, size)
        assert caught.value.completed == 0
        for result in machine.read_physical_batch([(DIMM, buffer), (DIMM + 8192, bytearray(8))]):
            assert isinstance(result.error, IoError)
            assert result.done == 0
        with pytest.raises(IoError):
            machine.read_physical_padded_into(DIMM, buffer)
        assert machine.read_physical(0x1000, 16) == b"\x01" * 16  # other memory goes on
        machine.memory_map()
        with pytest.raises(NotMappedError):
            machine.read_physical(DIMM, size)


@pytest.mark.parametrize("vanishing", ["reused"], indirect=True)
def test_it_is_not_kept_of_a_paused_machine_either(vanishing: QemuWithMonitor, tmp_path: Path) -> None:
    with Microvmi.open(vanishing.uri) as machine:
        machine.pause()
        take_out(vanishing, tmp_path)
        for _ in range(2):
            with pytest.raises(IoError):
                machine.read_physical(DIMM, 8)


@pytest.mark.parametrize("renew", ["memory_map", "pause"])
@pytest.mark.parametrize("vanishing", ["plain"], indirect=True)
def test_memory_whose_mapping_was_split_is_read_after_the_next_map(vanishing: QemuWithMonitor, renew: str) -> None:
    with Microvmi.open(vanishing.uri) as machine:
        before = machine.read_physical(DIMM, 1 << 16)
        vanishing.execute("play-split")
        with pytest.raises(IoError):
            machine.read_physical(DIMM, 1 << 16)
        getattr(machine, renew)()
        assert machine.read_physical(DIMM, 1 << 16) == before
        assert machine.read_physical(DIMM, 8) == before[:8]


@pytest.mark.parametrize("vanishing", ["reused"], indirect=True)
def test_nor_does_c_take_it(vanishing: QemuWithMonitor, tmp_path: Path, lib: Any, opened: Any) -> None:
    context, buffer, count = opened(vanishing.uri), (c_ubyte * 64)(), c_ulong()
    assert lib.microvmi_read_physical(context, DIMM, buffer, 64, byref(count)), lib.microvmi_last_error()
    take_out(vanishing, tmp_path)
    for size in (8, 64):
        assert not lib.microvmi_read_physical(context, DIMM, buffer, size, byref(count))
        assert (lib.microvmi_last_error_code(), count.value) == (IoError.code, 0)
