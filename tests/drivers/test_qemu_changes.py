# SPDX-License-Identifier: Apache-2.0
"""What others do to a QEMU while it is open, as the next call notices it; on a simulator, call by call.

``tests/live/test_changes.py`` has the same on real ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ctypes import byref, c_ubyte, c_ulong, c_ushort
from pathlib import Path
from typing import Any

import pytest
from drivers.qemu_with_monitor import QemuWithMonitor
from qemu_simulators import QemuSimulators

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import IoError, NotMappedError

DIMM = 0x180000
PLACE = 0x2000
ASKING: dict[str, Callable[[Microvmi], object]] = {
    "vCPUs": lambda machine: machine.vcpu_count(),
    "registers": lambda machine: machine.read_registers(0),
    "all registers": lambda machine: machine.read_states(),
    "pause": lambda machine: machine.pause(),
    "map": lambda machine: machine.memory_map(),
}
"""Calls that ask QEMU."""

MAY_PLUG = ("-m", "1M,slots=4,maxmem=8M")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[QemuSimulators]:
    with QemuSimulators(tmp_path) as simulators:
        yield simulators


def started(machines: QemuSimulators, *options: str) -> QemuWithMonitor:
    return QemuWithMonitor(*machines.launch("-fake", "private", *options))


# ------------------------------------------------------------------------------------------------ what is kept


@pytest.mark.parametrize("name", ASKING)
def test_whatever_asks_a_qemu_that_we_keep_paused_forgets_what_was_kept(machines: QemuSimulators, name: str) -> None:
    qemu = started(machines)
    with Microvmi.open(qemu.uri) as machine, Microvmi.open(qemu.uri) as other:
        machine.pause()
        before = machine.read_physical(PLACE, 8)
        other.write_physical(PLACE, b"changed!")
        assert machine.read_physical(PLACE, 8) == before, "a page is kept"
        ASKING[name](machine)
        assert machine.read_physical(PLACE, 8) == b"changed!"


def test_what_c_keeps_goes_as_well(machines: QemuSimulators, lib: Any, opened: Any) -> None:
    qemu = started(machines)
    context, count = opened(qemu.uri), c_ulong()

    def read() -> bytes:
        buffer = (c_ubyte * 8)()
        assert lib.microvmi_read_physical(context, PLACE, buffer, 8, byref(count)), lib.microvmi_last_error()
        return bytes(buffer)

    with Microvmi.open(qemu.uri) as other:
        assert lib.microvmi_pause(context), lib.microvmi_last_error()
        before = read()
        other.write_physical(PLACE, b"changed!")
        assert read() == before
        assert lib.microvmi_get_vcpu_count(context, byref(c_ushort())), lib.microvmi_last_error()
        assert read() == b"changed!"


def test_pages_are_kept_again_after_an_answer(machines: QemuSimulators) -> None:
    qemu = started(machines)
    with Microvmi.open(qemu.uri) as machine, Microvmi.open(qemu.uri) as other:
        machine.pause()
        machine.vcpu_count()
        before = machine.read_physical(PLACE, 8)
        other.write_physical(PLACE, b"changed!")
        assert machine.read_physical(PLACE, 8) == before


def test_a_machine_that_runs_has_nothing_made_anew_by_a_question(machines: QemuSimulators) -> None:
    with Microvmi.open(started(machines).uri) as machine:
        table = machine.physical.table()
        machine.vcpu_count()
        machine.read_registers(0)
        assert machine.physical.table() is table
        machine.pause()
        machine.resume()
        table = machine.physical.table()
        machine.vcpu_count()
        assert machine.physical.table() is table


# ------------------------------------------------------------------------------------------------ the map


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
@pytest.mark.parametrize("name", ASKING)
def test_the_map_follows_every_answer_where_memory_may_be_plugged_in(
    machines: QemuSimulators, tmp_path: Path, name: str, *, paused: bool
) -> None:
    (tmp_path / "dimm").touch()
    with Microvmi.open(started(machines, "-dimm", str(tmp_path / "dimm"), *MAY_PLUG).uri) as machine:
        assert machine.max_addr == DIMM + 0x10000
        if paused:
            machine.pause()
        (tmp_path / "dimm").unlink()
        ASKING[name](machine)
        with pytest.raises(NotMappedError):
            machine.read_physical(DIMM, 8)
        assert machine.max_addr == DIMM
        (tmp_path / "dimm").touch()
        ASKING[name](machine)
        assert machine.read_physical(DIMM, 8) == b"\xfb" * 8


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_an_event_on_the_way_has_the_map_read_anew(machines: QemuSimulators, tmp_path: Path, *, told: bool) -> None:
    (tmp_path / "dimm").touch()
    fake = ("-fake", "tell=query-cpus-fast") if told else ()
    with Microvmi.open(started(machines, "-dimm", str(tmp_path / "dimm"), *fake).uri) as machine:
        (tmp_path / "dimm").unlink()
        machine.vcpu_count()
        if told:
            with pytest.raises(NotMappedError):
                machine.read_physical(DIMM, 8)
        else:
            assert machine.read_physical(DIMM, 8)


def test_a_map_that_cannot_be_read_on_the_way_stays_the_old_one(machines: QemuSimulators) -> None:
    qemu = started(machines, *MAY_PLUG, "-fake", "refuse-when-paused=human-monitor-command")
    with Microvmi.open(qemu.uri) as machine:
        machine.pause()
        assert machine.vcpu_count() == 2
        assert machine.read_physical(PLACE, 1) == b"\x02"


# ------------------------------------------------------------------------------------------------ a migration


@pytest.fixture
def waiting(machines: QemuSimulators) -> QemuWithMonitor:
    """A machine that waits for a migration."""
    qemu = started(machines)
    qemu.execute("play-state", status="inmigrate")
    return qemu


def arrive(qemu: QemuWithMonitor) -> None:
    qemu.execute("play-state", status="running")
    time.sleep(0.05)  # an answer that it has yet to come counts for a moment


def test_a_machine_that_waits_for_a_migration_has_no_memory_yet(waiting: QemuWithMonitor) -> None:
    with Microvmi.open(waiting.uri) as machine:
        for read in (machine.read_physical, lambda address, size: machine.padded_memory.read(size)):
            with pytest.raises(IoError, match="migration has yet to bring it"):
                read(PLACE, 8)
        with pytest.raises(IoError, match=r"waits for a migration \(inmigrate\)"):
            machine.write_physical(PLACE, b"lost")
        with pytest.raises(IoError):
            machine.memory.read(8)
        with pytest.raises(IoError):
            machine.address_space(0x1000).read_virtual(0, 8)
        assert isinstance(machine.read_physical_batch([(PLACE, bytearray(8))])[0].error, IoError)


def test_its_memory_can_be_read_when_it_has_come(waiting: QemuWithMonitor) -> None:
    with Microvmi.open(waiting.uri) as machine:
        with pytest.raises(IoError):
            machine.memory.read(8)
        arrive(waiting)
        assert machine.memory.read(8) == bytes(8)
        assert machine.read_physical(PLACE, 8) == b"\x02" * 8


def test_from_c_too(waiting: QemuWithMonitor, lib: Any, opened: Any) -> None:
    context, buffer, count = opened(waiting.uri), (c_ubyte * 8)(), c_ulong()
    reads = (lib.microvmi_read_physical, lib.microvmi_read_physical_padded)
    for read in reads:
        assert not read(context, PLACE, buffer, 8, byref(count))
        assert (lib.microvmi_last_error_code(), count.value) == (IoError.code, 0)
    assert not lib.microvmi_read(context, buffer, 8, byref(count))
    arrive(waiting)
    for read in reads:
        assert read(context, PLACE, buffer, 8, byref(count)), lib.microvmi_last_error()
        assert bytes(buffer) == b"\x02" * 8
    assert lib.microvmi_read(context, buffer, 8, byref(count)), lib.microvmi_last_error()


def test_a_read_asks_no_more_than_some_times_a_second(waiting: QemuWithMonitor) -> None:
    with Microvmi.open(waiting.uri) as machine:
        waiting.execute("play-log")
        for _ in range(50):
            with pytest.raises(IoError):
                machine.read_physical(PLACE, 8)
        assert len(waiting.execute("play-log")) < 10
