# SPDX-License-Identifier: Apache-2.0
"""libkvmi's own read function, called by C: the same as by way of Python, without Python, and in time."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from drivers.foreign_way import UNTOUCHED, Reader, of_driver, of_stream, python_functions, python_of_all_reads
from drivers.kvm import wire
from drivers.kvm.library import library
from drivers.kvm.simulator import PAGE, Simulator
from pagetables import Tables

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import InvalidContextError, MicrovmiError, TimeoutExpiredError, VmGoneError

UNREADABLE = 5
HOLE, BEHIND, END = 0x40000, 0x42000, 0x4A000
RANGES = [
    (0x1000, 8),
    (0x1FFC, 8),
    (0x1800, 0x2000),
    (HOLE - 8, 8),
    (HOLE - 4, 8),
    (HOLE - 0x1800, 0x2800),
    (HOLE - 0x1800, 0x5000),
    (HOLE, 8),
    (BEHIND - 4, 8),
    (BEHIND, 0x3000),
    (UNREADABLE * PAGE + 16, 8),
    (UNREADABLE * PAGE - 0x1008, 0x3000),
    (END - 8, 8),
    (END - 8, 0x1000),
    (END, 8),
    ((1 << 64) - 8, 16),
]


@pytest.fixture
def reader(
    stubs: ModuleType, lib: Any, opened: Callable[[str], int], simulator: Simulator, socket_path: str, libkvmi: str
) -> Reader:
    """The simulator machine, open from C; a frame of it cannot be read."""
    simulator.refused["unreadable"].add(UNREADABLE)
    return Reader(stubs, lib, opened(f"vmi://kvm/?kvm_unix_socket={socket_path}&library={libkvmi}&timeout=5"))


@pytest.fixture
def driver(reader: Reader, reach: Callable[..., Microvmi]) -> Any:
    """The driver of that machine: a second user of its connection."""
    return reach().driver


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("address", "size"), RANGES)
def test_reads_are_those_of_python(reader: Reader, driver: Any, address: int, size: int, padded: bool) -> None:
    assert reader.at(address, size, padded=padded) == of_driver(driver, address, size, padded=padded)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("address", "size"), RANGES[:-1])
def test_streams_and_their_cursors_are_those_of_python(
    reader: Reader, driver: Any, address: int, size: int, padded: bool
) -> None:
    assert reader.stream(address, size, padded=padded) == of_stream(driver, address, size, padded=padded)


def test_requests_of_a_batch_have_the_results_of_python(reader: Reader, driver: Any) -> None:
    whole, found = reader.batch(RANGES)
    expected = [of_driver(driver, address, size, padded=False) for address, size in RANGES]
    first = next(outcome.text for outcome in expected if outcome.code)
    assert found == [outcome._replace(text=first) for outcome in expected]
    assert not whole


def test_python_programs_read_the_same_way(reader: Reader, reach: Callable[..., Microvmi]) -> None:
    machine = reach()
    for address, size in RANGES:
        buffer, (done, code, _, content, _) = (
            bytearray(UNTOUCHED * size),
            of_driver(machine.driver, address, size, padded=False),
        )
        ((got, error),) = machine.read_physical_batch([(address, buffer)])
        assert (got, error.code if error else 0, bytes(buffer)) == (done, code, content)


@pytest.mark.parametrize("size", [8, 0x10000])
def test_what_exists_is_read_without_python(reader: Reader, size: int) -> None:
    assert python_of_all_reads(reader, 0x8000, size) == set()


def test_what_does_not_exist_is_told_by_python(reader: Reader) -> None:
    assert "read_frame" in python_functions(lambda: reader.at(HOLE, 8))


def test_a_host_that_holds_python_s_lock_lets_go_of_it(reader: Reader, library_path: Path) -> None:
    """The simulator machine needs it to answer."""
    holding = ctypes.PyDLL(str(library_path)).microvmi_read_physical
    holding.restype = ctypes.c_bool
    buffer = (ctypes.c_uint8 * 8)()
    context, address, size = ctypes.c_void_p(reader.context), ctypes.c_uint64(0x1000), ctypes.c_size_t(8)
    start = time.monotonic()
    assert holding(context, address, buffer, size, None)
    assert time.monotonic() - start < 5


def test_pages_of_a_paused_machine_are_kept_by_c(
    reader: Reader, simulator: Simulator, pieces: Mapping[int, bytes]
) -> None:
    assert reader.lib.microvmi_pause(reader.context)
    before = simulator.seen.count(wire.READ_PHYSICAL)
    assert python_functions(lambda: reader.at(0x1FF0, 0x20)) == set()
    assert simulator.seen.count(wire.READ_PHYSICAL) == before + 2
    for address in range(0x1000, 0x3000, 0x88):
        assert reader.at(address, 8).content == pieces[0][address : address + 8]
    assert simulator.seen.count(wire.READ_PHYSICAL) == before + 2
    assert reader.lib.microvmi_write_physical(reader.context, 0x1000, (ctypes.c_uint8 * 8)(*b"newbytes"), 8)
    assert reader.at(0x1000, 8).content == b"newbytes"
    assert reader.lib.microvmi_resume(reader.context)


def test_a_virtual_read_of_many_pages_asks_for_each_table_once(
    reader: Reader, simulator: Simulator, stubs: ModuleType, pieces: Mapping[int, bytes]
) -> None:
    memory = bytearray(0x40000)
    tables = Tables(memory, "x86-4", 0x30000)
    places = [(5 * index % 37 + 6) * PAGE for index in range(37)]
    for index, place in enumerate(places):
        tables.map(0x200000 + index * PAGE, place)
    content = bytes(memory[0x30000 : tables.end])
    assert reader.lib.microvmi_write_physical(
        reader.context, 0x30000, (ctypes.c_uint8 * len(content))(*content), len(content)
    )
    space = stubs.microvmi_address_space(ctypes.sizeof(stubs.microvmi_address_space), 3, tables.base)
    before, buffer = simulator.seen.count(wire.READ_PHYSICAL), (ctypes.c_uint8 * (37 * PAGE))()
    done = reader.lib.microvmi_read_virtual(reader.context, ctypes.byref(space), 0x200000, buffer, len(buffer), None)
    assert done, reader.lib.microvmi_last_error()
    assert bytes(buffer) == b"".join(pieces[0][place : place + PAGE] for place in places)
    assert simulator.seen.count(wire.READ_PHYSICAL) <= before + 4 + 37
    assert reader.lib.microvmi_write_physical(
        reader.context, 0x30000, (ctypes.c_uint8 * len(content))(*pieces[0][0x30000 : tables.end]), len(content)
    )


# ------------------------------------------------------------------------------------------------------------- trouble


def from_frame(frame: int, answer: Callable[[], bytes]) -> Callable[[int, int, bytes], bytes | None]:
    """What a machine does at reads from a frame on."""

    def meddle(command: int, seq: int, body: bytes) -> bytes | None:
        late = command == wire.READ_PHYSICAL and wire.RANGE.unpack(body)[0] >= frame * PAGE
        return answer() if late else None

    return meddle


def test_a_machine_that_ends_in_the_middle_leaves_what_was_read(
    reader: Reader, simulator: Simulator, pieces: Mapping[int, bytes]
) -> None:
    def ends() -> bytes:
        simulator.ended = True
        simulator.hang_up()
        return b""

    simulator.meddle = from_frame(3, ends)
    outcome = reader.at(0x800, 0x8000)
    assert (outcome.done, outcome.code) == (0x2800, VmGoneError.code)
    assert outcome.content == pieces[0][0x800:0x3000] + UNTOUCHED * 0x5800


@pytest.fixture
def silent(
    stubs: ModuleType, lib: Any, opened: Callable[[str], int], simulator: Simulator, socket_path: str, tmp_path: Path
) -> Iterator[Reader]:
    """A machine that falls silent at frame 3, and a libkvmi that waits for half a second."""
    impatient = library(tmp_path, "-DLIMIT_MS=500")
    yield Reader(stubs, lib, opened(f"vmi://kvm/?kvm_unix_socket={socket_path}&library={impatient}&timeout=5"))
    simulator.meddle = lambda command, seq, body: None


def test_an_answer_that_does_not_come_is_awaited_once_and_ends_the_connection(
    silent: Reader, simulator: Simulator, pieces: Mapping[int, bytes]
) -> None:
    simulator.meddle = from_frame(3, lambda: b"")
    start = time.monotonic()
    outcome = silent.at(0, 0x8000)
    assert time.monotonic() - start < 0.95
    assert (outcome.done, outcome.code) == (0x3000, TimeoutExpiredError.code)
    assert outcome.content == pieces[0][:0x3000] + UNTOUCHED * 0x5000
    simulator.meddle = lambda command, seq, body: None
    before = len(simulator.seen)
    outcome = silent.at(0, 8)
    assert (outcome.done, outcome.code, outcome.content) == (0, VmGoneError.code, UNTOUCHED * 8)
    assert len(simulator.seen) == before


def test_a_machine_is_destroyed_while_eight_threads_read(reader: Reader, pieces: Mapping[int, bytes]) -> None:
    wrong: list[object] = []
    started = threading.Barrier(9)

    def read(start: int) -> None:
        started.wait()
        while True:
            outcome = reader.at(start, 0x3000)
            if outcome.code == InvalidContextError.code:
                return
            if outcome.code or outcome.content != pieces[0][start : start + 0x3000]:
                wrong.append(outcome)
                return

    threads = [threading.Thread(target=read, args=(0x8000 + 0x800 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    started.wait()
    time.sleep(0.2)
    reader.lib.microvmi_destroy(reader.context)
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_closing_takes_the_connection_from_a_read_that_hangs(
    simulator: Simulator, reach: Callable[..., Microvmi]
) -> None:
    machine = reach()
    told: list[MicrovmiError] = []
    hanging = threading.Event()
    simulator.meddle = from_frame(3, lambda: hanging.set() or b"")  # type: ignore[func-returns-value]

    def read() -> None:
        try:
            machine.physical.read_into(0x3000, memoryview(bytearray(8)))
        except MicrovmiError as err:
            told.append(err)

    thread = threading.Thread(target=read)
    thread.start()
    assert hanging.wait(5)
    start = time.monotonic()
    machine.close()
    assert 0.5 < time.monotonic() - start < 5
    thread.join(5)
    assert [type(err) for err in told] == [InvalidContextError]
