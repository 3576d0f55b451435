# SPDX-License-Identifier: Apache-2.0
"""What QEMU is told for a snapshot in the background, and that all of it is undone, whatever QEMU does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers.qemu_with_monitor import QemuWithMonitor, qemu_with_monitor

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.qemu.migration import Stream
from libmicrovmi_py.drivers.qemu.orders import RefusedError
from libmicrovmi_py.drivers.qemu.room import check_room
from libmicrovmi_py.drivers.snapshot import SnapshotMethod
from libmicrovmi_py.errors import CancelledError, InvalidContextError
from libmicrovmi_py.transport.processes import Process

ABLE = ("chardev-add", "migrate-set-capabilities")
UNABLE = ("migrate-set-capabilities", "chardev-remove")
CHANGES = ("getfd", "add-fd", "migrate", "remove-fd", "closefd", "cont", "migrate_cancel", *ABLE, *UNABLE)
"""Commands that change something."""

Start = Callable[..., QemuWithMonitor]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start one that has private memory, and end it with the test."""
    running: list[Any] = []

    def begin(*fakes: str) -> QemuWithMonitor:
        options = [word for fake in ("private", *fakes) for word in ("-fake", fake)]
        running.append(qemu_with_monitor(tmp_path, *options))
        machine: QemuWithMonitor = running[-1].__enter__()
        return machine

    yield begin
    for each in running:
        each.__exit__(None, None, None)


def changes(machine: QemuWithMonitor) -> list[str]:
    """What was ordered since the last look."""
    return [command for log in machine.execute("play-log") for command in log if command in CHANGES]


def is_on(machine: QemuWithMonitor, name: str = "background-snapshot") -> bool:
    told = machine.execute("query-migrate-capabilities")
    return bool(next(item["state"] for item in told if item["capability"] == name))


def taken(machine: QemuWithMonitor, **options: Any) -> SnapshotMethod:
    with Microvmi.open(machine.uri) as vm:
        changes(machine)
        with vm.snapshot(**options) as snapshot:
            for item in vm.memory_map():
                if item.start < 0x8000000000:
                    assert snapshot.read_physical(item.start, item.size) == vm.read_physical(item.start, item.size)
            return snapshot.snapshot_info.method


def test_the_orders_are_undone_in_the_other_order(start: Start) -> None:
    machine = start()
    assert taken(machine) is SnapshotMethod.BACKGROUND
    assert changes(machine) == ["getfd", *ABLE, "migrate", *UNABLE, "closefd"]
    assert (machine.status(), is_on(machine)) == ("running", False)


def test_newer_ones_are_told_of_a_file(start: Start) -> None:
    machine = start("version=11")
    assert taken(machine) is SnapshotMethod.BACKGROUND
    assert changes(machine) == ["add-fd", *ABLE, "migrate", "remove-fd", *UNABLE]
    assert machine.execute("query-fdsets") == []


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("query-migrate", '{"status": "active"}'),
        ("query-migrate", '{"blocked-reasons": ["a device"]}'),
        ("query-migrate-capabilities", '[{"capability": "xbzrle", "state": false}]'),
        ("query-migrate-capabilities", '[{"capability": "background-snapshot", "state": 1}]'),
        ("query-migrate-parameters", '{"tls-creds": "mine"}'),
        ("query-migrate-parameters", '{"mode": "cpr-reboot"}'),
    ],
)
def test_nothing_is_ordered_where_it_cannot_be(start: Start, command: str, answer: str) -> None:
    machine = start()
    machine.execute("play-answer", to=command, answer=answer)
    if answer.endswith("1}]"):
        with Microvmi.open(machine.uri) as vm, pytest.raises(OSError, match="neither true nor false"):
            vm.snapshot()
    else:
        assert taken(machine) is SnapshotMethod.PAUSED
    assert not {"getfd", "migrate", *ABLE} & set(changes(machine))


def test_another_capability_that_is_on_stays_on(start: Start) -> None:
    machine = start()
    machine.execute("migrate-set-capabilities", capabilities=[{"capability": "xbzrle", "state": True}])
    assert taken(machine) is SnapshotMethod.PAUSED
    assert is_on(machine, "xbzrle")
    assert "migrate-set-capabilities" not in changes(machine)


def test_the_same_capability_of_somebody_else_stays_on(start: Start) -> None:
    machine = start()
    machine.execute("migrate-set-capabilities", capabilities=[{"capability": "background-snapshot", "state": True}])
    assert taken(machine) is SnapshotMethod.BACKGROUND
    assert is_on(machine)


@pytest.mark.parametrize("how", ["refused", "early", "cut", "holes"])
def test_what_fails_is_undone_and_the_machine_paused_instead(start: Start, how: str) -> None:
    machine = start(f"migration={how}")
    assert taken(machine) is SnapshotMethod.PAUSED
    assert (machine.status(), is_on(machine)) == ("running", False)
    assert "migrate_cancel" not in changes(machine)


def test_who_ends_it_waits_for_qemu(start: Start) -> None:
    machine = start("migration=slow")
    with Microvmi.open(machine.uri) as vm, pytest.raises(CancelledError):
        vm.snapshot(progress=lambda done, total: False)
    assert machine.execute("query-migrate")["status"] == "completed"
    assert (machine.status(), is_on(machine)) == ("running", False)


def test_a_second_one_meanwhile_leaves_the_first_alone(start: Start) -> None:
    machine = start("migration=slow")
    methods: list[SnapshotMethod] = []

    def progress(done: int, total: int) -> None:
        if not methods:
            with vm.snapshot() as second:
                methods.append(second.snapshot_info.method)

    with Microvmi.open(machine.uri) as vm, vm.snapshot(progress=progress) as snapshot:
        assert [snapshot.snapshot_info.method, *methods] == [SnapshotMethod.BACKGROUND, SnapshotMethod.PAUSED]
    assert (machine.status(), is_on(machine)) == ("running", False)


def test_a_close_meanwhile_by_another_thread_leaves_nothing_on(start: Start) -> None:
    machine = start("migration=slow")
    vm = Microvmi.open(machine.uri)
    closing = threading.Thread(target=vm.close)

    def progress(done: int, total: int) -> None:
        if not closing.ident:
            closing.start()

    with pytest.raises(InvalidContextError):
        vm.snapshot(progress=progress)
    closing.join()
    assert (machine.status(), is_on(machine)) == ("running", False)


def test_what_is_refused_with_the_capability_of_somebody_else_leaves_no_descriptor(start: Start) -> None:
    machine = start("version=11", "migration=refused")
    machine.execute("migrate-set-capabilities", capabilities=[{"capability": "background-snapshot", "state": True}])
    assert taken(machine) is SnapshotMethod.PAUSED
    assert machine.execute("query-fdsets") == []


def test_more_than_the_system_has_left_is_not_written() -> None:
    own = Process.find(os.getpid())
    assert own is not None
    with pytest.raises(RefusedError, match="the system has less memory left"):
        check_room(own, 1 << 62)


def turn_on(machine: QemuWithMonitor, *, marked: bool) -> None:
    """As a process of ours leaves it that is killed before its migration; without a mark it is somebody else's."""
    if marked:
        machine.execute("chardev-add", id="microvmi-background-snapshot", backend={"type": "null", "data": {}})
    machine.execute("migrate-set-capabilities", capabilities=[{"capability": "background-snapshot", "state": True}])


def test_what_a_process_of_ours_left_is_undone_at_the_next_opening(start: Start) -> None:
    machine = start()
    turn_on(machine, marked=False)
    with Microvmi.open(machine.uri):
        assert is_on(machine), "it has no mark of ours"
    turn_on(machine, marked=True)
    with Microvmi.open(machine.uri):
        assert not is_on(machine)
        assert machine.execute("play-count")["devices"] == 0


def test_what_it_left_after_the_opening_is_undone_by_the_next_snapshot(start: Start) -> None:
    machine = start()
    with Microvmi.open(machine.uri) as vm:
        turn_on(machine, marked=True)
        with vm.snapshot() as snapshot:
            assert snapshot.snapshot_info.method is SnapshotMethod.BACKGROUND
    assert not is_on(machine)
    assert machine.execute("play-count")["devices"] == 0


def test_what_a_process_is_about_to_do_that_lives_is_left_alone(start: Start) -> None:
    """It has handed its stream over, and is between the capability and the migration."""
    machine = start()
    living = Stream()
    machine.hand_over(f"/proc/self/fd/{living.entrance.number}", "microvmi-stream")
    turn_on(machine, marked=True)
    assert taken(machine) is SnapshotMethod.PAUSED
    assert is_on(machine)
    del living
    assert taken(machine) is SnapshotMethod.BACKGROUND
    assert not is_on(machine)
