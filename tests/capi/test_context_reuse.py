# SPDX-License-Identifier: Apache-2.0
"""A context that was destroyed, after others took its place: no call goes through to them, whatever its fast way is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ctypes import byref, c_uint8, c_uint64
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

INVALID_CONTEXT = 2
PAGE = 4096
SIZES = (0, 1, 7, 8, 9, 16, PAGE, 3 * PAGE, 1 << 17)


@pytest.fixture(params=["image", "fake", "shared"])
def successor(
    lib: Any, tmp_path: Path, start_machine: Callable[..., str], request: pytest.FixtureRequest
) -> Iterator[tuple[int, int]]:
    """A context that was destroyed after it was read, and the live one that has its place."""
    uris = [f"vmi://fake/?size={1 << 18:#x}"] * 2
    if request.param == "image":
        for name in ("first", "second"):
            (tmp_path / name).write_bytes(name[:1].encode() * (1 << 18))
        uris = [str(tmp_path / "first"), str(tmp_path / "second")]
    elif request.param == "shared":  # the one whose words of 8 bytes have a way of their own
        uris = [start_machine(), start_machine()]
    gone = lib.microvmi_open(uris[0].encode(), None)
    buffer = (c_uint8 * 8)()
    for _ in range(3):
        assert lib.microvmi_read_physical(gone, 16, buffer, 8, None)
    lib.microvmi_destroy(gone)
    live = lib.microvmi_open(uris[1].encode(), None)
    assert live & 0xFFF == gone & 0xFFF, "another place was taken: this test shows nothing"
    assert live != gone
    assert lib.microvmi_read_physical(live, 16, buffer, 8, None)
    yield gone, live
    lib.microvmi_destroy(live)


def refused(lib: Any, call: Callable[..., bool], *arguments: Any) -> None:
    assert not call(*arguments)
    assert lib.microvmi_last_error_code() == INVALID_CONTEXT


@pytest.mark.parametrize("size", SIZES)
def test_reads_of_any_size_are_refused_and_leave_the_buffer_alone(
    lib: Any, successor: tuple[int, int], size: int
) -> None:
    gone, live = successor
    for call in (lib.microvmi_read_physical, lib.microvmi_read_physical_padded):
        buffer, count = (c_uint8 * max(size, 1))(*b"\xee" * size), c_uint64(77)
        assert call(live, 16, (c_uint8 * max(size, 1))(), size, None)
        refused(lib, call, gone, 16, buffer, size, byref(count))
        assert (count.value, bytes(buffer)[:size]) == (0, b"\xee" * size)
    for stream in ("microvmi_read", "microvmi_padded_read"):
        buffer, count = (c_uint8 * max(size, 1))(*b"\xee" * size), c_uint64(77)
        refused(lib, getattr(lib, stream), gone, buffer, size, byref(count))
        assert (count.value, bytes(buffer)[:size]) == (0, b"\xee" * size)


def test_everything_else_is_refused_and_changes_nothing(
    lib: Any, stubs: ModuleType, successor: tuple[int, int]
) -> None:
    gone, live = successor
    buffer, position = (c_uint8 * 8)(*b"\x11" * 8), c_uint64()
    request = stubs.microvmi_read_request(physical_address=0, size=8)
    request.buffer = (c_uint8 * 8)()
    assert lib.microvmi_seek(live, 0x100, 0, None)
    assert lib.microvmi_padded_seek(live, 0x200, 0, None)
    for whence in (0, 1, 2, 3, 4):
        refused(lib, lib.microvmi_seek, gone, 8, whence, byref(position))
        refused(lib, lib.microvmi_padded_seek, gone, 8, whence, byref(position))
    refused(lib, lib.microvmi_tell, gone, byref(position))
    refused(lib, lib.microvmi_read_physical_batch, gone, byref(request), 1)
    refused(lib, lib.microvmi_write_physical, gone, 0, buffer, 8)
    refused(lib, lib.microvmi_write, gone, buffer, 8, None)
    refused(lib, lib.microvmi_pause, gone)
    refused(lib, lib.microvmi_resume, gone)
    refused(lib, lib.microvmi_get_max_physical_addr, gone, byref(position))
    lib.microvmi_destroy(gone)
    assert lib.microvmi_last_error_code() == INVALID_CONTEXT
    for tell, expected in ((lib.microvmi_tell, 0x100), (lib.microvmi_padded_tell, 0x200)):
        assert tell(live, byref(position))
        assert position.value == expected
    assert lib.microvmi_read_physical(live, 0, buffer, 8, None)
    assert bytes(buffer) != b"\x11" * 8


def test_a_word_is_refused_right_after_the_end_and_after_another_took_the_place(
    lib: Any, start_machine: Callable[..., str]
) -> None:
    uri = start_machine().encode()
    buffer = (c_uint8 * 8)()
    gone = lib.microvmi_open(uri, None)
    for _ in range(3):
        assert lib.microvmi_read_physical(gone, 16, buffer, 8, None)
    lib.microvmi_destroy(gone)
    refused(lib, lib.microvmi_read_physical, gone, 16, buffer, 8, None)
    again = lib.microvmi_open(uri, None)
    for _ in range(3):
        assert lib.microvmi_read_physical(again, 16, buffer, 8, None)
    lib.microvmi_destroy(again)
    live = lib.microvmi_open(uri, None)
    assert live & 0xFFF == again & 0xFFF, "another place was taken: this test shows nothing"
    refused(lib, lib.microvmi_read_physical, again, 16, buffer, 8, None)
    lib.microvmi_destroy(live)


def test_words_of_two_machines_in_turn_are_each_its_own(lib: Any, start_machine: Callable[..., str]) -> None:
    machines = [lib.microvmi_open(start_machine(name).encode(), None) for name in ("", "-second")]
    buffer = (c_uint8 * 8)()
    for number, machine in enumerate(machines):
        assert lib.microvmi_write_physical(machine, 0x2000, (c_uint8 * 8)(*[number + 1] * 8), 8)
    for _ in range(3):
        for number, machine in enumerate(machines):
            for _ in range(2):
                assert lib.microvmi_read_physical(machine, 0x2000, buffer, 8, None)
                assert bytes(buffer) == bytes([number + 1] * 8)
    for machine in machines:
        lib.microvmi_destroy(machine)


def test_a_word_that_was_read_clears_the_error(lib: Any, start_machine: Callable[..., str]) -> None:
    machine = lib.microvmi_open(start_machine().encode(), None)
    buffer = (c_uint8 * 8)()
    for _ in range(3):
        assert lib.microvmi_read_physical(machine, 16, buffer, 8, None)
    for _ in range(2):
        assert not lib.microvmi_read_physical(machine, 1 << 51, buffer, 8, None)
        assert lib.microvmi_last_error_code() != 0
        assert lib.microvmi_read_physical(machine, 16, buffer, 8, None)
        assert lib.microvmi_last_error_code() == 0
    lib.microvmi_destroy(machine)
