# SPDX-License-Identifier: Apache-2.0
"""A hypervisor that fails in the middle of an access: what was done before is told, and cursors and kept pages fit it.

The same is asked of reads and writes, at an address, by the streams and in batches, through C and through Python, of
a machine that runs and of one that is paused, whose pages are kept.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import byref, c_uint8, c_uint64
from types import ModuleType
from typing import Any

import pytest
from contract.calls import (
    IO,
    OK,
    UNTOUCHED,
    Answer,
    answer,
    answer_of,
    check,
    error_line,
    read,
    read_padded,
    write,
)
from contract.stock import failing
from contract.target import Failing
from contract.truth import PAGE, Truth

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import SupportsFrames
from libmicrovmi_py.drivers.control import SupportsPause
from libmicrovmi_py.errors import AccessError, IoError, MicrovmiError

FAILING = failing()

BEFORE = (0, 1, 5, PAGE, PAGE + 5, 3 * PAGE + 1, 18 * PAGE)
"""How many bytes in front of the frame that fails an access begins."""

BEHIND = (8, 2 * PAGE)
"""How many bytes from there on it wants."""


@pytest.fixture(scope="module", params=FAILING)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    with contextmanager(FAILING[request.param])(tmp_path_factory.mktemp("f")) as machine:
        yield machine


@pytest.fixture
def truth(made: Failing) -> Truth:
    return Truth.of(made.pieces)


@pytest.fixture(params=["running", "paused"])
def context(lib: Any, made: Failing, request: pytest.FixtureRequest) -> Iterator[int]:
    opened = lib.microvmi_open(made.uri.encode(), None)
    assert opened, lib.microvmi_last_error()
    with made.failing():
        if request.param == "paused":
            lib.microvmi_pause(opened)
        yield opened
    lib.microvmi_destroy(opened)


@pytest.fixture(params=["running", "paused"])
def machine(made: Failing, request: pytest.FixtureRequest) -> Iterator[Microvmi]:
    with Microvmi.open(made.uri) as opened, made.failing():
        if request.param == "paused" and isinstance(opened.driver, SupportsPause):
            opened.pause()
        yield opened


@pytest.fixture
def unreadable(made: Failing) -> int:
    """Where the frame that cannot be read begins; no test where a driver has none."""
    return -1 if made.unreadable is None else made.unreadable


@pytest.fixture
def unwritable(made: Failing) -> int:
    """Where the frame that cannot be written begins, likewise."""
    return -1 if made.unwritable is None else made.unwritable


def accesses(start: int) -> list[tuple[int, int]]:
    """(address, size) of accesses that meet the frame at ``start``; none if there is no such frame."""
    return [(start - before, before + behind) for before in BEFORE for behind in BEHIND] if start >= 0 else []


def failed(done: int, valid: bytes, size: int) -> Answer:
    """A read that was given up with an I/O error after ``done`` bytes."""
    return Answer(False, done, valid[:done] + UNTOUCHED * (size - done), IO)


def check_count(made: Failing, done: int, before: int) -> None:
    """``before`` bytes could be read or written; a driver that is not exact tells less, but never more."""
    assert done == before if made.exact else 0 <= done <= before


# ------------------------------------------------------------------------------------------------------------ through C


@pytest.mark.parametrize("call", [read, read_padded])
def test_a_read_tells_what_it_has(
    lib: Any, made: Failing, context: int, truth: Truth, unreadable: int, call: Callable[..., Answer]
) -> None:
    for address, size in accesses(unreadable):
        got = call(lib, context, address, size)
        check_count(made, got.done, unreadable - address)
        check_prefix(got, truth, address, size)
        error_line(lib)


def check_prefix(got: Answer, truth: Truth, address: int, size: int) -> None:
    """What is told is there; where nothing is told anything may have been copied, but not behind what exists."""
    assert (got.ok, got.code) == (False, IO)
    check(got._replace(content=got.content[: got.done]), failed(got.done, truth.valid(address, size), got.done), "read")


@pytest.mark.parametrize("stream", ["", "padded_"])
def test_a_stream_moves_by_what_it_read(
    lib: Any, made: Failing, context: int, truth: Truth, unreadable: int, stream: str
) -> None:
    position = c_uint64()
    for address, size in accesses(unreadable):
        assert getattr(lib, f"microvmi_{stream}seek")(context, address, 0, None)
        got = answer(lib, getattr(lib, f"microvmi_{stream}read"), context, size=size)
        check_count(made, got.done, unreadable - address)
        check_prefix(got, truth, address, size)
        assert getattr(lib, f"microvmi_{stream}tell")(context, byref(position))
        assert position.value == address + got.done


def test_in_a_batch_only_the_requests_that_fail_do(
    lib: Any, made: Failing, context: int, stubs: ModuleType, truth: Truth, unreadable: int
) -> None:
    well = [(unreadable - 2 * PAGE, 16), (unreadable - 8, 8), (unreadable - 19 * PAGE, 2 * PAGE)]
    wanted = [pair for bad in accesses(unreadable) for pair in (*well, bad)]
    requests = (stubs.microvmi_read_request * len(wanted))()
    for request, (address, size) in zip(requests, wanted, strict=True):
        request.physical_address, request.size, request.bytes_read, request.error = address, size, 77, 77
        request.buffer = (c_uint8 * size)(*UNTOUCHED * size)
    assert lib.microvmi_read_physical_batch(context, requests, len(wanted)) is (unreadable < 0)
    assert lib.microvmi_last_error_code() == (OK if unreadable < 0 else IO)
    for request, (address, size) in zip(requests, wanted, strict=True):
        got = Answer(request.error == OK, request.bytes_read, bytes(request.buffer[:size]), request.error)
        if (address, size) in well:
            check(got, answer_of(truth.valid(address, size), size), f"{size:#x} bytes at {address:#x}")
        else:
            check_count(made, got.done, unreadable - address)
            check_prefix(got, truth, address, size)


def test_memory_in_front_stays_readable(lib: Any, context: int, truth: Truth, unreadable: int) -> None:
    for address, size in accesses(unreadable):
        before = unreadable - address
        if before:
            assert not read(lib, context, address, size).ok
            check(read(lib, context, address, before), answer_of(truth.valid(address, before), before), "in front")


def changed(truth: Truth, address: int, size: int) -> bytes:
    """Other bytes than those that are there."""
    return bytes(byte ^ 0x5A for byte in truth.valid(address, size))


@pytest.mark.parametrize("by_stream", [False, True])
def test_a_write_that_fails_is_seen_as_far_as_it_got(
    lib: Any, made: Failing, context: int, truth: Truth, unwritable: int, by_stream: bool
) -> None:
    """Pages that were kept before it are not what is read after it."""
    for address, size in accesses(unwritable):
        before = unwritable - address
        for start in range(address, unwritable, PAGE):
            read(lib, context, start, 8)
        data, count = changed(truth, address, size), c_uint64(77)
        if by_stream:
            assert lib.microvmi_seek(context, address, 0, None)
            assert not lib.microvmi_write(context, (c_uint8 * size)(*data), size, byref(count))
            assert lib.microvmi_last_error_code() == IO
            error_line(lib)
            check_moved(lib, context, address + count.value)
            check_count(made, count.value, before)
        else:
            assert write(lib, context, address, data) == IO
            error_line(lib)
        written = landed(lib, made, context, truth, address, before, count.value if by_stream else None)
        if written:
            assert write(lib, context, address, truth.valid(address, written)) == OK


def check_moved(lib: Any, context: int, expected: int) -> None:
    position = c_uint64()
    assert lib.microvmi_tell(context, byref(position))
    assert position.value == expected


def landed(lib: Any, made: Failing, context: int, truth: Truth, address: int, before: int, told: int | None) -> int:
    """How much of a write landed of ``before`` bytes: all that can be, or as was told, and nothing beside."""
    parts = [read(lib, context, start, 1).content for start in range(address, address + before)] if before < 16 else []
    content = b"".join(parts) or read(lib, context, address, before).content
    new, old = changed(truth, address, before), truth.valid(address, before)
    written = next((index for index in range(before) if content[index] != new[index]), before)
    assert content == new[:written] + old[written:]
    assert written == told if told is not None else True
    check_count(made, written, before)
    return written


# ------------------------------------------------------------------------------------------------------- through Python


def error_of(call: Callable[..., object], *arguments: object) -> AccessError:
    with pytest.raises(IoError) as caught:
        call(*arguments)
    assert str(caught.value).isprintable()
    return caught.value


def check_error(made: Failing, error: AccessError, address: int, size: int, before: int) -> None:
    check_count(made, error.completed, before)
    assert (error.address, error.requested) == (address + error.completed, size)


def test_errors_of_python_tell_the_same(made: Failing, machine: Microvmi, truth: Truth, unreadable: int) -> None:
    for address, size in accesses(unreadable):
        calls = (machine.read_physical_into, machine.read_physical_padded_into, machine.read_physical_exactly_into)
        for call in calls:
            buffer = bytearray(size)
            error = error_of(call, address, buffer)
            check_error(made, error, address, size, unreadable - address)
            assert buffer[: error.completed] == truth.valid(address, error.completed)


def test_so_do_results_of_a_batch(made: Failing, machine: Microvmi, truth: Truth, unreadable: int) -> None:
    wanted = [pair for bad in accesses(unreadable) for pair in ((bad[0] - PAGE, 16), bad)]
    buffers = [bytearray(size) for _, size in wanted]
    addresses = [address for address, _ in wanted]
    results = machine.read_physical_batch(list(zip(addresses, buffers, strict=True)))
    for (done, error), (address, size), buffer in zip(results, wanted, buffers, strict=True):
        assert buffer[:done] == truth.valid(address, done)
        if size == 16:
            assert (done, error) == (16, None)
        else:
            assert isinstance(error, IoError)
            assert error.completed == done
            check_error(made, error, address, size, unreadable - address)


@pytest.mark.parametrize("padded", [False, True])
def test_streams_of_python_move_by_what_they_read(
    made: Failing, machine: Microvmi, truth: Truth, unreadable: int, padded: bool
) -> None:
    stream = machine.padded_memory if padded else machine.memory
    for address, size in accesses(unreadable):
        buffer = bytearray(size)
        stream.seek(address)
        error = error_of(stream.readinto, buffer)
        check_error(made, error, address, size, unreadable - address)
        assert stream.tell() == address + error.completed
        assert buffer[: error.completed] == truth.valid(address, error.completed)


def test_writes_of_python_tell_how_much_was_written(
    made: Failing, machine: Microvmi, truth: Truth, unwritable: int
) -> None:
    for address, size in accesses(unwritable):
        before, data = unwritable - address, changed(truth, address, size)
        machine.memory.seek(address)
        by_stream = error_of(machine.memory.write, data)
        check_write_error(made, by_stream, address, size, before)
        assert machine.memory.tell() == address + by_stream.completed
        put_back(machine, truth, address, by_stream.completed, before)
        by_address = error_of(machine.write_physical, address, data)
        check_write_error(made, by_address, address, size, before)
        put_back(machine, truth, address, by_address.completed, before)


def check_write_error(made: Failing, error: AccessError, address: int, size: int, before: int) -> None:
    """It may have been found in front of the write that it cannot be done, and where."""
    check_count(made, error.completed, before)
    assert address + error.completed <= error.address < address + size
    assert error.requested == size


def put_back(machine: Microvmi, truth: Truth, address: int, written: int, before: int) -> None:
    """So much was written, and no more; undo it."""
    content = machine.read_physical(address, before)
    assert content[:written] == changed(truth, address, written)
    assert content[written:] == truth.valid(address + written, before - written)
    machine.write_physical(address, truth.valid(address, written))


# ------------------------------------------------------------------------------------------- errors that somebody keeps


def test_an_error_that_is_kept_in_a_cycle_harms_nothing_when_it_is_collected(
    made: Failing, machine: Microvmi, unreadable: int, unwritable: int
) -> None:
    """Its traceback holds our frames, and so what they have of the caller's buffer."""
    for address, size in accesses(unreadable):
        keep_in_a_cycle(machine.read_physical_exactly_into, address, memoryview(bytearray(size)))
        keep_in_a_cycle(machine.read_physical_padded_into, address, memoryview(bytearray(size)))
        for stream in (machine.memory, machine.padded_memory):
            stream.seek(address)
            keep_in_a_cycle(stream.readinto, memoryview(bytearray(size)))
    for address, size in accesses(unwritable):
        data = machine.read_physical(address, unwritable - address) + bytes(size)
        keep_in_a_cycle(machine.write_physical, address, memoryview(data)[:size])
    driver = machine.driver
    machine.close()
    if isinstance(driver, SupportsFrames):
        keep_in_a_cycle(driver.read_frame, 0, 0, memoryview(bytearray(8)))
    gc.collect()


def keep_in_a_cycle(call: Callable[..., object], *arguments: object) -> None:
    """The error, its traceback, this frame and the list in it hold each other."""
    kept: list[object] = []
    try:
        call(*arguments)
    except MicrovmiError as err:
        kept.append(err)
    kept.append(kept)
