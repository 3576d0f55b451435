# SPDX-License-Identifier: Apache-2.0
"""Writes of every driver: they land and are undone, or change nothing and say why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_uint8, c_uint64
from typing import Any

import pytest
from contract.calls import NOT_MAPPED, OK, READ_ONLY, answer_of, check, error_line, read, write
from contract.known import Known
from contract.target import Target
from contract.truth import PAGE, Truth

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import SupportsMemoryMap, SupportsRegions
from libmicrovmi_py.errors import NotMappedError, ReadOnlyError
from libmicrovmi_py.model import MemoryKind

DATA = bytes(range(0x41, 0x51))


@pytest.fixture
def ram(known: Known, truth: Truth) -> list[tuple[int, int]]:
    """(start, end) of memory that the guest can write."""
    if not known.can(SupportsMemoryMap, SupportsRegions):
        return truth.ranges
    return [(item.start, item.end) for item in known.memory_map if item.kind is MemoryKind.RAM]


@pytest.fixture
def writable(target: Target) -> bool:
    """Whether writes land."""
    return target.writable


def places(ram: list[tuple[int, int]]) -> list[int]:
    """Where to write: first and last bytes, and across a frame's boundary."""
    ends = [end - len(DATA) for _, end in ram]
    return [*(start for start, _ in ram), *ends, *(start + PAGE - 7 for start, end in ram if end - start > PAGE + 9)]


@contextmanager
def undone(lib: Any, context: int, truth: Truth, address: int) -> Iterator[None]:
    """Put back what was there, and see that it is."""
    before = truth.valid(address, len(DATA))
    try:
        yield
    finally:
        assert write(lib, context, address, before) == OK
    check(read(lib, context, address, len(DATA)), answer_of(before, len(DATA)), f"put back at {address:#x}")


def assert_unchanged(lib: Any, context: int, truth: Truth, address: int) -> None:
    first = max(address - PAGE, 0)
    expected = answer_of(truth.valid(first, 3 * PAGE), 3 * PAGE)
    check(read(lib, context, first, 3 * PAGE), expected, f"memory around a refused write at {address:#x}")


def test_a_write_lands_where_memory_can_be_written(
    lib: Any, context: int, truth: Truth, ram: list[tuple[int, int]], writable: bool
) -> None:
    for address in places(ram):
        if not writable:
            assert write(lib, context, address, DATA) == READ_ONLY, hex(address)
            error_line(lib)
            assert_unchanged(lib, context, truth, address)
            continue
        with undone(lib, context, truth, address):
            assert write(lib, context, address, DATA) == OK, lib.microvmi_last_error()
            around = truth.valid(address - 1, 1) + DATA + truth.valid(address + len(DATA), 1)
            first = address - len(truth.valid(address - 1, 1))
            check(read(lib, context, first, len(around)), answer_of(around, len(around)), f"written at {address:#x}")


def test_a_write_of_whole_frames_lands(
    lib: Any, context: int, truth: Truth, ram: list[tuple[int, int]], writable: bool
) -> None:
    start, end = max(ram, key=lambda pair: pair[1] - pair[0])
    size = min(end - start, 20 * PAGE) - 10
    data = (DATA * (size // len(DATA) + 1))[:size]
    if not writable:
        assert write(lib, context, start + 5, data) == READ_ONLY
        return
    try:
        assert write(lib, context, start + 5, data) == OK, lib.microvmi_last_error()
        check(read(lib, context, start + 5, size), answer_of(data, size), "many frames")
    finally:
        assert write(lib, context, start + 5, truth.valid(start + 5, size)) == OK
    check(read(lib, context, start, size), answer_of(truth.valid(start, size), size), "put back")


def test_a_write_into_what_does_not_exist_writes_nothing(
    lib: Any, context: int, known: Known, truth: Truth, writable: bool
) -> None:
    data, ends = DATA * (PAGE // len(DATA) + 1), [end for _, end in truth.ranges]
    for address in (*(end - 8 for end in ends), *(end - PAGE - 8 for end in ends), *ends, 1 << 52, (1 << 64) - 16):
        code = write(lib, context, address, data)
        refused = not writable or any(
            item.kind is MemoryKind.ROM and item.start < address + len(data) and address < item.end
            for item in known.memory_map
        )
        assert code in (NOT_MAPPED, READ_ONLY if refused else NOT_MAPPED), hex(address)
        error_line(lib)
        assert_unchanged(lib, context, truth, address)


def test_memory_that_is_read_only_is_told_as_such(lib: Any, context: int, known: Known, truth: Truth) -> None:
    for item in known.memory_map:
        if item.kind is MemoryKind.ROM:
            for address in (item.start, item.end - len(DATA), item.start - 8):
                if len(truth.valid(address, len(DATA))) == len(DATA):
                    assert write(lib, context, address, DATA) == READ_ONLY, hex(address)
                    assert_unchanged(lib, context, truth, address)


def test_a_size_of_0_is_a_success(lib: Any, context: int, truth: Truth) -> None:
    for address in (*truth.edges(), (1 << 64) - 1):
        assert lib.microvmi_write_physical(context, address, None, 0), lib.microvmi_last_error()


def test_the_plain_stream_writes_and_moves(
    lib: Any, context: int, truth: Truth, ram: list[tuple[int, int]], writable: bool
) -> None:
    address, buffer, count, position = ram[0][0] + 3, (c_uint8 * len(DATA))(*DATA), c_uint64(77), c_uint64()
    assert lib.microvmi_seek(context, address, 0, None)
    done = lib.microvmi_write(context, buffer, len(DATA), byref(count))
    code = lib.microvmi_last_error_code()
    assert lib.microvmi_tell(context, byref(position))
    moved = len(DATA) if writable else 0
    assert (done, count.value, position.value) == (writable, moved, address + moved)
    assert code == (OK if writable else READ_ONLY)
    if writable:
        with undone(lib, context, truth, address):
            check(read(lib, context, address, len(DATA)), answer_of(DATA, len(DATA)), "written by the stream")


def test_a_stream_write_across_the_end_writes_nothing(
    lib: Any, context: int, known: Known, truth: Truth, writable: bool
) -> None:
    address, count, position = known.max_addr - 3, c_uint64(77), c_uint64()
    if len(truth.valid(address, len(DATA))) == len(DATA):
        return  # memory that is no RAM follows, and what is written there is that driver's own
    assert lib.microvmi_seek(context, -3, 2, None)
    assert not lib.microvmi_write(context, (c_uint8 * len(DATA))(*DATA), len(DATA), byref(count))
    assert lib.microvmi_last_error_code() in (NOT_MAPPED, NOT_MAPPED if writable else READ_ONLY)
    assert lib.microvmi_tell(context, byref(position))
    assert (count.value, position.value) == (0, address)
    assert_unchanged(lib, context, truth, address)


def test_the_same_from_python(machine: Microvmi, truth: Truth, ram: list[tuple[int, int]], writable: bool) -> None:
    address, end = ram[0][0] + 1, truth.ranges[-1][1]
    for anywhere in (*truth.edges(), (1 << 64) - 1):
        machine.write_physical(anywhere, b"")
    if not writable:
        with pytest.raises(ReadOnlyError):
            machine.write_physical(address, DATA)
        return
    with pytest.raises(NotMappedError) as caught:
        machine.write_physical(end - 4, DATA)
    assert caught.value.completed == 0
    try:
        machine.write_physical(address, DATA)
        assert machine.read_physical(address, len(DATA)) == DATA
    finally:
        machine.write_physical(address, truth.valid(address, len(DATA)))
    assert machine.read_physical(address, len(DATA)) == truth.valid(address, len(DATA))
