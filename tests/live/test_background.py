# SPDX-License-Identifier: Apache-2.0
"""Snapshots that QEMU takes while the machine runs: of one instant, and whatever happens QEMU is left as it was."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import SupportsSnapshots
from libmicrovmi_py.drivers.snapshot import SnapshotInfo
from libmicrovmi_py.drivers.snapshot import SnapshotMethod as Method
from libmicrovmi_py.errors import CancelledError, IoError, TimeoutExpiredError, VmGoneError
from libmicrovmi_py.transport.copy import Copy
from libmicrovmi_py.transport.watch import Watch

from .counting import LONG, SNAPSHOTS, counting, is_torn, numbers, torn_dumps
from .firmware import need_qemu
from .oracle import Range, joined, memory_map
from .registers_guest import DONE, MSRS, OTHERS, set_registers
from .tiny import GO, Tiny, tiny, wait_for
from .watchers import watchers_of

SECONDS = 8.0
"""Of the time that is not long: so many snapshots as it allows."""

SMALL, LARGE = 24, 512
"""MiB: of a guest that is quickly copied, and of one that takes long enough to be disturbed meanwhile."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    need_qemu()
    with counting(tmp_path_factory.mktemp("small"), SMALL) as guest:
        yield guest


@pytest.fixture(scope="module")
def filled_guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """A guest that counts, and has some memory that is not zero."""
    need_qemu()
    with counting(tmp_path_factory.mktemp("large"), LARGE) as guest:
        with Microvmi.open(guest.uri) as vm:
            for mib in range(16, 496, 4):
                vm.write_physical(mib << 20, os.urandom(1 << 20))
        yield guest


@pytest.fixture
def large(filled_guest: Tiny) -> Iterator[Tiny]:
    """The same, of which QEMU is found as it was before the test."""
    before = state_of(filled_guest)
    yield filled_guest
    await_state(filled_guest, before)


def await_state(guest: Tiny, before: tuple[object, ...]) -> None:
    """QEMU is as it was, within seconds."""
    end = time.monotonic() + 20
    while state_of(guest) != before and time.monotonic() < end:
        time.sleep(0.02)
    assert state_of(guest) == before


def state_of(guest: Tiny) -> tuple[object, ...]:
    """What a snapshot may not change: the run state, what is set for migrations, descriptors, whether one goes on."""
    execute = guest.monitor.execute
    going = execute("query-migrate").get("status") in ("setup", "active", "cancelling")
    capabilities = [item["capability"] for item in execute("query-migrate-capabilities") if item["state"]]
    set_for_it = execute("query-migrate-parameters")
    return guest.status(), going, capabilities, set_for_it, kinds(guest.process.pid), marks(guest)


def marks(guest: Tiny) -> int:
    """How many character devices of ours it has."""
    return sum("microvmi" in item["label"] for item in guest.monitor.execute("query-chardev"))


def kinds(pid: int) -> list[str]:
    """Of which kinds a process has how many descriptors, of those that a snapshot may leave there."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(path))
    # /dev/userfaultfd is no such one: newer ones open it once, and keep it
    return sorted(kind for kind in found if kind in ("/dev/null", "anon_inode:[userfaultfd]") or "microvmi" in kind)


def taken(vm: Microvmi, **options: object) -> tuple[Microvmi, Method]:
    snapshot = vm.snapshot(**options)  # type: ignore[arg-type]
    return snapshot, snapshot.snapshot_info.method


def read_by(vm: Microvmi) -> tuple[int, int]:
    return numbers(vm.read_physical, SMALL)


# ------------------------------------------------------------------------------------------------ one instant


def test_memory_and_registers_are_of_one_instant_in_every_snapshot(small: Tiny) -> None:
    began, count = time.monotonic(), 0
    with Microvmi.open(small.uri) as vm:
        while count < SNAPSHOTS and (LONG or time.monotonic() - began < SECONDS):
            with vm.snapshot() as snapshot:
                assert snapshot.snapshot_info.method is Method.BACKGROUND
                first, second = read_by(snapshot)
                counter = snapshot.read_state(0)["rax"]
            assert not is_torn(first, second), f"{first} and {second}, in snapshot {count}"
            assert not is_torn(counter, first), f"rax {counter} and {first}, in snapshot {count}"
            count += 1
    assert count > 10
    assert not LONG or count == SNAPSHOTS


def test_plain_dumps_of_the_same_guest_are_torn(small: Tiny) -> None:
    """Else no snapshot that is not torn would show anything."""
    with Microvmi.open(small.uri) as vm:
        assert torn_dumps(vm.read_physical, SMALL) > 0


def test_the_guest_runs_on_while_it_is_copied(large: Tiny) -> None:
    seen: list[int] = []

    def look(done: int, total: int) -> None:
        seen.append(numbers(vm.read_physical, LARGE)[0])

    with Microvmi.open(large.uri) as vm, vm.snapshot(progress=look) as snapshot:
        at = numbers(snapshot.read_physical, LARGE)[0]
    assert seen[-1] - at > 1000
    assert len(set(seen)) > 2


def test_every_byte_is_what_pmemsave_says(tmp_path: Path) -> None:
    need_qemu()
    with tiny(tmp_path, options=("-m", "64M", "-device", "isa-vga"), debugger=False) as guest:
        with Microvmi.open(guest.uri) as vm:
            for start in (0x1000, 0x9E000, 0x100000, 0x2345000, (64 << 20) - 0x3000):
                vm.write_physical(start, os.urandom(0x1800))
            snapshot, method = taken(vm)
        guest.monitor.execute("stop")
        with snapshot:
            assert method is Method.BACKGROUND
            ranges = snapshot.memory_map()
            told = joined(Range(item.start, item.size, item.kind.name.lower()) for item in ranges)
            assert told == memory_map(guest.monitor)
            assert {item.kind.name for item in ranges} == {"RAM", "ROM", "DEVICE"}
            for item in ranges:
                path = tmp_path / "saved"
                guest.monitor.execute("pmemsave", val=item.start, size=item.size, filename=str(path))
                assert snapshot.read_physical(item.start, item.size) == path.read_bytes(), f"at {item.start:#x}"


def test_registers_are_those_of_the_instant_msrs_too(tmp_path: Path) -> None:
    need_qemu()
    with tiny(tmp_path, set_registers(), ("-smp", "2"), debugger=False) as guest, Microvmi.open(guest.uri) as vm:
        vm.write_physical(GO, b"\1")
        wait_for(lambda: vm.read_physical(DONE, 1) == b"\1", "registers that are set")
        snapshot, method = taken(vm)
    with snapshot:
        assert method is Method.BACKGROUND
        first, second = snapshot.read_states()
        assert {name: first[name] for name, _ in MSRS.values()} == dict(MSRS.values())
        assert {name: first[name] for name in OTHERS} == OTHERS
        assert second["lstar"] == 0


def test_memory_that_was_never_touched_takes_none(large: Tiny) -> None:
    with Microvmi.open(large.uri) as vm, vm.snapshot() as snapshot:
        assert 120 << 20 <= snapshot.snapshot_info.data_bytes < 125 << 20


# ------------------------------------------------------------------------------------------------ how long it stood


def test_a_large_machine_stands_for_a_moment_only(tmp_path: Path) -> None:
    need_qemu()
    for _ in range(3):  # what else this system does may hold one of them up, as it does any program
        told, partner = _stood(tmp_path)
        assert (told.method, partner.method) == (Method.BACKGROUND, Method.PAUSED)
        if told.stood <= max(0.010, partner.stood / 4):
            return
    pytest.fail(f"it stood {told.stood} s, and {partner.stood} s for a copy")


def _stood(folder: Path) -> tuple[SnapshotInfo, SnapshotInfo]:
    """A guest's first snapshot in the background, and one by a pause."""
    something = os.urandom(1 << 20)
    with counting(folder, 4096) as guest, Microvmi.open(guest.uri) as vm:
        for mib in range(16, 1040):
            vm.write_physical(mib << 20, something)
        with vm.snapshot(pause_only=True) as snapshot:  # first: afterwards QEMU has touched all of its RAM
            partner = snapshot.snapshot_info
        with vm.snapshot() as snapshot:
            return snapshot.snapshot_info, partner


def test_the_time_that_is_told_covers_the_time_between_qemus_events(large: Tiny) -> None:
    with large.monitor.held() as events, Microvmi.open(large.uri) as vm:
        with vm.snapshot() as snapshot:
            stood = snapshot.snapshot_info.stood
        between = events.told_at("STOP"), events.told_at("RESUME")
    assert (between[1] - between[0]) / 1e6 <= stood


# ------------------------------------------------------------------------------------------------ endings


def test_the_caller_ends_it(large: Tiny) -> None:
    with Microvmi.open(large.uri) as vm, pytest.raises(CancelledError):
        vm.snapshot(progress=lambda done, total: done < total // 4)


def test_what_the_callers_function_raises_ends_it(large: Tiny) -> None:
    def fail(done: int, total: int) -> None:
        raise ZeroDivisionError

    with Microvmi.open(large.uri) as vm, pytest.raises(ZeroDivisionError):
        vm.snapshot(progress=fail)


def test_it_ends_when_its_time_is_over(large: Tiny) -> None:
    with Microvmi.open(large.uri) as vm, pytest.raises(TimeoutExpiredError):
        vm.snapshot(timeout=0.2)


def test_it_ends_when_the_copy_is_larger_than_allowed(large: Tiny) -> None:
    with Microvmi.open(large.uri) as vm, pytest.raises(IoError, match="max_bytes"):
        vm.snapshot(max_bytes=40 << 20)


def test_who_is_told_of_the_progress_keeps_nobody_waiting(large: Tiny) -> None:
    def wait(done: int, total: int) -> None:
        if done < total:
            wait_for(lambda: large.monitor.execute("query-migrate").get("status") == "completed", "QEMU's end of it")

    with Microvmi.open(large.uri) as vm:
        snapshot, method = taken(vm, progress=wait)
    snapshot.close()
    assert method is Method.BACKGROUND


def test_a_machine_that_others_pause_meanwhile_stays_paused(large: Tiny) -> None:
    def pause(done: int, total: int) -> None:
        if done > total // 8 and large.status() == "running":
            large.monitor.execute("stop")

    with Microvmi.open(large.uri) as vm:
        snapshot, method = taken(vm, progress=pause)
        with snapshot:
            assert not is_torn(*numbers(snapshot.read_physical, LARGE))
    assert (method, large.status()) == (Method.BACKGROUND, "paused")
    large.monitor.execute("cont")


def test_qemu_dies_meanwhile(tmp_path: Path) -> None:
    need_qemu()
    with counting(tmp_path, LARGE) as guest, Microvmi.open(guest.uri) as vm:

        def kill(done: int, total: int) -> None:
            if done:
                guest.process.kill()

        with pytest.raises(VmGoneError):
            vm.snapshot(progress=kill)


KILLED = """
import sys, time
from libmicrovmi_py import Microvmi
def stall(done, total):
    if done > total // 8:
        print("now", flush=True)
        time.sleep(60)
Microvmi.open(sys.argv[1]).snapshot(progress=stall)
"""


@pytest.mark.parametrize("monitor", ["the same monitor", "the other one"])
@pytest.mark.parametrize("when", ["at once", "later"])
def test_we_and_the_watcher_are_killed_meanwhile(large: Tiny, when: str, monitor: str) -> None:
    command = [sys.executable, "-c", KILLED, large.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "now\n"
        if when == "later":
            wait_for(lambda: large.monitor.execute("query-migrate")["status"] == "completed", "QEMU's end of it")
        for pid in watchers_of(large.process.pid):  # else it would take back all of it
            os.kill(pid, signal.SIGKILL)
        victim.send_signal(signal.SIGKILL)
    wait_for(lambda: large.monitor.execute("query-migrate")["status"] in ("failed", "completed"), "an end of it")
    wait_for(lambda: "anon_inode:[userfaultfd]" not in kinds(large.process.pid), "the end of QEMU's cleaning up")
    assert large.status() == "running"
    with Microvmi.open(large.uri if monitor == "the same monitor" else large.other_uri) as vm:
        before = numbers(vm.read_physical, LARGE)
        wait_for(lambda: numbers(vm.read_physical, LARGE) != before, "a guest that runs")
        assert (state_of(large)[2], marks(large)) == ([], 0), "the next opening takes back what was left"
        snapshot, method = taken(vm)
    snapshot.close()
    assert method is Method.BACKGROUND


# ------------------------------------------------------------------------------------------------ not possible


def set_capability(guest: Tiny, name: str, on: bool) -> None:
    guest.monitor.execute("migrate-set-capabilities", capabilities=[{"capability": name, "state": on}])


def test_another_capability_of_the_user_is_left_alone(small: Tiny) -> None:
    set_capability(small, "xbzrle", True)
    before = state_of(small)
    with Microvmi.open(small.uri) as vm:
        snapshot, method = taken(vm)
    snapshot.close()
    assert (method, state_of(small)) == (Method.PAUSED, before)
    set_capability(small, "xbzrle", False)


def test_the_same_capability_of_the_user_stays_on(small: Tiny) -> None:
    set_capability(small, "background-snapshot", True)
    before = state_of(small)
    with Microvmi.open(small.uri) as vm:
        snapshot, method = taken(vm)
    snapshot.close()
    with Microvmi.open(small.uri):
        assert (method, state_of(small)) == (Method.BACKGROUND, before)
    set_capability(small, "background-snapshot", False)


def test_a_migration_of_the_user_goes_on(large: Tiny) -> None:
    execute = large.monitor.execute
    bandwidth = execute("query-migrate-parameters")["max-bandwidth"]
    execute("migrate-set-parameters", **{"max-bandwidth": 100_000})
    execute("migrate", uri="exec:cat > /dev/null")
    with Microvmi.open(large.uri) as vm:
        snapshot, method = taken(vm)
    snapshot.close()
    assert (method, execute("query-migrate")["status"]) == (Method.PAUSED, "active")
    execute("migrate_cancel")
    wait_for(lambda: execute("query-migrate")["status"] == "cancelled", "its end")
    execute("migrate-set-parameters", **{"max-bandwidth": bandwidth})


def test_a_machine_with_a_device_that_cannot_be_migrated_is_not_taken(tmp_path: Path) -> None:
    need_qemu()
    device = ("-drive", "if=none,id=disk,driver=null-co", "-device", "nvme,serial=1,drive=disk")
    with tiny(tmp_path, options=device, debugger=False) as guest, Microvmi.open(guest.uri) as vm:
        before = state_of(guest)
        driver = vm.driver
        assert isinstance(driver, SupportsSnapshots)
        taken_of = driver.take_snapshot(Copy(vm.memory_map()), Watch())
        needs_pause = "nvme" in str(guest.monitor.execute("query-migrate"))  # newer QEMUs migrate this device, too
        assert (taken_of is None) == needs_pause
        assert state_of(guest) == before


def test_a_qemu_whose_files_may_not_grow_is_not_asked(tmp_path: Path) -> None:
    need_qemu()
    with tiny(tmp_path, debugger=False) as guest, Microvmi.open(guest.uri) as vm:
        resource.prlimit(guest.process.pid, resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        snapshot, method = taken(vm)
        snapshot.close()
        assert method is Method.PAUSED
        assert "status" not in guest.monitor.execute("query-migrate")


def test_shared_memory_is_not_filled_for_it(tmp_path: Path) -> None:
    need_qemu()
    shared = ("-object", "memory-backend-memfd,id=ram,size=16M,share=on", "-machine", "memory-backend=ram")
    with tiny(tmp_path, options=shared, debugger=False) as guest, Microvmi.open(guest.uri) as vm:
        snapshot, method = taken(vm)
        snapshot.close()
        assert method is Method.PAUSED
        assert "status" not in guest.monitor.execute("query-migrate")


def test_a_machine_that_stands_is_copied_without_a_migration(tmp_path: Path) -> None:
    need_qemu()
    with tiny(tmp_path, debugger=False) as guest, Microvmi.open(guest.uri) as vm:
        guest.monitor.execute("stop")
        snapshot, method = taken(vm)
        snapshot.close()
        assert method is not Method.BACKGROUND
        assert "status" not in guest.monitor.execute("query-migrate")
