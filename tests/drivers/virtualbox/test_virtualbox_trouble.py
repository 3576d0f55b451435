# SPDX-License-Identifier: Apache-2.0
"""Machines that are not there, shared memory that is not theirs, peers that end or hang, many openings."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drivers.virtualbox.conftest import SIZE
from drivers.virtualbox.simulator import SHM, Simulator, addresses
from needs import missing

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    InvalidContextError,
    MicrovmiError,
    NoDriverError,
    PermissionDeniedError,
    TimeoutExpiredError,
)
from libmicrovmi_py.events import EventKind, Intercept

CHANNEL_SIZE = 20971540
CPU_SIZE = 224
LOCK, REQUEST_PRESENT, ANSWER_PRESENT = 0, 10485769, 20971537


@pytest.fixture
def name() -> Iterator[str]:
    """A name for shared memory objects that a test makes."""
    chosen = f"untouched-{os.getpid()}"
    yield chosen
    for path in (SHM / chosen, SHM / f"CPU_{chosen}"):
        path.unlink(missing_ok=True)


def opened(name: str, library: Path | str, timeout: float = 0.3) -> Microvmi:
    return Microvmi(name, driver="virtualbox", library=library, timeout=timeout)


def test_a_name_is_needed_before_anything_else() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^VirtualBox driver requires a VM name parameter"):
        Microvmi(driver="virtualbox", library="/nowhere/libFDP.so")


@pytest.mark.alone
def test_a_machine_that_is_not_there_is_told_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(DriverUnavailableError, match="no machine of that name with FDP") as caught:
        opened("nobody-has-this-name", "/nowhere/libFDP.so")
    assert time.monotonic() - start < 0.1
    assert "\n" not in str(caught.value)


def test_a_machine_without_the_library_names_it(vm: Simulator) -> None:
    with pytest.raises(DriverUnavailableError, match=r"cannot load /nowhere/libFDP\.so"):
        opened(vm.name, "/nowhere/libFDP.so")


def test_without_a_driver_it_is_tried_and_gives_its_reason() -> None:
    with pytest.raises(NoDriverError, match="virtualbox: no machine of that name with FDP"):
        Microvmi("nobody-has-this-name")


@pytest.mark.parametrize("wrong", ["a/b", "/etc/passwd", "..", ".", "../shm/x", "nul\0byte", "x" * 300])
def test_names_stay_in_their_folder(library: Path, wrong: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        opened(wrong, library)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("size", [0, 1, 4096, CHANNEL_SIZE - 1, CHANNEL_SIZE + 1])
def test_shared_memory_of_another_size_is_not_touched(library: Path, name: str, size: int) -> None:
    (SHM / name).write_bytes(b"\x5a" * size)
    (SHM / f"CPU_{name}").write_bytes(bytes(CPU_SIZE))
    with pytest.raises(DriverUnavailableError, match=f"no shared memory of FDP: {size} bytes"):
        opened(name, library)
    assert (SHM / name).read_bytes() == b"\x5a" * size


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_shared_memory_that_others_can_write_is_not_touched(library: Path, name: str, mode: int) -> None:
    for path, size in ((SHM / name, CHANNEL_SIZE), (SHM / f"CPU_{name}", CPU_SIZE)):
        path.write_bytes(b"\x5a" * size)
        path.chmod(mode)
    with pytest.raises(PermissionDeniedError, match="chmod go-w"):
        opened(name, library)
    assert (SHM / name).read_bytes() == b"\x5a" * CHANNEL_SIZE


def test_shared_memory_of_a_user_without_such_a_machine_is_not_touched(library: Path, name: str) -> None:
    if os.getuid() != 0:
        missing("makes another user's files; to enable: run as root")
    for path, size in ((SHM / name, CHANNEL_SIZE), (SHM / f"CPU_{name}", CPU_SIZE)):
        path.write_bytes(b"\x5a" * size)
        os.chown(path, 65534, 65534)
    with pytest.raises(DriverUnavailableError, match="no process of user 65534 has it mapped"):
        opened(name, library)
    with pytest.raises(NoDriverError, match=f"virtualbox: /dev/shm/{name} is user 65534's"):
        Microvmi(name)
    assert (SHM / name).read_bytes() == b"\x5a" * CHANNEL_SIZE


def test_a_bare_name_touches_no_shared_memory_that_no_machine_has(name: str) -> None:
    """It may be a file of another program, for a machine of QEMU's: those are asked later."""
    for path, size in ((SHM / name, CHANNEL_SIZE), (SHM / f"CPU_{name}", CPU_SIZE)):
        path.write_bytes(b"\x5a" * size)
    with pytest.raises(NoDriverError, match=r"virtualbox: .* no process of user .* has it mapped"):
        Microvmi(name)
    assert (SHM / name).read_bytes() == b"\x5a" * CHANNEL_SIZE


def test_a_bare_name_opens_a_machine_that_runs(vm: Simulator, library: Path) -> None:
    with Microvmi(vm.name, library=library) as machine:
        assert machine.driver.name == "virtualbox"


def test_a_machine_without_registers_is_not_touched(library: Path, name: str) -> None:
    (SHM / name).write_bytes(b"\x5a" * CHANNEL_SIZE)
    with pytest.raises(DriverUnavailableError, match=f"CPU_{name}"):
        opened(name, library)
    assert (SHM / name).read_bytes() == b"\x5a" * CHANNEL_SIZE


def test_links_folders_and_pipes_are_not_followed(library: Path, name: str, tmp_path: Path) -> None:
    target = tmp_path / "other"
    target.write_bytes(b"\x5a" * CHANNEL_SIZE)
    (SHM / f"CPU_{name}").write_bytes(bytes(CPU_SIZE))
    makers: list[Callable[[Path], object]] = [
        lambda path: path.symlink_to(target),
        os.mkfifo,
        lambda path: path.mkdir(),
    ]
    for make, remove in zip(makers, [Path.unlink, Path.unlink, Path.rmdir], strict=True):
        make(SHM / name)
        with pytest.raises(DriverUnavailableError):
            opened(name, library)
        remove(SHM / name)
    assert target.read_bytes() == b"\x5a" * CHANNEL_SIZE


def test_shared_memory_that_nobody_serves_is_told_in_time_and_left_clean(library: Path, name: str) -> None:
    (SHM / name).write_bytes(bytes(CHANNEL_SIZE))
    (SHM / f"CPU_{name}").write_bytes(bytes(CPU_SIZE))
    start = time.monotonic()
    with pytest.raises(DriverUnavailableError, match=r"does not answer within 0\.3 s"):
        opened(name, library)
    assert time.monotonic() - start < 3
    content = (SHM / name).read_bytes()
    assert [content[at] for at in (LOCK, REQUEST_PRESENT, ANSWER_PRESENT)] == [0, 0, 0]


@pytest.mark.alone
def test_a_machine_that_ends_is_told_in_time(vm: Simulator, library: Path) -> None:
    with opened(vm.name, library) as machine:
        vm.end()
        buffer = bytearray(b"\xa5" * 0x2000)
        start = time.monotonic()
        with pytest.raises(TimeoutExpiredError, match="did not answer in time"):
            machine.read_physical_into(0x4000, buffer)
        assert time.monotonic() - start < 3
        assert buffer == b"\xa5" * 0x2000
        start = time.monotonic()
        for action in (machine.pause, machine.read_registers, lambda: machine.read_physical(0, 1)):
            with pytest.raises(TimeoutExpiredError):
                action()
        assert time.monotonic() - start < 0.1


def test_closing_after_the_end_tells_what_could_not_be_undone_and_closes(vm: Simulator, library: Path) -> None:
    machine = opened(vm.name, library)
    machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=0x6000))
    vm.end()
    with pytest.raises(TimeoutExpiredError):
        machine.close()
    machine.close()


def test_a_machine_that_hangs_can_be_opened_again_when_it_goes_on(vm: Simulator, library: Path) -> None:
    machine = opened(vm.name, library)
    vm.process.send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutExpiredError):
        machine.read_physical(0, 0x4000)
    vm.process.send_signal(signal.SIGCONT)
    machine.close()
    with opened(vm.name, library, timeout=5) as again:
        assert again.read_physical(0x4000, 0x4000) == addresses(0x4000, 0x4000)


@pytest.mark.parametrize(
    "call",
    [
        lambda machine: machine.read_physical(0x4000, 8),
        lambda machine: machine.read_physical_padded_into(0x4000, bytearray(8)),
        lambda machine: machine.write_physical(0x4000, b"x"),
        lambda machine: machine.driver.write_frame(4, 0, memoryview(b"x")),
        lambda machine: machine.read_registers(),
        lambda machine: machine.pause(),
        lambda machine: machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=0x6000)),
    ],
    ids=["read", "padded", "write", "frame", "registers", "pause", "intercept"],
)
def test_the_first_call_without_an_answer_says_so(
    vm: Simulator, library: Path, call: Callable[[Microvmi], object]
) -> None:
    """What ends the wait is an answer of ours, which says no, of one byte: nobody may take it for the machine's."""
    machine = opened(vm.name, library)
    vm.process.send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutExpiredError, match="did not answer in time"):
        call(machine)
    vm.process.send_signal(signal.SIGCONT)
    machine.close()


def poke(vm: Simulator, *values: tuple[int, int]) -> None:
    with (SHM / vm.name).open("r+b", buffering=0) as channel:
        for at, value in values:
            channel.seek(at)
            channel.write(bytes([value]))


def test_what_a_dead_client_left_is_cleared(vm: Simulator, library: Path) -> None:
    for left in ([(LOCK, 1), (ANSWER_PRESENT, 1)], [(LOCK, 1)], [(ANSWER_PRESENT, 1)]):
        poke(vm, *left)
        with opened(vm.name, library) as machine:
            assert machine.read_physical(0x4000, 16) == addresses(0x4000, 16)


def test_a_client_that_is_at_work_is_waited_for(vm: Simulator, library: Path) -> None:
    poke(vm, (LOCK, 1))
    threading.Timer(0.2, poke, (vm, (LOCK, 0))).start()
    with opened(vm.name, library, timeout=5) as machine:
        assert machine.max_addr == SIZE


def test_a_client_that_keeps_the_machine_is_told(vm: Simulator, library: Path) -> None:
    with opened(vm.name, library) as machine:
        poke(vm, (LOCK, 1))
        with pytest.raises(TimeoutExpiredError, match="busy"):
            machine.read_physical(0, 1)
        poke(vm, (LOCK, 0))
        assert machine.read_physical(0x4000, 8) == addresses(0x4000, 8)


def test_a_client_that_is_at_work_all_the_time_does_not_keep_the_machine(vm: Simulator) -> None:
    ended, buffer = threading.Event(), (ctypes.c_uint8 * 0x100000)()

    def read_on() -> None:
        while not ended.is_set():
            vm.fdp.FDP_ReadPhysicalMemory(vm.handle(), buffer, 0x100000, ctypes.c_uint64(0x10000))

    other = threading.Thread(target=read_on)
    other.start()
    try:
        with Microvmi.open(vm.uri) as machine:
            for address in range(0x10000, 0x20000, 0x1000):
                assert machine.read_physical(address, 0x1000) == addresses(address, 0x1000)
    finally:
        ended.set()
        other.join()


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("\n")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_opening_and_closing_leaves_nothing(vm: Simulator) -> None:
    Microvmi.open(vm.uri).close()
    gc.collect()  # what an earlier test left in a cycle
    before = (mappings(), descriptors(), threading.active_count())
    for _ in range(100):
        with Microvmi.open(vm.uri) as machine:
            machine.read_physical(0x4000, 0x2000)
    time.sleep(0.3)
    after = (mappings(), descriptors(), threading.active_count())
    assert after[0] <= before[0] + 10  # stacks that the C library keeps for threads to come
    assert after[1:] == (before[1], 1 + sum(thread.name != "libmicrovmi-fdp" for thread in threading.enumerate()[1:]))


def test_two_openings_are_independent(vm: Simulator) -> None:
    first, second = Microvmi.open(vm.uri), Microvmi.open(vm.uri)
    first.close()
    assert second.read_physical(0x4000, 8) == addresses(0x4000, 8)
    second.close()
    with pytest.raises(MicrovmiError, match="closed"):
        second.read_physical(0x4000, 8)


def test_a_driver_that_is_closed_twice_leaves_other_openings_alone(vm: Simulator, library: Path) -> None:
    first, second = opened(vm.name, library), opened(vm.name, library)
    first.driver.close()
    first.driver.close()
    with pytest.raises(InvalidContextError, match="closed"):
        first.driver.read_frame(4, 0, memoryview(bytearray(8)))  # type: ignore[attr-defined]
    vm.process.send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutExpiredError):  # there is still a thread that ends its wait
        second.read_physical(0x4000, 8)
    vm.process.send_signal(signal.SIGCONT)
    second.close()


def test_a_machine_that_is_left_alone_for_longer_than_its_limit_is_well(vm: Simulator, library: Path) -> None:
    with opened(vm.name, library, timeout=0.1) as machine:
        for _ in range(2):
            assert machine.read_physical(0x4000, 16) == addresses(0x4000, 16)
            time.sleep(0.4)


@pytest.mark.parametrize(
    "call",
    [
        lambda machine: machine.read_physical(0x4000, 8),
        lambda machine: machine.driver.read_range(0x4000, memoryview(bytearray(0x2000))),
        lambda machine: machine.write_physical(0x4000, b"x"),
        lambda machine: machine.read_registers(),
    ],
    ids=["read", "range", "write", "registers"],
)
def test_a_call_that_was_answered_is_not_waited_for(
    vm: Simulator, library: Path, call: Callable[[Microvmi], object]
) -> None:
    """Who looks whether calls are answered in time ends with the machine, and stays for one that is under way."""
    with opened(vm.name, library, timeout=60) as machine:
        looks = [thread for thread in threading.enumerate() if thread.name == "libmicrovmi-fdp"][-1]
        call(machine)
    looks.join(20)
    assert not looks.is_alive()


def test_many_threads_share_a_machine(vm: Simulator) -> None:
    wrong: list[object] = []

    def hammer(machine: Microvmi, start: int) -> None:
        for address in range(start, start + 0x40000, 0x1008):
            if machine.read_physical(address, 0x1800) != addresses(address, 0x1800):
                wrong.append(address)

    with Microvmi.open(vm.uri) as one, Microvmi.open(vm.uri) as two:
        threads = [
            threading.Thread(target=hammer, args=(machine, 0x10000 * (number + 1)))
            for number, machine in enumerate((one, two, one, two))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert wrong == []


def test_the_thread_of_an_open_machine_takes_no_signals(vm: Simulator) -> None:
    with Microvmi.open(vm.uri):
        thread = [thread for thread in threading.enumerate() if thread.name == "libmicrovmi-fdp"][-1]
        end = time.monotonic() + 5
        while blocked(thread) != {1, 2, 3, 10, 12, 14, 15} and time.monotonic() < end:
            time.sleep(0.01)
        assert blocked(thread) == {1, 2, 3, 10, 12, 14, 15}


def blocked(thread: threading.Thread) -> set[int]:
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    mask = int(status.partition("SigBlk:")[2].split()[0], 16)
    return {number for number in (1, 2, 3, 10, 12, 14, 15) if mask >> number - 1 & 1}


def test_waiting_costs_no_processor(vm: Simulator) -> None:
    with Microvmi.open(vm.uri) as machine:
        machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=0x6000))
        before = resource.getrusage(resource.RUSAGE_SELF)
        assert machine.listen(0.5) is None
        after = resource.getrusage(resource.RUSAGE_SELF)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.25
