# SPDX-License-Identifier: Apache-2.0
"""Many reads in one call, from C and from Python, on every way to memory: each has the result it has alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from ctypes import POINTER, byref, c_uint8, c_uint64
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from libmicrovmi_py import Microvmi

INVALID_ARGUMENT, INVALID_CONTEXT, NOT_MAPPED = 1, 2, 6
END = 0x180000
"""Every machine here has memory below 0x80000 and from 0x100000 to the end; an image has no hole."""

Open = Callable[[str], int]


@pytest.fixture(params=["image", "fake", "shared", "private"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, start_machine: Callable[..., str]) -> str:
    if request.param == "image":
        (tmp_path / "image.raw").write_bytes(random.Random(0).randbytes(END))
        return str(tmp_path / "image.raw")
    if request.param == "fake":
        return f"vmi://fake/?size={END:#x}&holes=0x80000-0x100000"
    return start_machine(*(["-fake", "private"] if request.param == "private" else []))


def requests_of(stubs: ModuleType, ranges: list[tuple[int, int]]) -> Any:
    requests = (stubs.microvmi_read_request * len(ranges))()
    for request, (address, size) in zip(requests, ranges, strict=True):
        request.physical_address, request.size = address, size
        request.buffer = (c_uint8 * size)(*b"\xee" * size) if size else None
        request.bytes_read, request.error = 77, 77
    return requests


def alone(lib: Any, context: int, address: int, size: int) -> tuple[bytes, int, int]:
    buffer, count = (c_uint8 * size)(*b"\xee" * size), c_uint64(0)
    lib.microvmi_read_physical(context, address, buffer, size, byref(count))
    return bytes(buffer), count.value, lib.microvmi_last_error_code()


MIXED = [
    (0, 8),
    (0x1FFC, 8),
    (0x80000, 16),  # a hole in all but the image
    (0x7FFF0, 32),  # into it
    (0x3000, 0),
    ((1 << 64) - 1, 0),
    (0x2345, 0x11000),
    (0x6FFFF, 2),  # from RAM into ROM in a process
    (END - 8, 16),
    (END, 1),
    ((1 << 64) - 4, 100),
    (0x100001, 0x7FFFF),
]


def test_each_request_has_the_result_it_has_alone(lib: Any, stubs: ModuleType, opened: Open, uri: str) -> None:
    context = opened(uri)
    requests = requests_of(stubs, MIXED)
    assert not lib.microvmi_read_physical_batch(context, requests, len(requests))
    assert lib.microvmi_last_error_code() == NOT_MAPPED
    first = next(request for request in requests if request.error)
    assert f"{first.physical_address + first.bytes_read:#x}".encode() in lib.microvmi_last_error()
    for request in requests:
        content = bytes(request.buffer[: request.size])
        expected = alone(lib, context, request.physical_address, request.size)
        assert (content, request.bytes_read, request.error) == expected, hex(request.physical_address)


def test_thousands_of_requests_are_one_call(lib: Any, stubs: ModuleType, opened: Open, uri: str) -> None:
    context, chance = opened(uri), random.Random(1)
    ranges = [(chance.choice((0, 0x100000)) + chance.randrange(0x7F000), chance.randint(0, 300)) for _ in range(3000)]
    requests = requests_of(stubs, ranges)
    assert lib.microvmi_read_physical_batch(context, requests, len(requests)), lib.microvmi_last_error()
    assert lib.microvmi_last_error_code() == 0
    for request in requests:
        assert (request.bytes_read, request.error) == (request.size, 0)
        expected = alone(lib, context, request.physical_address, request.size)[0]
        assert bytes(request.buffer[: request.size]) == expected


@pytest.mark.parametrize("bad", [0, 1, 1023, 1024, 2999])
def test_one_bad_request_spoils_no_other(lib: Any, stubs: ModuleType, opened: Open, uri: str, bad: int) -> None:
    requests = requests_of(stubs, [(0x1000 if index != bad else 0xFFFFFFFF, 64) for index in range(3000)])
    assert not lib.microvmi_read_physical_batch(opened(uri), requests, len(requests))
    assert [index for index, request in enumerate(requests) if request.error] == [bad]
    assert (requests[bad].error, requests[bad].bytes_read) == (NOT_MAPPED, 0)
    assert bytes(requests[bad].buffer[:64]) == b"\xee" * 64


def test_the_cursors_stay(lib: Any, stubs: ModuleType, opened: Open, uri: str) -> None:
    context, position = opened(uri), c_uint64(0)
    assert lib.microvmi_seek(context, 0x123, 0, None)
    assert lib.microvmi_read_physical_batch(context, requests_of(stubs, [(0, 100)]), 1)
    assert lib.microvmi_tell(context, byref(position))
    assert position.value == 0x123


def test_a_null_buffer_is_refused_before_anything_is_read(lib: Any, stubs: ModuleType, opened: Open, uri: str) -> None:
    requests = requests_of(stubs, [(0, 8), (8, 8)])
    requests[1].buffer = POINTER(c_uint8)()
    assert not lib.microvmi_read_physical_batch(opened(uri), requests, 2)
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
    assert [(request.bytes_read, request.error) for request in requests] == [(77, 77), (77, 77)]
    assert bytes(requests[0].buffer[:8]) == b"\xee" * 8


def test_no_requests(lib: Any, opened: Open, uri: str) -> None:
    context = opened(uri)
    assert lib.microvmi_read_physical_batch(context, None, 0)
    assert not lib.microvmi_read_physical_batch(context, None, 1)
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT


def test_no_context(lib: Any, stubs: ModuleType, opened: Open, uri: str) -> None:
    context, requests = opened(uri), requests_of(stubs, [(0, 8)])
    lib.microvmi_destroy(context)
    for bad in (None, 0x1234, context):
        assert not lib.microvmi_read_physical_batch(bad, requests, 1)
        assert lib.microvmi_last_error_code() == INVALID_CONTEXT


def test_the_same_from_python(uri: str) -> None:
    with Microvmi.open(uri) as machine:
        buffers = [bytearray(b"\xee" * size) for _, size in MIXED]
        pairs = [(address, buffer) for (address, _), buffer in zip(MIXED, buffers, strict=True)]
        for (address, buffer), (done, error) in zip(pairs, machine.read_physical_batch(pairs), strict=True):
            again = bytearray(b"\xee" * len(buffer))
            assert machine.read_physical_into(address, again) == done
            assert again == buffer
            assert (error is None) == (done == len(buffer))
            if error is not None:
                assert (error.code, error.completed, error.address) == (NOT_MAPPED, done, address + done)
