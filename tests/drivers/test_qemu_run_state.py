# SPDX-License-Identifier: Apache-2.0
"""The run states of QEMU, played by a program that speaks QMP: what is refused, taken back, left, and told."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from ctypes import POINTER, byref, c_uint8, c_uint64, cast, create_string_buffer
from pathlib import Path
from typing import Any

import pytest
from drivers.qemu_with_monitor import QemuWithMonitor, qemu_with_monitor

from libmicrovmi_py import Microvmi, release_all
from libmicrovmi_py.drivers.control import SupportsPause
from libmicrovmi_py.errors import DriverUnavailableError, IoError, MicrovmiError, TimeoutExpiredError, VmGoneError

Play = Callable[..., QemuWithMonitor]


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[QemuWithMonitor]:
    with qemu_with_monitor(tmp_path) as qemu:
        yield qemu


TRANSIENT = ("save-vm", "restore-vm", "finish-migrate", "colo")
NEVER = (*TRANSIENT, "inmigrate", "internal-error", "shutdown", "debug", "suspended", "preconfig", "something-new")


@pytest.mark.parametrize("status", NEVER)
def test_a_resume_that_does_harm_is_refused_in_a_line(qemu: QemuWithMonitor, status: str) -> None:
    with Microvmi.open(qemu.uri) as machine:
        qemu.execute("play-state", status=status)
        with pytest.raises(DriverUnavailableError, match=rf"\({status}\)") as caught:
            machine.resume()
        assert str(caught.value).isprintable()
        assert qemu.status() == status


@pytest.mark.parametrize("status", ["paused", "prelaunch", "io-error", "watchdog", "guest-panicked"])
def test_a_resume_is_the_normal_thing_in_other_states(qemu: QemuWithMonitor, status: str) -> None:
    with Microvmi.open(qemu.uri) as machine:
        qemu.execute("play-state", status=status)
        machine.resume()
        assert qemu.status() == "running"


@pytest.mark.parametrize("status", [*TRANSIENT, "inmigrate", "preconfig", "something-new"])
def test_a_pause_that_is_none_is_refused(qemu: QemuWithMonitor, status: str) -> None:
    with Microvmi.open(qemu.uri) as machine:
        qemu.execute("play-state", status=status)
        with pytest.raises(DriverUnavailableError, match=rf"\({status}\)"):
            machine.pause()
    assert qemu.status() == status


def test_a_machine_that_sleeps_is_not_paused_and_says_so(qemu: QemuWithMonitor) -> None:
    with Microvmi.open(qemu.uri) as machine:
        qemu.execute("play-state", status="suspended")
        with pytest.raises(IoError, match="sleeps"):
            machine.pause()
        qemu.execute("play-state", status="paused")  # others: it woke up, and was stopped
    assert qemu.status() == "paused"


def uses(machine: Microvmi) -> list[Callable[[], Any]]:
    return [
        machine.pause,
        machine.resume,
        machine.memory_map,
        machine.vcpu_count,
        lambda: machine.read_registers(0),
        machine.read_states,
        lambda: machine.write_state({"rbx": 1}),
    ]


def test_a_machine_that_was_migrated_away_says_so(qemu: QemuWithMonitor) -> None:
    with Microvmi.open(qemu.uri) as machine:
        machine.pause()
        qemu.execute("play-state", status="postmigrate")
        for use in uses(machine):
            with pytest.raises(VmGoneError, match="migrated away"):
                use()
    with pytest.raises(MicrovmiError, match="migrated away"):
        Microvmi.open(qemu.uri)
    assert qemu.status() == "postmigrate"


ADDRESSES = (0x1000, 0x100000, 0xFD000000)
"""In shared or private RAM, and in private memory of a device."""


@pytest.mark.parametrize("options", [(), ("-fake", "private")], ids=["shared", "private"])
def test_memory_of_a_machine_that_was_migrated_away_says_so_from_then_on(
    tmp_path: Path, lib: Any, opened: Callable[[str], int], options: tuple[str, ...]
) -> None:
    buffer, count = create_string_buffer(8), c_uint64()
    with qemu_with_monitor(tmp_path, *options) as qemu, Microvmi.open(qemu.uri) as machine:
        context = opened(qemu.uri)
        kept = machine.read_physical(0x1000, 8)
        assert lib.microvmi_read_physical(context, 0x1000, cast(buffer, POINTER(c_uint8)), 8, byref(count))
        qemu.execute("play-state", status="postmigrate")
        with pytest.raises(VmGoneError):
            machine.vcpu_count()
        assert not lib.microvmi_pause(context)
        for address in ADDRESSES:
            for size in (8, 64 << 10):
                with pytest.raises(VmGoneError, match="migrated away"):
                    machine.read_physical(address, size)
            with pytest.raises(VmGoneError, match="migrated away"):
                machine.write_physical(address, b"12345678")
            assert not lib.microvmi_read_physical(context, address, cast(buffer, POINTER(c_uint8)), 8, byref(count))
            assert (lib.microvmi_last_error_code(), count.value) == (VmGoneError.code, 0)
        with pytest.raises(VmGoneError):
            machine.memory.read(8)
        qemu.execute("play-state", status="running")  # its user took it back
        machine.memory_map()
        assert machine.read_physical(0x1000, 8) == kept


@pytest.mark.parametrize("status", [*NEVER, "prelaunch", "io-error", "watchdog", "guest-panicked"])
def test_taking_back_leaves_what_others_halted(qemu: QemuWithMonitor, status: str) -> None:
    with Microvmi.open(qemu.uri) as machine:
        qemu.execute("play-state", status=status)
        assert isinstance(machine.driver, SupportsPause)
        machine.driver.run(whoever=False)  # as between a look and the order
        assert qemu.status() == status


@pytest.mark.parametrize("how", ["close", "release"])
def test_a_stop_whose_answer_is_late_is_taken_back(tmp_path: Path, how: str) -> None:
    with qemu_with_monitor(tmp_path, "-fake", "late=stop") as qemu:
        machine = Microvmi.open(qemu.uri.replace("timeout=5", "timeout=0.5"))
        with pytest.raises(TimeoutExpiredError):
            machine.pause()
        time.sleep(0.2)
        machine.close() if how == "close" else release_all(5)
        time.sleep(0.5)
        assert qemu.status() == "running"
        machine.close()


def test_a_pause_that_was_refused_is_nobodys(tmp_path: Path) -> None:
    with qemu_with_monitor(tmp_path, "-fake", "refuse=stop") as qemu:
        with Microvmi.open(qemu.uri) as machine:
            with pytest.raises(IoError, match="not now"):
                machine.pause()
            qemu.execute("play-state", status="paused")
        assert qemu.status() == "paused"


def test_a_qemu_that_is_stopped_fills_no_queue_and_takes_one_limit(qemu: QemuWithMonitor) -> None:
    with Microvmi.open(qemu.uri.replace("timeout=5", "timeout=0.3")) as machine:
        os.kill(qemu.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, qemu.process.pid, os.WSTOPPED)
        try:
            for _ in range(6):
                with pytest.raises(DriverUnavailableError, match="kill -CONT"):
                    machine.vcpu_count()
        finally:
            os.kill(qemu.process.pid, signal.SIGCONT)
        assert machine.vcpu_count() == 2


@pytest.mark.parametrize("answer", [None, [], "running", {"status": 7}, {"running": True}], ids=str)
def test_an_answer_of_another_shape_is_told_as_such(tmp_path: Path, answer: object) -> None:
    with qemu_with_monitor(tmp_path) as qemu, Microvmi.open(qemu.uri) as machine:
        qemu.execute("play-answer", to="query-status", answer=json.dumps(answer))
        with pytest.raises(IoError, match="query-status" if not isinstance(answer, dict) else "the machine's state"):
            machine.pause()
