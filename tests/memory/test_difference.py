# SPDX-License-Identifier: Apache-2.0
"""``Microvmi.diff``: what a comparison byte by byte finds, however memory is reached and laid out."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from differences import FRAME, Piece, Run, differing
from memory import test_trips
from memory.laid import (
    DIRECT,
    MIB,
    WAYS,
    Batches,
    Hollow,
    Make,
    Regions,
    Unmapped,
    Unplugged,
    by_frames,
    mapped,
    of_a_process,
    pair,
)

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import Region
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import InvalidArgumentError, InvalidContextError, IoError, VmGoneError
from libmicrovmi_py.memory import difference
from libmicrovmi_py.model import MemoryKind, MemoryRange
from libmicrovmi_py.transport.mapping import HostMapping


def found(older: Microvmi, newer: Microvmi, start: int = 0) -> list[Run]:
    return [(item.start, item.size, int(item.kind)) for item in older.diff(newer, start)]


def compared(folder: Path, ways: tuple[Make, Make], pieces: tuple[list[Piece], list[Piece]]) -> list[Run]:
    drivers = [way(folder, memory) for way, memory in zip(ways, pieces, strict=True)]
    with Microvmi.from_driver(drivers[0]) as older, Microvmi.from_driver(drivers[1]) as newer:
        return found(older, newer)


# ------------------------------------------------------------------------------------------------ what is found


@pytest.mark.parametrize("second", DIRECT)
@pytest.mark.parametrize("first", DIRECT)
def test_regions_that_begin_and_end_anywhere(tmp_path: Path, first: str, second: str) -> None:
    combination = list(DIRECT).index(first) * len(DIRECT) + list(DIRECT).index(second)
    for seed in range(4 * combination, 4 * combination + 4):
        pieces = pair(seed, unit=(1, 8, 0x7FF, FRAME)[seed % 4])
        assert compared(tmp_path, (DIRECT[first], DIRECT[second]), pieces) == differing(*pieces), seed


@pytest.mark.parametrize("other", WAYS)
def test_frames_beside_every_way_to_memory(tmp_path: Path, other: str) -> None:
    for seed in range(50, 54):
        older, newer = (  # without devices, of which a driver of frames has none here
            [piece._replace(kind=min(piece.kind, 2)) for piece in some] for some in pair(seed, unit=FRAME)
        )
        for ways in ((WAYS[other], by_frames), (by_frames, WAYS[other])):
            assert compared(tmp_path, ways, (older, newer)) == differing(older, newer), seed


@pytest.mark.parametrize("kind", [Unmapped, Batches])
def test_frames_whose_holes_nobody_knows(kind: type[FakeDriver]) -> None:
    frames = [number for number in range(2500) if number % 7 and number not in range(900, 1400)]
    older = kind({number * FRAME: bytearray(FRAME) for number in frames})
    newer = kind({number * FRAME: bytearray([number == 2000]) * FRAME for number in frames if number != 1500})
    with Microvmi.from_driver(older) as first, Microvmi.from_driver(newer) as second:
        assert found(first, second) == [(1500 * FRAME, FRAME, 1), (2000 * FRAME, FRAME, 1)]
        assert found(second, first) == found(first, second)


@pytest.mark.parametrize("unit", [1, FRAME])
def test_memory_at_the_end_of_all_addresses(tmp_path: Path, unit: int) -> None:
    for seed in range(6):
        pieces = pair(seed, unit, base=(1 << 64) - 3 * MIB)
        assert compared(tmp_path, (mapped, of_a_process), pieces) == differing(*pieces), seed


def test_a_frame_in_which_memory_of_two_kinds_meets_is_told_once(tmp_path: Path) -> None:
    older = [Piece(0, b"\1" * 0x1800), Piece(0x1800, b"\1" * 0x1800, 2)]
    newer = [Piece(0, b"\2" * 0x1800), Piece(0x1800, b"\2" * 0x1800, 2)]
    expected = [(0, 0x2000, 1), (0x2000, FRAME, 2)]
    assert compared(tmp_path, (mapped, mapped), (older, newer)) == expected
    assert compared(tmp_path, (mapped, of_a_process), (older, [])) == expected
    ends = [older[0], Piece(0x1800, b"\1" * 0x100, 2)]
    assert compared(tmp_path, (mapped, mapped), (ends, [])) == [(0, 0x2000, 1)]
    with Microvmi.from_driver(mapped(tmp_path, ends)) as first, Microvmi.from_driver(mapped(tmp_path, [])) as second:
        one_look = difference.some(first.physical, second.physical, 0, 8)  # not joined yet: what C is told as well
    assert [(item.start, item.size, int(item.kind)) for item in one_look.ranges] == [(0, 0x2000, 1)]
    with_room_for_one = []
    with (
        Microvmi.from_driver(mapped(tmp_path, older)) as first,
        Microvmi.from_driver(mapped(tmp_path, newer)) as second,
    ):
        going_on = 1
        while going_on:
            found_now, going_on, _ = difference.some(first.physical, second.physical, going_on, 1)
            with_room_for_one += [(item.start, item.size, int(item.kind)) for item in found_now]
    assert with_room_for_one == expected


def test_a_memory_that_differs_from_nothing(tmp_path: Path) -> None:
    pieces = [Piece(0x1800, b"\0" * FRAME), Piece(5 * FRAME, b"\0", 2)]
    expected = [(0x1000, 2 * FRAME, 1), (5 * FRAME, FRAME, 2)]
    assert compared(tmp_path, (mapped, mapped), (pieces, [])) == expected
    assert compared(tmp_path, (mapped, mapped), ([], pieces)) == expected
    assert compared(tmp_path, (mapped, mapped), ([], [])) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_machine_does_not_differ_from_itself(tmp_path: Path, way: str) -> None:
    with Microvmi.from_driver(WAYS[way](tmp_path, [Piece(0, b"\1" * MIB), Piece(2 * MIB, b"\0\1" * MIB)])) as vm:
        assert found(vm, vm) == []


def test_it_begins_with_the_frame_of_an_address(tmp_path: Path) -> None:
    older = [Piece(0, bytes(8 * FRAME)), Piece(0x100000, bytes(FRAME + 5))]
    newer = [Piece(0, b"\1" * 8 * FRAME), Piece(0x100000, bytes(FRAME + 6))]
    for way in (mapped, of_a_process):
        with Microvmi.from_driver(way(tmp_path, older)) as first, Microvmi.from_driver(way(tmp_path, newer)) as second:
            for start in (0, 1, FRAME - 1, FRAME, 3 * FRAME + 7, 0x50000, 0x101004, 0x102000, (1 << 64) - 1):
                assert found(first, second, start) == differing(older, newer, start)
            with pytest.raises(InvalidArgumentError, match="64 bits"):
                first.diff(second, -1)


def test_a_run_is_whole_though_looks_are_of_some_frames(tmp_path: Path) -> None:
    frames = 3 * difference._AT_ONCE
    older = [Piece(0, bytes(2 * frames * FRAME))]
    newer = [Piece(0, (b"\1" * FRAME + bytes(FRAME)) * frames)]
    expected = [(2 * number * FRAME, FRAME, 1) for number in range(frames)]
    assert compared(tmp_path, (mapped, mapped), (older, newer)) == expected
    assert compared(tmp_path, (by_frames, by_frames), (older, newer)) == expected
    filled = [Piece(0, b"\1" * 24 * MIB)]
    assert compared(tmp_path, (by_frames, mapped), ([Piece(0, bytes(24 * MIB))], filled)) == [(0, 24 * MIB, 1)]


def test_one_look_ends_early_and_tells_where_to_go_on(tmp_path: Path) -> None:
    size, limit = 600 * MIB, 256 * MIB
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        os.pwrite(file.fileno(), b"\1", size - 1)
    with (
        Microvmi.from_driver(Regions([Region(0, size, MemoryKind.RAM, Hollow(size), 0)])) as older,
        Microvmi.from_driver(Regions([Region(0, size, MemoryKind.RAM, HostMapping.of_file(str(path)), 0)])) as newer,
    ):
        nexts = [0]
        while (look := difference.some(older.physical, newer.physical, nexts[-1], 4)).going_on:
            assert look == difference.Found([], look.going_on, None)
            nexts.append(look.going_on)
        assert len(nexts) == 3
        assert all(later - earlier == pytest.approx(limit, abs=MIB) for earlier, later in itertools.pairwise(nexts))
        assert found(older, newer) == [(size - FRAME, FRAME, 1)]


# ------------------------------------------------------------------------------------------------ holes


def test_holes_of_both_are_passed_over(tmp_path: Path) -> None:
    """4 TiB a side would take minutes."""
    paths = [tmp_path / "older", tmp_path / "newer"]
    for number, path in enumerate(paths):
        with path.open("wb") as file:
            file.truncate(4 << 40)
            os.pwrite(file.fileno(), b"\5", 3 << 40)
            os.pwrite(file.fileno(), bytes([number]), (1 << 40) + 5)
            os.pwrite(file.fileno(), bytes([number]) * (number * FRAME), 2 << 40)
    with Microvmi.open(str(paths[0])) as older, Microvmi.open(str(paths[1])) as newer:
        assert found(older, newer) == [(1 << 40, FRAME, 1), (2 << 40, FRAME, 1)]


def test_holes_stay_holes(tmp_path: Path) -> None:
    with open(os.memfd_create("hollow"), "r+b") as older, open(os.memfd_create("full"), "r+b") as newer:
        for file in (older, newer):
            file.truncate(64 * MIB)
        os.pwrite(newer.fileno(), b"\1" * MIB, 8 * MIB)
        paths = [f"/proc/self/fd/{file.fileno()}" for file in (older, newer)]
        with Microvmi.open(paths[0]) as first, Microvmi.open(paths[1]) as second:
            assert found(first, second) == [(8 * MIB, MIB, 1)]
        assert os.fstat(older.fileno()).st_blocks == 0
        assert os.fstat(newer.fileno()).st_blocks * 512 == MIB


# ------------------------------------------------------------------------------------------------ errors


def test_what_was_found_before_an_error_is_told(tmp_path: Path) -> None:
    older = FakeDriver({0: bytearray(64 * FRAME)})
    newer = FakeDriver({0: bytearray(b"\1" * 64 * FRAME)}, unreadable=[40])
    with Microvmi.from_driver(older) as first, Microvmi.from_driver(newer) as second:
        for runs in (first.diff(second), second.diff(first)):
            assert next(runs).end == 40 * FRAME
            with pytest.raises(IoError) as caught:
                next(runs)
            assert caught.value.address == 40 * FRAME
        assert found(first, second, 41 * FRAME) == [(41 * FRAME, 23 * FRAME, 1)]


def test_a_frame_that_cannot_be_read_behind_a_hole_is_an_error() -> None:
    older = Unmapped({0: bytearray(b"\1" * FRAME), 4 * FRAME: bytearray(60 * FRAME)}, unreadable=[40])
    newer = FakeDriver({0: bytearray(64 * FRAME)})
    with Microvmi.from_driver(older) as first, Microvmi.from_driver(newer) as second:
        runs = first.diff(second)
        assert next(runs) == MemoryRange(0, 4 * FRAME)
        with pytest.raises(IoError) as caught:
            next(runs)
        assert caught.value.address == 40 * FRAME


@pytest.mark.parametrize(("kind", "reached"), [(test_trips.Batches, 10), (test_trips.Ranges, 300)])
def test_a_machine_that_goes_in_the_middle(kind: type[test_trips.Trips], reached: int) -> None:
    """Of a trip that failed as a whole nothing is known."""
    older, newer = FakeDriver({0: bytearray(2 * MIB)}), kind()
    newer.gone_at = 300
    with Microvmi.from_driver(older) as first, Microvmi.from_driver(newer) as second:
        for runs in (first.diff(second), second.diff(first)):
            assert next(runs) == MemoryRange(FRAME, (reached - 1) * FRAME)  # frame 0 is zero in both
            with pytest.raises(VmGoneError):
                next(runs)
    assert len(newer.trips) < 20


def test_a_file_that_becomes_shorter_is_an_error_where_it_ends(tmp_path: Path) -> None:
    for name in ("older", "newer"):
        (tmp_path / name).write_bytes(bytes([name == "newer"]) * 4 * MIB)
    with Microvmi.open(str(tmp_path / "older")) as older, Microvmi.open(str(tmp_path / "newer")) as newer:
        os.truncate(tmp_path / "newer", 2 * MIB + 5 * FRAME)
        runs = older.diff(newer)
        assert next(runs).end == 2 * MIB + 5 * FRAME
        with pytest.raises(IoError, match=r"the newer one: .*shorter"):
            next(runs)
        with pytest.raises(IoError, match=r"the older one: .*shorter") as caught:
            list(newer.diff(older, 3 * MIB))
        assert caught.value.address == 3 * MIB


@pytest.mark.parametrize("data", [bytes(MIB), b"\1" * MIB], ids=["untouched", "touched"])
def test_memory_that_was_unplugged_is_an_error_whatever_is_there_now(tmp_path: Path, data: bytes) -> None:
    unplugged = Unplugged(data)
    newer = Regions([Region(0, MIB, MemoryKind.RAM, unplugged, unplugged.host)])
    with (
        Microvmi.from_driver(mapped(tmp_path, [Piece(0, bytes(MIB))])) as first,
        Microvmi.from_driver(newer) as second,
        pytest.raises(IoError, match="unplugged"),
    ):
        list(first.diff(second))


def test_a_machine_that_was_closed_is_not_compared(tmp_path: Path) -> None:
    pieces = [Piece(0, b"\1" * MIB)]
    vm, other = (Microvmi.from_driver(mapped(tmp_path, pieces)) for _ in range(2))
    runs = vm.diff(other)
    other.close()
    with pytest.raises(InvalidContextError):
        next(runs)
    vm.close()
    with pytest.raises(InvalidContextError):
        vm.diff(other)
