# SPDX-License-Identifier: Apache-2.0
"""Reads by address, of every driver: each byte, each edge, each hole, far away, padded, many at once."""

from __future__ import annotations

import functools
import random
from ctypes import byref, c_size_t, c_uint8, c_uint64
from types import ModuleType
from typing import Any

import pytest
from contract.calls import NOT_MAPPED, OK, Answer, answer, answer_of, best_of_3, check, read, read_padded
from contract.known import Known
from contract.truth import PAGE, Truth

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import SupportsMemoryMap, SupportsRegions
from libmicrovmi_py.errors import NotMappedError
from libmicrovmi_py.model import end_of_ram

MIB = 1 << 20
FAR = (1 << 52, 1 << 63, 0xFFFF_FFFF_8000_0000, (1 << 64) - PAGE, (1 << 64) - 1)


def check_read(lib: Any, context: int, truth: Truth, address: int, size: int) -> None:
    check(
        read(lib, context, address, size),
        answer_of(truth.valid(address, size), size),
        f"read of {size:#x} at {address:#x}",
    )


def check_padded(lib: Any, context: int, truth: Truth, address: int, size: int) -> None:
    expected = Answer(True, size, truth.padded(address, size), OK)
    check(read_padded(lib, context, address, size), expected, f"padded read of {size:#x} at {address:#x}")


# ------------------------------------------------------------------------------------------------------ what there is


def test_the_memory_map_is_what_python_tells(lib: Any, context: int, stubs: ModuleType, known: Known) -> None:
    count, ranges = c_size_t(77), (stubs.microvmi_memory_range * 1000)()
    assert lib.microvmi_get_memory_map(context, ranges, 1000, byref(count)), lib.microvmi_last_error()
    told = [(item.start, item.size, item.kind) for item in ranges[: count.value]]
    assert told == [(item.start, item.size, item.kind) for item in known.memory_map]


def test_the_map_joined_is_the_memory_joined(known: Known, truth: Truth) -> None:
    if known.can(SupportsMemoryMap, SupportsRegions):
        told = Truth.of({item.start: bytes(item.size) for item in known.memory_map})
        assert told.ranges == truth.ranges
    else:
        assert [(item.start, item.end) for item in known.memory_map] == [(0, truth.ranges[-1][1])]


def test_the_maximum_address_is_the_end_of_ram(lib: Any, context: int, known: Known) -> None:
    maximum = c_uint64(77)
    assert lib.microvmi_get_max_physical_addr(context, byref(maximum)), lib.microvmi_last_error()
    assert maximum.value == known.max_addr == end_of_ram(known.memory_map)


# ---------------------------------------------------------------------------------------------------------- each byte


def test_all_memory_in_reads_of_many_sizes(lib: Any, context: int, truth: Truth) -> None:
    for (start, end), step in ((span, step) for span in truth.ranges for step in (0x10000, 0x2345, MIB)):
        for address in range(start, end, step):
            check_read(lib, context, truth, address, min(step, end - address))


def test_across_every_frame_boundary(lib: Any, context: int, truth: Truth) -> None:
    for boundary in truth.frames():
        check_read(lib, context, truth, boundary - 1, 2)
    for boundary in truth.frames()[::16]:
        check_read(lib, context, truth, boundary - 8, PAGE + 16)


@pytest.mark.parametrize("size", [1, 2, 8, 16, PAGE, PAGE + 1, 0x11000])
def test_around_every_edge(lib: Any, context: int, truth: Truth, size: int) -> None:
    for edge in truth.edges():
        for address in {max(edge + step, 0) for step in (-size - 1, -size, -size + 1, -size // 2, -1, 0, 1)}:
            check_read(lib, context, truth, address, size)
            check_padded(lib, context, truth, address, size)


def test_wholly_in_a_hole(lib: Any, context: int, truth: Truth) -> None:
    holes = [*truth.holes, (truth.ranges[-1][1], 1 << 52)]
    for start, end in holes:
        for address in (start, (start + end) // 2, end - 1):
            check_read(lib, context, truth, address, 1)
            check_padded(lib, context, truth, address, 1)
        check_read(lib, context, truth, start, min(end - start, 3 * PAGE))


@pytest.mark.parametrize("address", FAR)
@pytest.mark.parametrize("size", [1, 8, PAGE, 16 * MIB])
def test_far_beyond_everything(lib: Any, context: int, truth: Truth, address: int, size: int) -> None:
    check_read(lib, context, truth, address, size)
    check_padded(lib, context, truth, address, size)


def test_a_size_of_0_is_a_success_everywhere(lib: Any, context: int, truth: Truth) -> None:
    for address in (0, *truth.edges(), *FAR):
        for call in (lib.microvmi_read_physical, lib.microvmi_read_physical_padded):
            count = c_uint64(77)
            assert call(context, address, None, 0, byref(count)), hex(address)
            assert (count.value, lib.microvmi_last_error_code()) == (0, OK)


def test_the_same_from_python(machine: Microvmi, truth: Truth) -> None:
    assert not any(machine.read_physical(address, 0) for address in (0, *truth.edges(), *FAR))
    for edge in truth.edges():
        address, valid = max(edge - 5, 0), truth.valid(max(edge - 5, 0), 10)
        buffer = bytearray(b"\xee" * 10)
        assert machine.read_physical_into(address, buffer) == len(valid)
        assert buffer == valid + b"\xee" * (10 - len(valid))
        machine.read_physical_padded_into(address, buffer)
        assert buffer == truth.padded(address, 10)
        if len(valid) < 10:
            with pytest.raises(NotMappedError) as caught:
                machine.read_physical(address, 10)
            error = caught.value
            assert (error.address, error.requested, error.completed) == (address + len(valid), 10, len(valid))


# ---------------------------------------------------------------------------------------------------------- cheapness


@pytest.mark.alone
def test_16_mib_from_an_edge_on_cost_milliseconds(lib: Any, context: int, truth: Truth) -> None:
    buffer = (c_uint8 * (16 * MIB))()
    for address in (address for _, end in truth.ranges for address in (end - 8, end)):
        call = functools.partial(lib.microvmi_read_physical, context, address, buffer, len(buffer), None)
        assert best_of_3(call, 0.1) < 0.1, hex(address)


@pytest.mark.alone
def test_16_padded_mib_cost_no_more_than_asking_for_each_frame(lib: Any, context: int, truth: Truth) -> None:
    """A driver that knows no memory map has to ask for each: a second, or what so many asks take here and now."""
    buffer = (c_uint8 * (16 * MIB))()
    for address in (*(end - 8 for _, end in truth.ranges), *FAR):
        ask = functools.partial(lib.microvmi_read_physical_padded, context, address + PAGE, buffer, 8, None)
        limit = max(1.0, 1.5 * len(buffer) / PAGE * min(best_of_3(ask, 0) for _ in range(10)))
        call = functools.partial(lib.microvmi_read_physical_padded, context, address, buffer, len(buffer), None)
        assert best_of_3(call, limit) < limit, hex(address)


# -------------------------------------------------------------------------------------------------------- many at once


def requests_of(stubs: ModuleType, wanted: list[tuple[int, int]]) -> Any:
    requests = (stubs.microvmi_read_request * len(wanted))()
    for request, (address, size) in zip(requests, wanted, strict=True):
        request.physical_address, request.size, request.bytes_read, request.error = address, size, 77, 77
        request.buffer = (c_uint8 * size)(*b"\xee" * size) if size else None
    return requests


def wanted_of(truth: Truth) -> list[tuple[int, int]]:
    """Reads that are good, bad and half good, in no order."""
    chance = random.Random(3)
    wanted = [(max(edge - back, 0), size) for edge in truth.edges() for back in (0, 3) for size in (0, 1, 8, 5000)]
    wanted += [(boundary - 1, 2) for boundary in truth.frames()[:1500]] + [(address, 8) for address in FAR]
    chance.shuffle(wanted)
    return wanted


def test_each_request_of_a_batch_has_its_own_result(lib: Any, context: int, stubs: ModuleType, truth: Truth) -> None:
    wanted = wanted_of(truth)
    requests = requests_of(stubs, wanted)
    assert not lib.microvmi_read_physical_batch(context, requests, len(requests))
    assert lib.microvmi_last_error_code() == NOT_MAPPED
    for request, (address, size) in zip(requests, wanted, strict=True):
        expected = answer_of(truth.valid(address, size), size)
        got = Answer(request.error == OK, request.bytes_read, bytes(request.buffer[:size]), request.error)
        check(got, expected, f"request of {size:#x} at {address:#x}")


def test_a_batch_of_good_requests_is_a_success(lib: Any, context: int, stubs: ModuleType, truth: Truth) -> None:
    requests = requests_of(stubs, [(boundary - 1, 2) for boundary in truth.frames()])
    assert lib.microvmi_read_physical_batch(context, requests, len(requests)), lib.microvmi_last_error()
    for request in requests:
        assert bytes(request.buffer[:2]) == truth.valid(request.physical_address, 2)


# ------------------------------------------------------------------------------------------------------------ streams


@pytest.mark.parametrize("stream", ["", "padded_"])
@pytest.mark.parametrize("whence", [0, 1, 2])
def test_seek_saturates(lib: Any, context: int, known: Known, stream: str, whence: int) -> None:
    seek, tell = getattr(lib, f"microvmi_{stream}seek"), getattr(lib, f"microvmi_{stream}tell")
    maximum, position = known.max_addr, c_uint64()
    for offset in (-(1 << 63), -maximum - 1, -1, 0, 1, maximum, maximum + 1, (1 << 63) - 1):
        assert seek(context, PAGE, 0, None)
        assert seek(context, offset, whence, byref(position))
        expected = sorted([0, (0, PAGE, maximum)[whence] + offset, maximum])[1]
        assert position.value == expected
        assert tell(context, byref(position))
        assert position.value == expected


def at(lib: Any, context: int, stream: str, address: int, size: int) -> tuple[Answer, int]:
    """Seek, read, and tell where the cursor is then."""
    position = c_uint64()
    assert getattr(lib, f"microvmi_{stream}seek")(context, address, 0, None)
    got = answer(lib, getattr(lib, f"microvmi_{stream}read"), context, size=size)
    assert getattr(lib, f"microvmi_{stream}tell")(context, byref(position))
    return got, position.value


def test_the_streams_end_at_the_maximum_address(lib: Any, context: int, known: Known, truth: Truth) -> None:
    maximum, size = known.max_addr, 3 * PAGE
    for address in (max(edge - PAGE - 5, 0) for edge in truth.edges() if edge <= maximum):
        left = min(size, maximum - address)
        valid, padded = truth.valid(address, left), truth.padded(address, left)
        got, position = at(lib, context, "", address, size)
        exists = bool(valid) or not left
        whole = valid + b"\xee" * (size - len(valid))
        check(got, Answer(exists, len(valid), whole, OK if exists else NOT_MAPPED), f"stream at {address:#x}")
        assert position == address + len(valid)
        got, position = at(lib, context, "padded_", address, size)
        check(got, Answer(True, left, padded + b"\xee" * (size - left), OK), f"padded stream at {address:#x}")
        assert position == address + left


def test_a_stream_that_meets_a_hole_stays_before_it(lib: Any, context: int, known: Known, truth: Truth) -> None:
    for start, _ in truth.holes:
        if 0 < start < known.max_addr:
            assert at(lib, context, "", start - 4, 8)[1] == start
            assert answer(lib, lib.microvmi_read, context, size=8) == Answer(False, 0, b"\xee" * 8, NOT_MAPPED)


def test_the_files_of_python_read_the_same(machine: Microvmi, truth: Truth) -> None:
    for start, end in truth.ranges:
        if end <= machine.max_addr:
            machine.memory.seek(end - 100)
            machine.padded_memory.seek(start)
            assert machine.memory.read(100) == truth.valid(end - 100, 100)
            assert machine.padded_memory.read(100) == truth.valid(start, 100)
