# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a real QEMU by a pause: a guest that counts in two far pages is never caught between the two."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmicrovmi_py import CancelledError, DriverUnavailableError, IoError, Microvmi, SnapshotMethod, VmGoneError

from .counting import LONG, SNAPSHOTS, counting, is_torn, numbers, torn_dumps
from .firmware import need_qemu
from .tiny import Tiny

MIB = 1 << 20
PAGE = 4096
TIMES = SNAPSHOTS if LONG else 25
RAM = {
    "private": (),
    "memfd": ("-object", "memory-backend-memfd,id=ram,share=on,size=512M", "-machine", "memory-backend=ram"),
}


@pytest.fixture(scope="module", params=RAM)
def guest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """One that counts, with private RAM, and with shared RAM that this process maps."""
    need_qemu()
    with counting(tmp_path_factory.mktemp("counting"), options=RAM[request.param]) as started:
        yield started


@pytest.fixture
def vm(guest: Tiny) -> Iterator[Microvmi]:
    with Microvmi.open(guest.uri) as opened:
        yield opened
    assert guest.status() == "running"


def test_no_snapshot_is_torn(vm: Microvmi) -> None:
    seen = set()
    for _ in range(TIMES):
        with vm.snapshot(pause_only=True) as taken:
            first, second = numbers(taken.read_physical)
            assert not is_torn(first, second)
            assert (taken.read_state(0)["rax"] - second) % (1 << 32) <= 1
            seen.add(first)
            assert taken.snapshot_info.method == SnapshotMethod.PAUSED
    assert len(seen) > TIMES // 3


def test_plain_dumps_of_the_same_guest_are(vm: Microvmi) -> None:
    """Read from the first page to the last: else the test above would show nothing."""
    assert torn_dumps(vm.read_physical) > 0


def test_it_is_the_memory_that_qemu_saves_while_it_stands(vm: Microvmi, guest: Tiny, tmp_path: Path) -> None:
    vm.pause()
    with vm.snapshot() as taken:
        saved = tmp_path / "saved"
        guest.monitor.execute("pmemsave", val=0, size=512 * MIB, filename=str(saved))
        assert taken.padded_memory.read(512 * MIB) == saved.read_bytes()


def test_what_the_guest_never_touched_takes_nothing(vm: Microvmi) -> None:
    with vm.snapshot(pause_only=True) as taken:
        assert 2 * PAGE <= taken.snapshot_info.data_bytes < 4 * MIB
        assert taken.memory_map() == tuple(vm.memory_map())


def test_what_comes_to_hold_something_in_between_is_there(vm: Microvmi) -> None:
    """Between the two times that memory is copied, pages of chunks that nobody ever touched are written."""
    place = 200 * MIB
    told: list[int] = []

    def progress(done: int, total: int) -> None:
        """A single thread copies: at the first word of the second time it has copied nothing of it."""
        if 2 * done >= total and not told:
            vm.write_physical(place, b"late")
            told.append(done)

    with vm.snapshot(pause_only=True, threads=1, progress=progress) as taken:
        assert taken.read_physical(place, 4) == b"late"
    vm.write_physical(place, bytes(4))


def test_it_outlives_the_machine(tmp_path: Path) -> None:
    need_qemu()
    with counting(tmp_path) as guest, Microvmi.open(guest.uri) as vm:
        taken = vm.snapshot(pause_only=True)
        guest.process.kill()
        guest.process.wait()
    with taken:
        assert not is_torn(*numbers(taken.read_physical))
        assert taken.read_state(0)["rax"] > 0


def test_one_that_is_ended_leaves_the_machine_running(vm: Microvmi, guest: Tiny) -> None:
    with pytest.raises(CancelledError):
        vm.snapshot(pause_only=True, progress=lambda done, total: False)
    assert guest.status() == "running"
    before = numbers(vm.read_physical)
    time.sleep(0.1)
    assert numbers(vm.read_physical) != before


def test_one_that_may_not_take_so_much_leaves_the_machine_running(vm: Microvmi, guest: Tiny) -> None:
    with pytest.raises(IoError, match="max_bytes"):
        vm.snapshot(pause_only=True, max_bytes=PAGE)
    assert guest.status() == "running"


ENDLESS = """
import signal, sys
from libmicrovmi_py import Microvmi
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background has it ignored
vm = Microvmi.open(sys.argv[1])
print("begun", flush=True)
while True:
    vm.snapshot(pause_only=True).close()
"""


def test_whoever_is_interrupted_lets_it_run(guest: Tiny) -> None:
    for _ in range(3):
        command = [sys.executable, "-c", ENDLESS, guest.uri]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        process.stdout.close()
        assert guest.status() == "running"


def test_qemu_that_dies_meanwhile_is_an_error(tmp_path: Path) -> None:
    need_qemu()
    with counting(tmp_path) as guest, Microvmi.open(guest.uri) as vm:
        for start in range(0, 128 * MIB, MIB):
            vm.write_physical(256 * MIB + start, b"\1" * MIB)
        with pytest.raises((VmGoneError, DriverUnavailableError)):
            vm.snapshot(pause_only=True, progress=lambda done, total: guest.process.kill())
