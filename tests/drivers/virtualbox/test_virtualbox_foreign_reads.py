# SPDX-License-Identifier: Apache-2.0
"""libFDP's own read function, called by C: the same as by way of Python, without Python, one at a time, and in time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from drivers.foreign_way import UNTOUCHED, Reader, of_driver, of_stream, python_functions, python_of_all_reads
from drivers.virtualbox.conftest import HOLE, SIZE
from drivers.virtualbox.simulator import READS, Simulator, addresses
from drivers.virtualbox.test_virtualbox_trouble import LOCK, poke

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import InvalidContextError, MicrovmiError, TimeoutExpiredError

RANGES = [
    (0x4000, 8),
    (0x4FFC, 8),
    (0x4800, 0x20000),
    (HOLE - 8, 8),
    (HOLE - 4, 8),
    (HOLE - 0x1800, 0x2800),
    (HOLE - 0x11800, 0x30000),
    (HOLE - 0x210000, 0x250000),
    (HOLE, 8),
    (HOLE + 0xFFC, 8),
    (HOLE + 0x1000, 0x3000),
    (SIZE - 8, 8),
    (SIZE - 8, 0x1000),
    (SIZE, 8),
    ((1 << 64) - 8, 16),
]


@pytest.fixture
def reader(stubs: ModuleType, lib: Any, opened: Callable[[str], int], vm: Simulator) -> Reader:
    """The machine, open from C."""
    return Reader(stubs, lib, opened(vm.uri))


@pytest.fixture
def impatient(stubs: ModuleType, lib: Any, opened: Callable[[str], int], vm: Simulator) -> Iterator[Reader]:
    """The same, with half a second for an answer."""
    yield Reader(stubs, lib, opened(vm.uri.replace("timeout=10", "timeout=0.5")))
    vm.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("address", "size"), RANGES)
def test_reads_are_those_of_python(reader: Reader, machine: Microvmi, address: int, size: int, padded: bool) -> None:
    found, expected = reader.at(address, size, padded=padded), of_driver(machine.driver, address, size, padded=padded)
    same = found == expected
    assert same, (found[:3], expected[:3])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("address", "size"), RANGES[:-1])
def test_streams_and_their_cursors_are_those_of_python(
    reader: Reader, machine: Microvmi, address: int, size: int, padded: bool
) -> None:
    found = reader.stream(address, size, padded=padded)
    expected = of_stream(machine.driver, address, size, padded=padded)
    same = found == expected
    assert same, (found[:3], found.position, expected[:3], expected.position)


def test_requests_of_a_batch_have_the_results_of_python(reader: Reader, machine: Microvmi) -> None:
    whole, found = reader.batch(RANGES)
    expected = [of_driver(machine.driver, address, size, padded=False) for address, size in RANGES]
    first = next(outcome.text for outcome in expected if outcome.code)
    same = found == [outcome._replace(text=first) for outcome in expected]
    assert same
    assert not whole


@pytest.mark.parametrize("size", [8, 0x100000])
def test_what_exists_is_read_without_python(reader: Reader, size: int) -> None:
    assert python_of_all_reads(reader, 0x8000, size) == set()


def test_a_batch_of_pages_is_a_request_each(vm: Simulator, reader: Reader, machine: Microvmi) -> None:
    pages = [(0x10000 + 0x2000 * number, 0x1000) for number in range(256)]
    before = vm.msr(READS)
    whole, found = reader.batch(pages)
    assert whole
    assert all(outcome.content == addresses(at, size) for (at, size), outcome in zip(pages, found, strict=True))
    assert vm.msr(READS) - before == 256
    buffers = [bytearray(size) for _, size in pages]
    machine.read_physical_batch([(at, buffer) for (at, _), buffer in zip(pages, buffers, strict=True)])
    assert all(buffer == addresses(at, size) for (at, size), buffer in zip(pages, buffers, strict=True))
    assert vm.msr(READS) - before == 512


def test_pages_of_a_paused_machine_are_kept_by_c(vm: Simulator, reader: Reader) -> None:
    assert reader.lib.microvmi_pause(reader.context)
    before = vm.msr(READS)
    assert python_functions(lambda: reader.at(0x4FF0, 0x20)) == set()
    for address in range(0x4000, 0x6000, 0x88):
        assert reader.at(address, 8).content == addresses(address, 8)
    assert vm.msr(READS) - before == 2
    assert reader.lib.microvmi_resume(reader.context)


# ------------------------------------------------------------------------------------------------------------- trouble


def test_a_read_that_is_not_answered_ends_in_time_and_so_do_later_ones(vm: Simulator, impatient: Reader) -> None:
    vm.process.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    outcome = impatient.at(0x4000, 0x2000)
    assert 0.4 < time.monotonic() - start < 3
    assert "did not answer in time" in outcome.text
    assert (outcome.done, outcome.code, outcome.content) == (0, TimeoutExpiredError.code, UNTOUCHED * 0x2000)
    start = time.monotonic()
    for read in (impatient.at, impatient.stream):
        assert read(0x4000, 8).code == TimeoutExpiredError.code
    assert impatient.batch([(0x4000, 8)] * 3)[1][2].code == TimeoutExpiredError.code
    assert time.monotonic() - start < 0.2


def test_a_machine_that_goes_on_can_be_opened_again(
    stubs: ModuleType, vm: Simulator, impatient: Reader, opened: Callable[[str], int]
) -> None:
    vm.process.send_signal(signal.SIGSTOP)
    assert impatient.at(0x4000, 8).code == TimeoutExpiredError.code
    vm.process.send_signal(signal.SIGCONT)
    impatient.lib.microvmi_destroy(impatient.context)
    again = Reader(stubs, impatient.lib, opened(vm.uri))
    assert python_functions(lambda: again.at(0x4000, 8)) == set()
    assert again.at(0x4000, 0x3000).content == addresses(0x4000, 0x3000)


def test_of_two_threads_that_are_not_answered_both_are_told(vm: Simulator, impatient: Reader) -> None:
    vm.process.send_signal(signal.SIGSTOP)
    outcomes: list[Any] = []
    threads = [threading.Thread(target=lambda: outcomes.append(impatient.at(0x4000, 8))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [outcome.code for outcome in outcomes] == [TimeoutExpiredError.code] * 2


def test_another_program_s_request_is_awaited(vm: Simulator, impatient: Reader) -> None:
    poke(vm, (LOCK, 1))
    start = time.monotonic()
    outcome = impatient.at(0x4000, 8)
    assert 0.4 < time.monotonic() - start < 3
    assert "busy" in outcome.text
    assert (outcome.done, outcome.code, outcome.content) == (0, TimeoutExpiredError.code, UNTOUCHED * 8)
    threading.Timer(0.2, poke, (vm, (LOCK, 0))).start()
    assert impatient.at(0x4000, 8).content == addresses(0x4000, 8)
    assert python_functions(lambda: impatient.at(0x4000, 8)) == set()


def test_closing_leaves_no_read_without_an_end(vm: Simulator) -> None:
    """A read may be under way when the last user goes: who ends a wait for an answer stays until then."""
    machine = Microvmi.open(vm.uri.replace("timeout=10", "timeout=1"))
    told: list[MicrovmiError] = []

    def read() -> None:
        try:
            machine.physical.read_into(0x4000, memoryview(bytearray(8)))
        except MicrovmiError as err:
            told.append(err)

    vm.process.send_signal(signal.SIGSTOP)
    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.2)
    machine.close()
    thread.join(5)
    vm.process.send_signal(signal.SIGCONT)
    assert [type(err) for err in told] == [InvalidContextError]


def test_what_is_closed_is_not_read_though_others_have_the_machine_open(vm: Simulator, machine: Microvmi) -> None:
    second = Microvmi.open(vm.uri)
    physical = second.physical
    assert physical.read_into(0x4000, memoryview(bytearray(8))) == 8
    second.close()
    with pytest.raises(InvalidContextError):
        physical.read_into(0x4000, memoryview(bytearray(8)))
    assert machine.read_physical(0x4000, 8) == addresses(0x4000, 8)


def test_a_machine_is_destroyed_while_eight_threads_read(reader: Reader, machine: Microvmi) -> None:
    wrong: list[object] = []

    def read(start: int) -> None:
        while True:
            outcome = reader.at(start, 0x3000)
            if outcome.code == InvalidContextError.code:
                return
            if outcome.code or outcome.content != addresses(start, 0x3000):
                wrong.append(outcome[:3])
                return

    threads = [threading.Thread(target=read, args=(0x8000 + 0x800 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    reader.lib.microvmi_destroy(reader.context)
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert machine.read_physical(0x4000, 8) == addresses(0x4000, 8)


def test_threads_of_c_and_of_python_take_turns(reader: Reader, machine: Microvmi) -> None:
    wrong: list[object] = []

    def by_c(start: int) -> None:
        wrong.extend(at for at in range(start, start + 0x40000, 0x1008) if reader.at(at, 0x1800).content != whole(at))

    def by_python(start: int) -> None:
        for at in range(start, start + 0x40000, 0x1008):
            buffer = bytearray(0x1800)
            machine.driver.read_range(at, memoryview(buffer))  # type: ignore[attr-defined]
            if buffer != whole(at):
                wrong.append(at)

    def whole(at: int) -> bytes:
        return addresses(at, 0x1800)

    threads = [threading.Thread(target=way, args=(0x10000 * (n + 1),)) for n, way in enumerate((by_c, by_python) * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
