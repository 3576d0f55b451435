# SPDX-License-Identifier: Apache-2.0
"""Drivers that tell what cannot be: ranges, maximum addresses and counts are checked before anything relies on them."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from programs import Programs

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.memory.direct import DirectMemory
from libmicrovmi_py.model import PAGE_SIZE, MemoryKind, MemoryRange
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.native import native
from libmicrovmi_py.transport.reach import Reach

TOP = 1 << 64
WRONG = "the driver's memory map is wrong"

RANGES = {
    "overlapping": [(0, 0x2000), (0x1FFF, 0x1000)],
    "the same twice": [(0, 0x1000), (0, 0x1000)],
    "one within another": [(0, 0x4000), (0x1000, 0x1000)],
    "descending": [(0x4000, 0x1000), (0, 0x1000)],
    "an empty one": [(0, 0x1000), (0x2000, 0)],
    "wrapping": [(0, 0x1000), (TOP - 0x1000, 0x1001)],
    "wrapping over everything": [(0x1000, TOP - 1)],
    "beyond 64 bits": [(0, 0x1000), (TOP, 0x1000)],
    "of a size beyond 64 bits": [(0, TOP)],
    "before 0": [(-0x1000, 0x2000)],
    "of a negative size": [(0x1000, -0x1000)],
}
MAXIMA = [-1, TOP, 1 << 70]


class Bytes:
    def __init__(self, size: int) -> None:
        self.content = bytearray(size)

    def reach(self) -> Reach:
        return Reach(view=memoryview(self.content))

    def open_for_writing(self) -> None:
        pass


class Telling(Driver):
    """A driver of regions that tells what it is handed."""

    name = "telling"

    def __init__(self, ranges: Sequence[tuple[int, int]], maximum: int = 0x10000) -> None:
        self.closed = False
        self.maximum = maximum
        source = Bytes(0x10000)
        self._regions = tuple(Region(start, size, MemoryKind.RAM, source, 0) for start, size in ranges)

    @classmethod
    def open(cls, params: Parameters) -> Driver:
        raise NotImplementedError

    @property
    def max_addr(self) -> int:
        return self.maximum

    def regions(self) -> Sequence[Region]:
        return self._regions

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("name", RANGES)
def test_regions_that_cannot_be_are_refused_at_the_opening(name: str) -> None:
    driver = Telling(RANGES[name])
    with pytest.raises(IoError, match=WRONG):
        Microvmi.from_driver(driver)
    assert driver.closed


@pytest.mark.parametrize("name", RANGES)
def test_regions_that_become_such_are_refused_too(name: str) -> None:
    driver = Telling([(0, 0x1000)])
    with Microvmi.from_driver(driver) as machine:
        driver._regions = Telling(RANGES[name])._regions
        with pytest.raises(IoError, match=WRONG):
            machine.read_physical(0, 16)
        with pytest.raises(IoError, match=WRONG):
            machine.memory.read(16)


@pytest.mark.parametrize("maximum", MAXIMA)
def test_a_maximum_address_that_cannot_be_is_refused(maximum: int) -> None:
    driver = Telling([(0, 0x1000)], maximum)
    with pytest.raises(IoError, match=WRONG):
        Microvmi.from_driver(driver)
    assert driver.closed
    fine = Telling([(0, 0x1000)])
    with Microvmi.from_driver(fine) as machine:
        fine.maximum = maximum
        with pytest.raises(IoError, match=WRONG):
            _ = machine.max_addr


@pytest.mark.parametrize(("offset", "size"), [(0xF001, 0x1000), (0x10000, 1), (-1, 16), (0, 0x10001), (1 << 63, 1)])
def test_regions_beyond_their_source_are_refused(offset: int, size: int) -> None:
    driver = Telling([])
    driver._regions = (Region(0, size, MemoryKind.RAM, Bytes(0x10000), offset),)
    with pytest.raises(IoError, match=WRONG):
        DirectMemory(driver).read_into(0, memoryview(bytearray(1)))


def rows(ranges: Sequence[tuple[int, int]]) -> Any:
    ffi, _ = native()
    made = ffi.new("struct mvi_region[]", len(ranges))
    for row, (start, size) in zip(made, ranges, strict=True):
        row.start, row.size, row.kind = start, size, MemoryKind.RAM
        row.fd = row.write_fd = row.pidfd = row.pagemap_fd = -1
    return made


FITTING = [name for name, ranges in RANGES.items() if all(0 <= number < TOP for item in ranges for number in item)]


@pytest.mark.parametrize("name", FITTING)
def test_c_refuses_them_by_itself(name: str) -> None:
    ffi, lib = native()
    assert lib.mvi_table_new(rows(RANGES[name]), len(RANGES[name]), TOP - 1, ffi.NULL, False, ffi.NULL) == ffi.NULL
    assert ffi.errno == errno.EINVAL


def test_c_refuses_offsets_that_no_file_has() -> None:
    ffi, lib = native()
    row = rows([(0, 0x1000)])
    row[0].fd, row[0].offset = 0, (1 << 63) - 0xFFF
    assert lib.mvi_table_new(row, 1, TOP - 1, ffi.NULL, False, ffi.NULL) == ffi.NULL
    assert ffi.errno == errno.EINVAL


class Miscounting(Driver):
    """A driver of frames whose counts are those that it is handed."""

    name = "miscounting"
    maximum = 16 * PAGE_SIZE

    def __init__(self, more: int) -> None:
        self.more = more

    @classmethod
    def open(cls, params: Parameters) -> Driver:
        raise NotImplementedError

    @property
    def max_addr(self) -> int:
        return self.maximum

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        pass

    def close(self) -> None:
        pass


class Ranges(Miscounting):
    def read_range(self, address: int, buffer: memoryview) -> int:
        return len(buffer) + self.more if self.more > 0 else self.more

    def write_frame(self, frame: int, offset: int, data: memoryview) -> None:
        raise AssertionError("written although the check went wrong")

    def write_range(self, address: int, data: memoryview) -> None:
        raise AssertionError("written although the check went wrong")


class Batches(Miscounting):
    def read_frames(self, requests: Sequence[tuple[int, int, memoryview]]) -> Sequence[bool]:
        return [True] * (len(requests) + self.more)


class Failing(Miscounting):
    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        if frame == 1:
            raise IoError("no", completed=self.more)


class Mapped(Miscounting):
    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self.ranges = ranges

    def memory_map(self) -> Sequence[MemoryRange]:
        return [MemoryRange(start, size) for start, size in self.ranges]


@pytest.mark.parametrize("more", [1, 1 << 40, 1 << 70, -1])
def test_a_count_of_bytes_that_cannot_be_is_an_error(more: int) -> None:
    with Microvmi.from_driver(Ranges(more)) as machine:
        size = 2 * PAGE_SIZE
        with pytest.raises(IoError, match="the driver says that it read") as caught:
            machine.read_physical_into(0, bytearray(size))
        assert caught.value.completed == 0
        with pytest.raises(IoError, match="the driver says that it read"):
            machine.read_physical_padded_into(0, bytearray(size))
        with pytest.raises(IoError, match="the driver says that it read"):
            machine.memory.read(size)
        with pytest.raises(IoError, match="the driver says that it read"):
            machine.write_physical(0, bytes(size))


@pytest.mark.parametrize("more", [1, -1])
def test_answers_for_other_frames_than_were_asked_for_are_an_error(more: int) -> None:
    with Microvmi.from_driver(Batches(more)) as machine:
        with pytest.raises(IoError, match="answered for"):
            machine.read_physical_into(0, bytearray(3 * PAGE_SIZE))
        with pytest.raises(IoError, match="answered for"):
            machine.read_physical_padded_into(0, bytearray(3 * PAGE_SIZE))


TOLD = [(0, 0), (7, 7), (PAGE_SIZE + 1, PAGE_SIZE), (1 << 70, PAGE_SIZE), (-5, 0)]


@pytest.mark.parametrize(("told", "counted"), TOLD)
def test_an_error_never_counts_more_than_there_is(told: int, counted: int) -> None:
    with Microvmi.from_driver(Failing(told)) as machine:
        with pytest.raises(IoError) as caught:
            machine.read_physical_into(0, bytearray(2 * PAGE_SIZE))
        assert caught.value.completed == PAGE_SIZE + counted


@pytest.mark.parametrize("name", RANGES)
def test_a_map_that_cannot_be_is_refused(name: str) -> None:
    with Microvmi.from_driver(Mapped(RANGES[name])) as machine:
        with pytest.raises(IoError, match=WRONG):
            machine.memory_map()
        with pytest.raises(IoError, match=WRONG):
            machine.memory.seek(0, 3)


PLUGIN = """
from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.model import MemoryKind, MemoryRange
from libmicrovmi_py.transport.reach import Reach

class Source:
    def __init__(self): self.content = bytearray(0x10000)
    def reach(self): return Reach(view=memoryview(self.content))
    def open_for_writing(self): pass

class Wrong(Driver):
    name = "wrong"
    parameters = {"late": "only when it is asked for its map"}
    automatic = False
    max_addr = 0x10000
    def __init__(self, late):
        self.late, self.source = late, Source()
        self._regions = self._told([(0, 0x10000)] if late else [(0, 0x2000), (0x1000, 0x2000)])
    @classmethod
    def open(cls, params): return cls("late" in params)
    def _told(self, ranges):
        return tuple(Region(start, size, MemoryKind.RAM, self.source, 0) for start, size in ranges)
    def regions(self): return self._regions
    def memory_map(self):
        self._regions = self._told([(0x8000, 0x9000), (0, 0x1000)])
        return [MemoryRange(0x8000, 0x9000), MemoryRange(0, 0x1000)]
    def close(self): pass

DRIVER = Wrong
"""


def test_a_plugin_that_tells_such_ranges_is_an_error_in_c(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(PLUGIN)
    programs.run(programs.linked("wrong-map"), env={"MICROVMI_PLUGIN_PATH": str(tmp_path)})
