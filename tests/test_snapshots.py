# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a machine that does what it should not: it runs, changes its map, or does not let one pause it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from libmicrovmi_py import CancelledError, Driver, Microvmi, SnapshotMethod, release_all
from libmicrovmi_py.drivers.base import Region, SupportsSnapshots, Taken
from libmicrovmi_py.drivers.control import RUNS, STOPPED, Phase, RunState
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    InvalidContextError,
    IoError,
    NotSupportedError,
    TimeoutExpiredError,
    not_mapped,
)
from libmicrovmi_py.model import MemoryKind, MemoryRange
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.copy import CHUNK, Copy
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.watch import Watch

PAGE = 4096
MIB = 1 << 20
SLEEPS = RunState(Phase.RUNS, no_resume="it sleeps")


class Machine(Driver):
    """Every page holds the number of times that it was stopped or let run; what happens at a read is told by ``at``."""

    name = "machine"

    def __init__(self, ranges: Sequence[MemoryRange] = (MemoryRange(0, 40 * PAGE),)) -> None:
        self.ranges = [tuple(ranges)]
        self.state = RUNS
        self.turns = 1
        self.orders: list[str] = []
        self.gone: set[int] = set()
        self.zeros: set[int] = set()
        self.at: Callable[[int], None] = lambda frame: None

    @classmethod
    def open(cls, params: Parameters) -> Machine:
        raise NotImplementedError

    @property
    def max_addr(self) -> int:
        return self.ranges[0][-1].end

    def memory_map(self) -> Sequence[MemoryRange]:
        return self.ranges[0] if len(self.ranges) == 1 else self.ranges.pop(0)

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        self.at(frame)
        if frame in self.gone or not any(item.start <= frame * PAGE < item.end for item in self.ranges[0]):
            raise not_mapped(frame * PAGE)
        buffer[:] = bytes([0 if frame in self.zeros else self.turns]) * len(buffer)

    def run_state(self) -> RunState:
        return self.state

    def stop(self) -> None:
        self.orders.append("stop")
        self.state = STOPPED
        self.turns += 1

    def run(self, *, whoever: bool) -> None:
        self.orders.append("run")
        self.state = RUNS
        self.turns += 1

    def close(self) -> None:
        self.orders.append("close")


class Background(Machine):
    """It has a way of its own, which ``gives`` what it says."""

    gives: ClassVar[bool] = True

    def take_snapshot(self, copy: Copy, watch: Watch) -> Taken | None:
        self.orders.append("take")
        watch.report(0, 1)
        assert copy.data_bytes == 0
        copy.store(copy.offset_of(0), b"begun")
        return Taken(0.001, (), copy.ranges, 5) if self.gives else None


class Unable(Background):
    """Not at present."""

    gives = False


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def vm(machine: Machine) -> Microvmi:
    return Microvmi.from_driver(machine)


def within_the_pause(machine: Machine, act: Callable[[], object]) -> None:
    """Have ``act`` done once, when the machine's memory is read that was stopped."""
    done: list[None] = []

    def at(frame: int) -> None:
        if machine.turns == 2 and not done:
            done.append(None)
            act()

    machine.at = at


# ---------------------------------------------------------------------------------------------------------- one instant


def test_all_of_it_is_of_the_time_when_the_machine_stood(vm: Microvmi, machine: Machine) -> None:
    with vm.snapshot() as taken:
        assert taken.read_physical(0, 40 * PAGE) == b"\2" * 40 * PAGE
    assert machine.orders == ["stop", "run"]


def test_a_frame_that_goes_away_meanwhile_is_none(vm: Microvmi, machine: Machine) -> None:
    within_the_pause(machine, lambda: machine.gone.update({0, 5, 39}))
    with vm.snapshot() as taken:
        assert [(item.start // PAGE, item.end // PAGE) for item in taken.memory_map()] == [(1, 5), (6, 39)]
        assert taken.snapshot_info.data_bytes == 37 * PAGE


def test_what_became_zeros_meanwhile_takes_nothing(vm: Microvmi, machine: Machine) -> None:
    within_the_pause(machine, lambda: machine.zeros.update({1, 2, 39}))
    with vm.snapshot() as taken:
        assert taken.read_physical(0, 4 * PAGE) == b"\2" * PAGE + bytes(2 * PAGE) + b"\2" * PAGE
        assert taken.snapshot_info.data_bytes == 37 * PAGE


class Mapped(Machine):
    """Its memory is a file of ours of 8 MiB, of which the first 4 MiB and a page at 5 MiB hold something."""

    def __init__(self) -> None:
        super().__init__()
        self._mapping = self._mapped()
        self._regions = (Region(0, 8 * MIB, MemoryKind.RAM, self._mapping, 0),)

    def _mapped(self) -> HostMapping:
        self.file = OwnedFd(os.memfd_create("test"))
        os.ftruncate(self.file.number, 8 * MIB)
        os.pwrite(self.file.number, b"x" * 4 * MIB, 0)
        os.pwrite(self.file.number, b"x" * PAGE, 5 * MIB)
        return HostMapping.of_file(self.file)

    @property
    def max_addr(self) -> int:
        return 8 * MIB

    def regions(self) -> Sequence[Region]:
        return self._regions

    def memory_map(self) -> Sequence[MemoryRange]:
        return (MemoryRange(0, 8 * MIB),)

    def stop(self) -> None:
        """Three pages, a MiB, and the page are given back; another page, and a word far off, come to hold something."""
        super().stop()
        for start, size in ((5 * PAGE, 3 * PAGE), (2 * MIB, MIB), (5 * MIB, CHUNK)):
            assert ctypes.CDLL(None).fallocate(self.file.number, 3, ctypes.c_long(start), ctypes.c_long(size)) == 0
        os.pwrite(self.file.number, b"y" * PAGE, 6 * MIB)
        os.pwrite(self.file.number, b"word", 8 * MIB - 4)

    def close(self) -> None:
        self._mapping.close()


def test_memory_that_becomes_a_hole_meanwhile_is_zero() -> None:
    """And a hole that becomes memory is there."""
    machine = Mapped()
    with Microvmi.from_driver(machine) as vm, vm.snapshot() as taken:
        assert taken.read_physical(0, 8 * MIB) == os.pread(machine.file.number, 8 * MIB, 0)
        assert taken.snapshot_info.data_bytes == 3 * MIB - 3 * PAGE + 2 * PAGE


def test_how_long_it_stood_and_when_is_told(vm: Microvmi, machine: Machine) -> None:
    within_the_pause(machine, lambda: time.sleep(0.1))
    before = time.time_ns()
    info = vm.snapshot().snapshot_info
    assert 0.1 < info.stood < 5
    assert before < info.taken_at < time.time_ns() - 90_000_000


@pytest.mark.parametrize("state", [STOPPED, RunState(Phase.HALTED), SLEEPS])
def test_a_machine_that_stands_is_left_alone(vm: Microvmi, machine: Machine, state: RunState) -> None:
    machine.state = state
    with vm.snapshot() as taken:
        assert (taken.snapshot_info.stood, taken.snapshot_info.method) == (0, SnapshotMethod.PAUSED)
        assert taken.read_physical(0, 8) == b"\1" * 8
    assert machine.orders == []


def test_one_that_we_paused_stays_so_until_it_is_closed(vm: Microvmi, machine: Machine) -> None:
    vm.pause()
    vm.snapshot().close()
    assert machine.orders == ["stop"]
    vm.close()
    assert machine.orders == ["stop", "run", "close"]


def test_one_that_cannot_be_paused_now_is_refused(vm: Microvmi, machine: Machine) -> None:
    machine.state = RunState(Phase.PASSING, "it is being saved", "it is being saved")
    with pytest.raises(DriverUnavailableError, match="it is being saved"):
        vm.snapshot()
    assert machine.orders == []


@pytest.mark.parametrize("state", [RUNS, STOPPED])
def test_one_that_others_let_run_meanwhile_is_an_error(vm: Microvmi, machine: Machine, state: RunState) -> None:
    machine.state = state

    def let_run() -> None:
        machine.state = RUNS

    machine.at = lambda frame: let_run() if machine.turns == 2 or state is STOPPED else None
    with pytest.raises(DriverUnavailableError, match="somebody else let the machine run meanwhile"):
        vm.snapshot()
    assert machine.orders == (["stop"] if state is RUNS else [])


def test_one_that_cannot_be_let_run_again_is_an_error_and_in_the_books(vm: Microvmi, machine: Machine) -> None:
    def refuse(**_: object) -> None:
        raise DriverUnavailableError("not now")

    within_the_pause(machine, lambda: machine.__dict__.update(run=refuse))
    with pytest.raises(DriverUnavailableError, match="not now"):
        vm.snapshot()
    del machine.__dict__["run"]
    vm.close()
    assert machine.orders == ["stop", "run", "close"]


# -------------------------------------------------------------------------------------------------------------- the map


def test_a_map_that_changed_meanwhile_is_the_one_that_is_copied(machine: Machine) -> None:
    more = (MemoryRange(0, 40 * PAGE), MemoryRange(MIB, 3 * PAGE))
    machine.ranges = [machine.ranges[0], more]
    with Microvmi.from_driver(machine) as vm, vm.snapshot() as taken:
        assert taken.memory_map() == more
        assert taken.read_physical(MIB, 8) == bytes([machine.turns - 1]) * 8
    assert machine.orders == ["stop", "run"] * 2 + ["close"]


def test_memory_that_is_taken_out_while_the_machine_runs_is_not_missed(machine: Machine) -> None:
    fewer = (MemoryRange(0, 10 * PAGE),)

    def at(frame: int) -> None:
        if frame == 20:
            machine.ranges = [fewer]
            raise IoError("it was unplugged")

    machine.at = at
    with Microvmi.from_driver(machine) as vm, vm.snapshot() as taken:
        assert taken.memory_map() == fewer
    assert machine.orders == ["stop", "run", "close"]


def test_one_that_never_rests_is_an_error(machine: Machine) -> None:
    machine.ranges = [(MemoryRange(0, size * PAGE),) for size in range(10, 30)]
    with Microvmi.from_driver(machine) as vm, pytest.raises(IoError, match="memory map changed 3 times"):
        vm.snapshot()
    assert machine.orders == ["stop", "run"] * 3 + ["close"]


class Unmapped(Driver):
    """A driver that tells no ranges."""

    name = "unmapped"

    def __init__(self, *frames: int) -> None:
        self._frames = {*frames}
        self.asked = 0

    @classmethod
    def open(cls, params: Parameters) -> Unmapped:
        raise NotImplementedError

    @property
    def max_addr(self) -> int:
        return (max(self._frames) + 1) * PAGE

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        self.asked += 1
        if frame not in self._frames:
            raise not_mapped(frame * PAGE)
        buffer[:] = frame.to_bytes(8, "little")[:1] * len(buffer)

    def run_state(self) -> RunState:
        return STOPPED

    def stop(self) -> None: ...

    def run(self, *, whoever: bool) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("gap", [1, 300, 5000, 100_000])
def test_frames_behind_a_hole_are_found(gap: int) -> None:
    begin = 3 + gap
    frames = [0, 1, 2, *range(begin, begin + 300)]
    with Microvmi.from_driver(Unmapped(*frames)) as vm, vm.snapshot() as taken:
        assert taken.memory_map() == (MemoryRange(0, 3 * PAGE), MemoryRange(begin * PAGE, 300 * PAGE))
        assert taken.read_physical(begin * PAGE, 1)[0] == begin % 256


def test_a_long_hole_is_not_asked_for_frame_by_frame() -> None:
    driver = Unmapped(0, 1_000_000)
    with Microvmi.from_driver(driver) as vm:
        vm.snapshot().close()
    assert driver.asked < 20_000


# --------------------------------------------------------------------------------------------------------------- ending


def test_closing_by_another_thread_ends_it(vm: Microvmi, machine: Machine) -> None:
    closing = threading.Thread(target=vm.close)
    machine.at = lambda frame: _start(closing) if machine.turns == 2 else None
    with pytest.raises((InvalidContextError, CancelledError)):
        vm.snapshot()
    closing.join()
    assert machine.orders == ["stop", "run", "close"]


def test_leaving_all_machines_as_they_were_ends_it(vm: Microvmi, machine: Machine) -> None:
    releasing = threading.Thread(target=release_all, args=(5,))
    machine.at = lambda frame: _start(releasing) if machine.turns == 2 else None
    with pytest.raises(CancelledError, match="left as it was found"):
        vm.snapshot()
    releasing.join()
    assert machine.orders == ["stop", "run"]
    vm.snapshot().close()


def _start(thread: threading.Thread) -> None:
    """Start it, once, and give it the time to get where it waits."""
    if thread.ident is None:
        thread.start()
        time.sleep(0.2)


def test_time_that_is_over_in_the_pause_ends_it_and_the_machine_runs(vm: Microvmi, machine: Machine) -> None:
    within_the_pause(machine, lambda: time.sleep(0.5))
    with pytest.raises(TimeoutExpiredError, match=r"0\.4 s"):
        vm.snapshot(timeout=0.4)
    assert machine.orders == ["stop", "run"]


def test_more_than_it_may_take_in_the_pause_ends_it_and_the_machine_runs() -> None:
    """What was there before the pause fits to the byte; what came in the pause does not."""
    machine = Mapped()
    with Microvmi.from_driver(machine) as vm:
        with pytest.raises(IoError, match="max_bytes"):
            vm.snapshot(max_bytes=4 * MIB + PAGE)
        assert machine.orders == ["stop", "run"]
    assert copies() == 0


@pytest.mark.parametrize("kind", [Machine, Mapped])
def test_who_is_told_is_told_in_the_pause_as_well_however_short_it_is(kind: type[Machine]) -> None:
    machine = kind()
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        if machine.orders == ["stop"]:
            told.append((done, total))

    with Microvmi.from_driver(machine) as vm:
        vm.snapshot(progress=progress).close()
    done, total = told[0]
    assert total <= 2 * done < 2 * total


@pytest.mark.parametrize("kind", [Machine, Mapped])
def test_the_second_half_is_told_only_while_the_machine_stands(
    kind: type[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time is over with all that it copied, and the machine is then yet to be stopped."""
    monkeypatch.setattr("libmicrovmi_py.transport.watch.REPORT_EVERY", 0.0)
    machine = kind()
    told: list[tuple[bool, bool]] = []

    def progress(done: int, total: int) -> None:
        if done < total:
            told.append((2 * done >= total, machine.orders == ["stop"]))

    with Microvmi.from_driver(machine) as vm:
        vm.snapshot(progress=progress).close()
    assert set(told) == {(False, False), (True, True)}


def test_who_is_told_in_the_pause_can_neither_pause_nor_close(vm: Microvmi, machine: Machine) -> None:
    refused: list[str] = []

    def progress(done: int, total: int) -> None:
        for call in (vm.pause, vm.resume, vm.close):
            try:
                call()
            except DriverUnavailableError as err:
                refused.append(str(err))

    within_the_pause(machine, lambda: progress(0, 0))
    vm.snapshot()
    assert len(refused) == 3
    assert "this thread is taking a snapshot" in refused[0]
    assert machine.orders == ["stop", "run"]


def test_two_threads_take_two(vm: Microvmi, machine: Machine) -> None:
    taken: list[Microvmi] = []
    threads = [threading.Thread(target=lambda: taken.append(vm.snapshot())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert machine.orders == ["stop", "run"] * 2
    for one in taken:
        content = one.read_physical(0, 40 * PAGE)
        assert content == content[:1] * len(content)
        assert content[0] % 2 == 0


# ----------------------------------------------------------------------------------------------- a hypervisor's own way


def test_a_hypervisor_s_own_way_is_asked_first() -> None:
    machine = Background()
    assert isinstance(machine, SupportsSnapshots)
    with Microvmi.from_driver(machine) as vm, vm.snapshot() as taken:
        info = taken.snapshot_info
        assert (info.method, info.stood, info.taken_at) == (SnapshotMethod.BACKGROUND, 0.001, 5)
        assert taken.read_physical(0, 6) == b"begun\0"
    assert machine.orders == ["take", "close"]


def test_where_it_cannot_the_machine_is_paused() -> None:
    machine = Unable()
    with Microvmi.from_driver(machine) as vm, vm.snapshot() as taken:
        assert taken.snapshot_info.method == SnapshotMethod.PAUSED
        assert taken.read_physical(0, 40 * PAGE) == b"\2" * 40 * PAGE
    assert machine.orders == ["take", "stop", "run", "close"]


def test_where_it_cannot_and_a_pause_is_not_wanted_nothing_is_stopped() -> None:
    machine = Unable()
    with Microvmi.from_driver(machine) as vm:
        with pytest.raises(NotSupportedError, match="takes none at the moment while this machine runs"):
            vm.snapshot(background_only=True)
        with pytest.raises(InvalidArgumentError, match="either by a pause only, or never by one"):
            vm.snapshot(background_only=True, pause_only=True)
    assert machine.orders == ["take", "close"]


@pytest.mark.parametrize("pause_only", [True, False])
def test_it_is_not_asked_where_it_is_not_wanted_or_the_machine_stands(pause_only: bool) -> None:
    machine = Background()
    machine.state = RUNS if pause_only else STOPPED
    with Microvmi.from_driver(machine) as vm, vm.snapshot(pause_only=pause_only) as taken:
        assert taken.snapshot_info.method == SnapshotMethod.PAUSED
    assert "take" not in machine.orders


# ------------------------------------------------------------------------------------------------------------ registers


class Registers(Machine):
    """It has two vCPUs, and does not tell their registers."""

    def vcpu_count(self) -> int:
        return 2

    def read_states(self, vcpus: Sequence[int] | None) -> list[Any]:
        raise NotSupportedError("they cannot be had")


def test_registers_that_cannot_be_had_are_not_known() -> None:
    with Microvmi.from_driver(Registers()) as vm, vm.snapshot() as taken:
        assert taken.vcpu_count() == 2
        with pytest.raises(NotSupportedError):
            taken.read_states()


# ------------------------------------------------------------------------------------------------------------- the copy


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """1 GiB of which 64 KiB and a page hold something, and a page is written zeros."""
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        for place, content in ((5 * MIB, b"x" * CHUNK), (700 * MIB, b"y"), (800 * MIB, bytes(PAGE))):
            file.seek(place)
            file.write(content)
    return path


def test_what_holds_nothing_takes_nothing(image: Path) -> None:
    with Microvmi.open(str(image)) as vm, vm.snapshot() as taken:
        assert taken.snapshot_info.data_bytes == CHUNK + PAGE
        assert taken.memory.seek(0, os.SEEK_DATA) == 5 * MIB
        assert taken.memory.seek(6 * MIB, os.SEEK_DATA) == 700 * MIB
        assert taken.read_physical(0, 1 << 30) == vm.read_physical(0, 1 << 30)
        assert taken.memory.seek(700 * MIB + PAGE, os.SEEK_DATA) == 1 << 30


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_any_number_of_threads_copies_the_same(image: Path, threads: int) -> None:
    before = len(os.listdir("/proc/self/task"))
    with Microvmi.open(str(image)) as vm, vm.snapshot(threads=threads) as taken:
        assert taken.read_physical(5 * MIB, CHUNK) == b"x" * CHUNK
        assert len(os.listdir("/proc/self/task")) == before


def test_as_much_as_it_may_take_and_no_more(image: Path) -> None:
    with Microvmi.open(str(image)) as vm:
        vm.snapshot(max_bytes=CHUNK + PAGE).close()
        with pytest.raises(IoError, match=f"more than {CHUNK} bytes: allow it more by max_bytes") as caught:
            vm.snapshot(max_bytes=CHUNK)
    assert copies() == 0, f"of {caught.value}"  # which holds what was on the way to it


@pytest.mark.parametrize("error", [CancelledError, ZeroDivisionError])
def test_an_error_that_is_kept_keeps_nothing(image: Path, error: type[Exception]) -> None:
    def progress(done: int, total: int) -> None:
        raise error("ended")

    with Microvmi.open(str(image)) as vm, pytest.raises(error) as caught:
        vm.snapshot(progress=progress)
    assert copies() == 0, f"of {caught.value}"


def copies() -> int:
    """How many this process has, mapped or open."""
    files = (os.readlink(f"/proc/self/fd/{number}") for number in _numbers())
    return sum("microvmi-snapshot" in name for name in [*files, *Path("/proc/self/maps").read_text().split("\n")])


def _numbers() -> list[str]:
    return [number for number in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{number}")]


def test_nothing_of_it_stays_when_it_is_closed(image: Path) -> None:
    with Microvmi.open(str(image)) as vm:
        taken = vm.snapshot()
        assert copies() > 0
        taken.close()
        del taken
    assert copies() == 0


def test_a_file_that_was_cut_is_an_error_and_no_hole(image: Path) -> None:
    with Microvmi.open(str(image)) as vm:
        os.truncate(image, 512 * MIB)
        with pytest.raises(IoError):
            vm.snapshot()


LIMITED = """
import resource, signal, sys
from libmicrovmi_py import Microvmi, IoError
vm = Microvmi.open(sys.argv[1])
vm.snapshot().close()  # what it takes is loaded
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which ends a program, as in every one that is no Python
resource.setrlimit(getattr(resource, sys.argv[2]), (int(sys.argv[3]),) * 2)
try:
    vm.snapshot()
except IoError as err:
    print(err)
"""


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("RLIMIT_FSIZE", MIB, "File too large"),
        ("RLIMIT_AS", 1200 * MIB, "Cannot allocate memory"),
        ("RLIMIT_NOFILE", 4, "Too many open"),
    ],
)
def test_limits_of_the_process_are_errors_and_no_signals(image: Path, limit: str, value: int, reason: str) -> None:
    command = [sys.executable, "-c", LIMITED, str(image), limit, str(value)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert reason in done.stdout


def test_a_copy_is_not_changed_any_more() -> None:
    copy = Copy([MemoryRange(0x1000, PAGE)])
    copy.store(copy.offset_of(0x1000), b"1")
    copy.finish()
    for change in (lambda: os.ftruncate(copy.fd, 0), lambda: os.pwrite(copy.fd, b"2", copy.offset_of(0x1000))):
        with pytest.raises(PermissionError):
            change()


def test_options_that_make_no_sense_are_refused(image: Path) -> None:
    with Microvmi.open(str(image)) as vm:
        with pytest.raises(InvalidArgumentError):
            vm.snapshot(max_bytes=-1)
        for threads in (-1, 65):
            with pytest.raises(InvalidArgumentError):
                vm.snapshot(threads=threads)
