# SPDX-License-Identifier: Apache-2.0
"""``microvmi_diff``: exactly the frames that were changed, on every way to memory, whatever room the caller has."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from ctypes import byref, c_size_t, c_uint8, c_uint64
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from differences import FRAME, Differ, Piece, differing
from drivers.dump.builders import elf
from qemu_simulators import QemuSimulators

INVALID_ARGUMENT, INVALID_CONTEXT, VM_GONE, IO = 1, 2, 8, 10
MIB = 1 << 20
GIB = 1 << 30
END = 0x180000


Pair = Callable[..., Differ]


@pytest.fixture
def differ(lib: Any, stubs: ModuleType) -> Pair:
    def make(older: int, newer: int, capacity: int = 64) -> Differ:
        return Differ(lib, stubs, older, newer, capacity)

    return make


class Machines(NamedTuple):
    """``open`` opens one after another, alike; ``write`` changes the memory of one of them."""

    open: Callable[[], int]
    write: Callable[[int, int, bytes], None]


def images(folder: Path, opened: Callable[[str], int], *, sparse: bool) -> Machines:
    paths: dict[int, Path] = {}

    def start() -> int:
        path = folder / f"{len(paths)}.raw"
        path.write_bytes(b"" if sparse else bytes(END))
        os.truncate(path, END)
        context = opened(str(path))
        paths[context] = path
        return context

    def write(context: int, address: int, data: bytes) -> None:
        with paths[context].open("r+b") as file:
            os.pwrite(file.fileno(), data, address)

    return Machines(start, write)


@pytest.fixture(params=["raw", "sparse", "fake", "shared", "private"])
def machines(
    request: pytest.FixtureRequest,
    lib: Any,
    tmp_path: Path,
    opened: Callable[[str], int],
    start_machine: Callable[..., str],
) -> Machines:
    """Those of every way to memory; there is some at 0 to 0x70000 and at 0x100000 to 0x180000."""

    def write(context: int, address: int, data: bytes) -> None:
        content = (c_uint8 * len(data)).from_buffer_copy(data)
        assert lib.microvmi_write_physical(context, address, content, len(data)), lib.microvmi_last_error()

    if request.param in ("raw", "sparse"):
        return images(tmp_path, opened, sparse=request.param == "sparse")
    if request.param == "fake":
        return Machines(lambda: opened(f"vmi://fake/?size={END:#x}&holes=0x80000-0x100000&pattern=zero"), write)
    return Machines(lambda: opened(start_machine(*(["-fake", "private"] if request.param == "private" else []))), write)


def file_of(path: Path, size: int, pieces: dict[int, bytes]) -> str:
    """A raw image with holes."""
    with path.open("wb") as file:
        file.truncate(size)
        for address, data in pieces.items():
            os.pwrite(file.fileno(), data, address)
    return str(path)


# ------------------------------------------------------------------------------------------------ what is found

CHANGES = {0: b"\xfe", 0x3FFF: b"\xfe\xfe", 0x6F000: b"\xfe" * FRAME, 0x100000: b"\xfe" * 0x5001, 0x17FFFF: b"\xfe"}
FOUND = [(0, FRAME, 1), (0x3000, 2 * FRAME, 1), (0x6F000, FRAME, 1), (0x100000, 6 * FRAME, 1), (0x17F000, FRAME, 1)]


@pytest.mark.parametrize("capacity", [1, 2, 64])
def test_exactly_the_frames_that_were_written(machines: Machines, differ: Pair, capacity: int) -> None:
    older, newer = machines.open(), machines.open()
    both = differ(older, newer, capacity)
    assert both.all() == []
    for address, data in CHANGES.items():
        machines.write(newer, address, data)
    assert both.all() == FOUND
    assert both.all(0x3FFF) == FOUND[1:]
    assert both.all(0x101234) == [(0x101000, 5 * FRAME, 1), FOUND[-1]]
    assert both.all(0x180000) == both.all((1 << 64) - 1) == []
    assert differ(newer, older, capacity).all() == FOUND
    assert differ(newer, newer, capacity).all() == []


def test_a_full_call_goes_on_with_the_frame_that_had_no_room(machines: Machines, differ: Pair) -> None:
    older, newer = machines.open(), machines.open()
    for address, data in CHANGES.items():
        machines.write(newer, address, data)
    both = differ(older, newer, 2)
    steps = [(rows, both.next.value) for rows in both.calls()]
    assert steps == [(FOUND[:2], 0x6F000), (FOUND[2:4], 0x17F000), (FOUND[4:], 0)]


def pieces(lib: Any, stubs: ModuleType, context: int) -> list[Piece]:
    """All memory that there is, by the map."""
    ranges, count = (stubs.microvmi_memory_range * 64)(), c_size_t(0)
    assert lib.microvmi_get_memory_map(context, ranges, 64, byref(count)), lib.microvmi_last_error()
    found = []
    for item in ranges[: count.value]:
        buffer = (c_uint8 * item.size)()
        assert lib.microvmi_read_physical(context, item.start, buffer, item.size, None), lib.microvmi_last_error()
        found.append(Piece(item.start, bytes(buffer), item.kind))
    return found


def test_machines_of_different_drivers_and_processors(
    lib: Any, stubs: ModuleType, opened: Callable[[str], int], machines: Machines, differ: Pair
) -> None:
    this = machines.open()
    other = opened("vmi://fake/?size=0x110000&holes=0x6f000-0x71000&pattern=zero&architecture=aarch64")
    machines.write(this, 0x5000, b"\xfe")
    memory = {context: pieces(lib, stubs, context) for context in (this, other)}
    assert differ(this, other, 3).all() == differing(memory[this], memory[other])
    assert differ(other, this).all(0x2000) == differing(memory[other], memory[this], 0x2000)


def test_images_whose_ends_are_in_a_frame(tmp_path: Path, opened: Callable[[str], int], differ: Pair) -> None:
    sizes = (10 * FRAME, 10 * FRAME + 1, 11 * FRAME - 1, 12 * FRAME, 17)
    contexts = {size: opened(file_of(tmp_path / str(size), size, {0: b"\1"})) for size in sizes}
    for older in sizes:
        for newer in sizes:
            before, after = ([Piece(0, b"\1".ljust(size, b"\0"))] for size in (older, newer))
            assert differ(contexts[older], contexts[newer]).all() == differing(before, after)


def test_core_files_of_different_layouts(tmp_path: Path, opened: Callable[[str], int], differ: Pair) -> None:
    high = 1 << 45
    layouts = [
        {0: b"\1" * 0x5000, 0x100000: bytes(0x3456), high: b"\2" * 0x2000},
        {0x1000: b"\1" * 0x5000, 0x100000: bytes(0x3457), high: b"\2" * 0x1FFF + b"\3", high + 0x100000: b"\4"},
    ]
    for number, layout in enumerate(layouts):
        (tmp_path / str(number)).write_bytes(elf(layout))
    older, newer = (opened(str(tmp_path / str(number))) for number in range(2))
    before, after = ([Piece(*item) for item in layout.items()] for layout in layouts)
    for capacity in (1, 64):
        assert [run[:2] for run in differ(older, newer, capacity).all()] == [
            run[:2] for run in differing(before, after)
        ]


def test_five_gib_around_the_hole_below_four(tmp_path: Path, opened: Callable[[str], int], differ: Pair) -> None:
    low, high = 3 * GIB, 6 * GIB
    common = {0: b"\1" * MIB, low - 1: b"\1", 4 * GIB: b"\1" * FRAME, high - MIB: b"\1" * MIB}
    other = {low - 1: b"\2", 4 * GIB - FRAME: b"\2", 4 * GIB: b"\2" * MIB, high - 1: b"\2"}
    older = opened(file_of(tmp_path / "older", high, common))
    newer = opened(file_of(tmp_path / "newer", high, {**common, **other}))
    assert differ(older, newer).all() == [
        (low - FRAME, FRAME, 1),
        (4 * GIB - FRAME, FRAME + MIB, 1),
        (high - FRAME, FRAME, 1),
    ]


def test_a_call_ends_early_and_the_next_goes_on(tmp_path: Path, opened: Callable[[str], int], differ: Pair) -> None:
    size = 600 * MIB
    with (tmp_path / "older").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    older, newer = opened(str(tmp_path / "older")), opened(file_of(tmp_path / "newer", size, {size - 1: b"\1"}))
    both = differ(older, newer, 4)
    steps = [(rows, both.next.value) for rows in both.calls()]
    assert steps[-1] == ([(size - FRAME, FRAME, 1)], 0)
    ends = [0, *(end for _, end in steps[:-1])]  # none if the file system tells that what was never written is a hole
    assert all(250 * MIB < later - earlier <= 256 * MIB for earlier, later in itertools.pairwise(ends))
    assert [rows for rows, _ in steps[:-1]] == [[]] * (len(steps) - 1)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("capacity", [1, 8])
def test_what_was_found_before_an_error_is_not_lost(
    lib: Any, opened: Callable[[str], int], differ: Pair, tmp_path: Path, capacity: int
) -> None:
    fake = "vmi://fake/?size=0x40000&unreadable=0x5000-0x7000"
    older, newer = opened(fake), opened(file_of(tmp_path / "image", 0x40000, {}))
    for both in (differ(older, newer, capacity), differ(newer, older, capacity)):
        assert not both.call()
        assert lib.microvmi_last_error_code() == IO
        assert (both.rows(), both.next.value) == ([(0x1000, 4 * FRAME, 1)], 0x5000)  # frame 0 is zero there
        both.next.value = 0x7000
        assert both.all(0x7000) == [(0x7000, 0x39000, 1)]


@pytest.mark.parametrize("looked", [False, True])
def test_an_image_that_became_shorter_is_an_error_where_it_ends(
    lib: Any, opened: Callable[[str], int], differ: Pair, tmp_path: Path, looked: bool
) -> None:
    older = opened(file_of(tmp_path / "older", 4 * MIB, {0: b"\1" * 4 * MIB}))
    newer = opened(file_of(tmp_path / "newer", 4 * MIB, {0: b"\2" * 4 * MIB}))
    both = differ(older, newer)
    if looked:  # then it is known that there are no holes
        assert both.all() == [(0, 4 * MIB, 1)]
    both.next.value = 0
    os.truncate(tmp_path / "newer", 2 * MIB + 3 * FRAME + 1)
    assert not both.call()
    assert lib.microvmi_last_error_code() == IO
    assert b"the newer one" in lib.microvmi_last_error()
    assert both.rows() == [(0, 2 * MIB + 4 * FRAME, 1)]
    assert both.next.value == 2 * MIB + 3 * FRAME


def test_a_process_that_ended_is_an_error(lib: Any, tmp_path: Path, opened: Callable[[str], int], differ: Pair) -> None:
    with QemuSimulators(tmp_path) as simulators:
        started = simulators.launch("-fake", "private")
        newer = opened(f"vmi://qemu/?vm_name={started.name}&timeout=30")
        older = opened(file_of(tmp_path / "image", 0x80000, {}))
        assert differ(older, newer).all()
        started.process.kill()
        started.process.wait()
        both = differ(older, newer)
        assert not both.call()
        assert lib.microvmi_last_error_code() == VM_GONE
        assert b"the newer one" in lib.microvmi_last_error()
        assert (both.rows(), both.next.value) == ([], 0)


def test_what_is_wrong_with_a_call_is_told(
    lib: Any, stubs: ModuleType, opened: Callable[[str], int], tmp_path: Path
) -> None:
    context, image = opened("vmi://fake/?size=0x4000"), opened(file_of(tmp_path / "image", 0x4000, {}))
    ranges, going_on, count = (stubs.microvmi_memory_range * 2)(), c_uint64(0x1000), c_size_t(77)
    for older, newer in ((context, image), (image, context), (image, image)):
        good = [older, newer, byref(going_on), ranges, 2, byref(count)]
        going_on.value = 0x1000
        for place in range(2, 6):
            count.value = 77
            assert not lib.microvmi_diff(*good[:place], 0 if place == 4 else None, *good[place + 1 :])
            assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
            assert (going_on.value, count.value) == (0x1000, 77 if place == 5 else 0)
        for place in range(2):
            for wrong in (None, 12345):
                assert not lib.microvmi_diff(*good[:place], wrong, *good[place + 1 :])
                assert lib.microvmi_last_error_code() == INVALID_CONTEXT
                assert (going_on.value, count.value) == (0x1000, 0)
        assert lib.microvmi_diff(*good), lib.microvmi_last_error()


def test_a_context_that_was_destroyed_is_refused(lib: Any, differ: Pair, tmp_path: Path) -> None:
    path = file_of(tmp_path / "image", 0x4000, {})
    for place in range(2):
        pair = [lib.microvmi_open(path.encode(), None) for _ in range(2)]
        lib.microvmi_destroy(pair[place])
        both = differ(*pair)
        assert not both.call()
        assert lib.microvmi_last_error_code() == INVALID_CONTEXT
        lib.microvmi_destroy(pair[1 - place])
