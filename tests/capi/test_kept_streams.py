# SPDX-License-Identifier: Apache-2.0
"""Streams over pages that are kept of a paused machine: read in C, and the cursor is the one that Python moves."""

from __future__ import annotations

import time
from collections.abc import Callable
from ctypes import byref, c_uint8, c_uint64
from pathlib import Path
from typing import Any

import pytest

Open = Callable[[str], int]
END = 0x8000


@pytest.fixture
def paused(lib: Any, opened: Open) -> int:
    vm = opened(f"vmi://fake/?size={END:#x}&holes=0x4000-0x5000")
    assert lib.microvmi_pause(vm)
    return vm


def read(lib: Any, vm: int, stream: str, position: int, size: int) -> tuple[bytes, int]:
    """What a stream reads at a position, and where its cursor is then."""
    buffer, done, place = (c_uint8 * size)(), c_uint64(77), c_uint64(77)
    assert getattr(lib, f"microvmi_{stream}seek")(vm, position, 0, None)
    getattr(lib, f"microvmi_{stream}read")(vm, buffer, size, byref(done))
    assert getattr(lib, f"microvmi_{stream}tell")(vm, byref(place))
    return bytes(buffer[: done.value]), place.value


@pytest.mark.parametrize("stream", ["", "padded_"])
def test_kept_pages_holes_and_the_end_are_read_right_again_and_again(lib: Any, paused: int, stream: str) -> None:
    content = b"".join(number.to_bytes(8, "little") * 512 for number in range(END >> 12))
    content = content[:0x4000] + bytes(0x1000) + content[0x5000:]
    for _ in range(3):
        for position, size in ((0x1008, 8), (0x1FF8, 8), (0x1FFC, 8), (END - 8, 8), (END - 4, 8), (END, 8), (0, 0)):
            expected = content[position : position + size]
            assert read(lib, paused, stream, position, size) == (expected, position + len(expected))
        hole = read(lib, paused, stream, 0x4010, 8)
        assert hole == ((bytes(8), 0x4018) if stream else (b"", 0x4010))


@pytest.mark.parametrize("stream", ["", "padded_"])
def test_streams_end_at_the_end_within_a_kept_page(
    lib: Any, opened: Open, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROVMI_PLUGIN_PATH", str(Path(__file__).resolve().parents[1] / "plugins"))
    end = 0x3810
    vm = opened(f"vmi://journal/?size={end:#x}&path={tmp_path}/journal")
    assert lib.microvmi_pause(vm)
    for _ in range(3):
        assert read(lib, vm, stream, end - 8, 8) == (bytes(8), end)
        assert read(lib, vm, stream, end - 8, 16) == (bytes(8), end)
        assert read(lib, vm, stream, end, 8) == (b"", end)


def test_a_write_and_a_resume_are_seen(lib: Any, paused: int) -> None:
    assert read(lib, paused, "", 0x2000, 8)[0] == (2).to_bytes(8, "little")
    assert lib.microvmi_write_physical(paused, 0x2000, (c_uint8 * 8)(*b"written!"), 8)
    assert read(lib, paused, "", 0x2000, 8)[0] == b"written!"
    assert lib.microvmi_resume(paused)
    assert read(lib, paused, "", 0x2000, 8)[0] == b"written!"


@pytest.mark.alone
def test_a_kept_page_costs_a_stream_no_call_of_python(lib: Any, paused: int) -> None:
    """By address it costs none: a stream may take a few times as long, and Python would take ten times as long."""
    buffer = (c_uint8 * 8)()

    def by_address() -> None:
        for _ in range(500):
            lib.microvmi_read_physical(paused, 0x3000, buffer, 8, None)

    def by_stream() -> None:
        for _ in range(250):
            lib.microvmi_seek(paused, 0x3000, 0, None)
            lib.microvmi_read(paused, buffer, 8, None)

    by_address()
    assert min(map(seconds, [by_stream] * 9)) < 4 * min(map(seconds, [by_address] * 9))


def seconds(work: Callable[[], None]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


@pytest.mark.parametrize("call", ["microvmi_read_physical", "microvmi_read_physical_padded"])
def test_a_read_by_address_across_two_kept_pages_takes_each_its_own(lib: Any, paused: int, call: str) -> None:
    content = b"".join(number.to_bytes(8, "little") * 512 for number in range(4))
    for _ in range(3):
        for address, size in ((0x1008, 8), (0x2008, 8), (0x1FFC, 8), (0x1FF0, 64), (0x1800, 0x1000)):
            buffer, done = (c_uint8 * size)(*[0xEE] * size), c_uint64(77)
            assert getattr(lib, call)(paused, address, buffer, size, byref(done))
            assert (bytes(buffer), done.value) == (content[address : address + size], size)
