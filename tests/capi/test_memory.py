# SPDX-License-Identifier: Apache-2.0
"""The C calls on memory, through ctypes: results, counts, untouched bytes, cursors."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref, c_size_t, c_uint8, c_uint64
from types import ModuleType
from typing import Any

import pytest

from libmicrovmi_py.model import PAGE_SIZE

SIZE = 0x20_0000
HOLE, AFTER = 0x18_0000, 0x18_1000
URI = f"vmi://fake/?size={SIZE:#x}&holes={HOLE:#x}-{AFTER:#x}&rom=0x1f0000-0x200000&vcpus=2".encode()
MAX = 0x1F_0000
NOT_MAPPED, READ_ONLY, INVALID_ARGUMENT = 6, 11, 1


@pytest.fixture
def context(lib: Any) -> Iterator[int]:
    opened = lib.microvmi_open(URI, None)
    assert opened, lib.microvmi_last_error()
    yield opened
    lib.microvmi_destroy(opened)


def expected(address: int, size: int) -> bytes:
    first, last = address // PAGE_SIZE, (address + size) // PAGE_SIZE + 1
    whole = b"".join(frame.to_bytes(8, "little") * (PAGE_SIZE // 8) for frame in range(first, last))
    return whole[address % PAGE_SIZE :][:size]


def buffer_of(size: int) -> Any:
    return (
        (c_uint8 * size)(*b"\xee" * size) if size < 1 << 16 else (c_uint8 * size).from_buffer(bytearray(b"\xee") * size)
    )


@pytest.mark.parametrize(
    ("address", "size", "prefix"),
    [
        (0, 1, 1),
        (0xFFF, 2, 2),
        (HOLE - 10, 10, 10),
        (HOLE - 10, 11, 10),
        (HOLE, 1, 0),
        (0x1000, 16 << 20, HOLE - 0x1000),
        (SIZE - 1, 2, 1),
        (SIZE, 4096, 0),
        (1 << 63, 4096, 0),
        (0xFFFFFFFF80000000, 4096, 0),
        ((1 << 64) - 1, 1, 0),
        ((1 << 64) - 1, 4096, 0),
        (12345, 0, 0),
        ((1 << 64) - 1, 0, 0),
    ],
)
def test_read_physical_reports_the_valid_prefix(lib: Any, context: int, address: int, size: int, prefix: int) -> None:
    buffer, count = buffer_of(size), c_uint64(77)
    assert lib.microvmi_read_physical(context, address, buffer, size, byref(count)) is (prefix == size)
    assert count.value == prefix
    whole = expected(address, prefix) + b"\xee" * (size - prefix)
    same = bytes(buffer) == whole  # outside of the assert: pytest would explain 16 MiB
    assert same
    assert lib.microvmi_last_error_code() == (0 if prefix == size else NOT_MAPPED)
    assert lib.microvmi_read_physical(context, address, buffer, size, None) is (prefix == size)


def test_a_size_of_0_needs_no_buffer_and_another_does(lib: Any, context: int) -> None:
    assert lib.microvmi_read_physical(context, 0, None, 0, None)
    assert lib.microvmi_write_physical(context, 0, None, 0)
    count = c_uint64(77)
    assert not lib.microvmi_read_physical(context, 0, None, 1, byref(count))
    assert (count.value, lib.microvmi_last_error_code()) == (0, INVALID_ARGUMENT)
    assert lib.microvmi_last_error() == b"buffer is NULL"
    assert not lib.microvmi_write_physical(context, 0, None, 1)


def test_padded_reads_fill_with_zeros(lib: Any, context: int) -> None:
    buffer, count = buffer_of(AFTER - HOLE + 20), c_uint64()
    assert lib.microvmi_read_physical_padded(context, HOLE - 10, buffer, len(buffer), byref(count))
    assert count.value == len(buffer)
    assert bytes(buffer) == expected(HOLE - 10, 10) + bytes(AFTER - HOLE) + expected(AFTER, 10)
    assert lib.microvmi_read_physical_padded(context, (1 << 64) - 4, buffer, 100, byref(count))
    assert bytes(buffer)[:100] == bytes(100)


def test_writes_land_or_change_nothing(lib: Any, context: int) -> None:
    data, back = (c_uint8 * 8)(*b"12345678"), buffer_of(8)
    assert lib.microvmi_write_physical(context, 0x1FFC, data, 8)
    assert lib.microvmi_read_physical(context, 0x1FFC, back, 8, None)
    assert bytes(back) == b"12345678"
    for address, code in ((HOLE - 4, NOT_MAPPED), (MAX - 4, READ_ONLY), (SIZE - 8, READ_ONLY), (1 << 63, NOT_MAPPED)):
        assert not lib.microvmi_write_physical(context, address, data, 8)
        assert lib.microvmi_last_error_code() == code, hex(address)
    assert lib.microvmi_read_physical(context, HOLE - 4, back, 4, None)
    assert bytes(back)[:4] == expected(HOLE - 4, 4)


@pytest.mark.parametrize("stream", ["", "padded_"])
@pytest.mark.parametrize("offset", [-(1 << 63), -MAX - 1, -1, 0, 1, MAX, MAX + 1, (1 << 63) - 1])
@pytest.mark.parametrize("whence", [0, 1, 2])
def test_seek_saturates(lib: Any, context: int, stream: str, offset: int, whence: int) -> None:
    seek, tell = getattr(lib, f"microvmi_{stream}seek"), getattr(lib, f"microvmi_{stream}tell")
    position = c_uint64()
    assert seek(context, 1000, 0, byref(position))
    assert position.value == 1000
    target = sorted([0, (0, 1000, MAX)[whence] + offset, MAX])[1]
    assert seek(context, offset, whence, byref(position))
    assert position.value == target
    assert seek(context, 0, 1, None)
    position.value = 0
    assert tell(context, byref(position))
    assert position.value == target


def test_seek_and_tell_check_their_arguments(lib: Any, context: int) -> None:
    position = c_uint64(77)
    for whence in (-1, 5, 1 << 30):
        assert not lib.microvmi_seek(context, 0, whence, byref(position))
        assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
        assert position.value == 77
    assert not lib.microvmi_tell(context, None)
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT


def test_the_plain_stream_stops_at_holes_and_the_padded_one_does_not(lib: Any, context: int) -> None:
    buffer, count = buffer_of(100), c_uint64(77)
    for seek in (lib.microvmi_seek, lib.microvmi_padded_seek):
        assert seek(context, HOLE - 10, 0, None)
    assert lib.microvmi_read(context, buffer, 100, byref(count))
    assert count.value == 10
    assert not lib.microvmi_read(context, buffer, 100, byref(count))
    assert (count.value, lib.microvmi_last_error_code()) == (0, NOT_MAPPED)
    assert bytes(buffer)[10:] == b"\xee" * 90
    assert lib.microvmi_padded_read(context, buffer, 100, byref(count))
    assert count.value == 100
    assert bytes(buffer) == expected(HOLE - 10, 10) + bytes(90)
    position = c_uint64()
    lib.microvmi_tell(context, byref(position))
    assert position.value == HOLE
    lib.microvmi_padded_tell(context, byref(position))
    assert position.value == HOLE + 90


@pytest.mark.parametrize("stream", ["", "padded_"])
def test_a_stream_ends_at_the_maximum_address(lib: Any, context: int, stream: str) -> None:
    buffer, count = buffer_of(100), c_uint64(77)
    read = getattr(lib, f"microvmi_{stream}read")
    assert getattr(lib, f"microvmi_{stream}seek")(context, -30, 2, None)
    assert read(context, buffer, 100, byref(count))
    assert count.value == 30
    assert read(context, buffer, 100, byref(count))
    assert count.value == 0
    assert bytes(buffer) == expected(MAX - 30, 30) + b"\xee" * 70


def test_the_plain_stream_writes_all_or_nothing(lib: Any, context: int) -> None:
    data, count, position = (c_uint8 * 4)(*b"abcd"), c_uint64(77), c_uint64()
    assert lib.microvmi_seek(context, 0xFFE, 0, None)
    assert lib.microvmi_write(context, data, 4, byref(count))
    assert count.value == 4
    assert lib.microvmi_tell(context, byref(position))
    assert position.value == 0x1002
    assert lib.microvmi_seek(context, -2, 2, None)
    assert not lib.microvmi_write(context, data, 4, byref(count))
    assert (count.value, lib.microvmi_last_error_code()) == (0, READ_ONLY)


def test_calls_by_address_leave_the_cursors_alone(lib: Any, context: int) -> None:
    buffer, position = buffer_of(16), c_uint64()
    lib.microvmi_seek(context, 5, 0, None)
    lib.microvmi_padded_seek(context, 6, 0, None)
    lib.microvmi_read_physical(context, 100, buffer, 16, None)
    lib.microvmi_read_physical_padded(context, 100, buffer, 16, None)
    lib.microvmi_write_physical(context, 100, buffer, 16)
    lib.microvmi_tell(context, byref(position))
    assert position.value == 5
    lib.microvmi_padded_tell(context, byref(position))
    assert position.value == 6


def test_the_memory_map_comes_whole_or_in_part(lib: Any, context: int, stubs: ModuleType) -> None:
    count = c_size_t(77)
    assert lib.microvmi_get_memory_map(context, None, 0, byref(count))
    assert count.value == 3
    ranges = (stubs.microvmi_memory_range * 4)()
    assert lib.microvmi_get_memory_map(context, ranges, 2, byref(count))
    assert count.value == 3
    assert [(item.start, item.size, item.kind) for item in ranges] == [
        (0, HOLE, 1),
        (AFTER, MAX - AFTER, 1),
        (0, 0, 0),
        (0, 0, 0),
    ]
    assert lib.microvmi_get_memory_map(context, ranges, 4, byref(count))
    assert (ranges[2].start, ranges[2].size, ranges[2].kind) == (MAX, SIZE - MAX, 2)
    assert not lib.microvmi_get_memory_map(context, None, 1, byref(count))
    assert count.value == 0
    assert not lib.microvmi_get_memory_map(context, ranges, 4, None)
