# SPDX-License-Identifier: Apache-2.0
"""``AddressSpace.mapped``, over regions and over frames: what a walker that shares no code with the library finds."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pytest
from pagetables import MIB, MODES, Tables
from pagewalk import leaves, memory_reader, runs

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import InvalidArgumentError, InvalidContextError, IoError
from libmicrovmi_py.memory.direct import Table
from libmicrovmi_py.memory.translation import Space
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.paging import PageTables, Paging, VirtualRange
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.native import native
from libmicrovmi_py.transport.reach import Reach

END = (1 << 64) - 1


@dataclass(frozen=True)
class Bytes:
    """A source of a region over bytes."""

    content: bytearray

    def reach(self) -> Reach:
        return Reach(view=memoryview(self.content))

    def open_for_writing(self) -> None:
        pass


class RegionDriver(Driver):
    """Memory in regions, which may begin and end anywhere."""

    name = "regions"

    def __init__(self, pieces: dict[int, bytearray]) -> None:
        self._regions = tuple(Region(at, len(data), MemoryKind.RAM, Bytes(data), 0) for at, data in pieces.items())

    @classmethod
    def open(cls, params: Parameters) -> RegionDriver:
        return cls({0: bytearray(MIB)})

    @property
    def max_addr(self) -> int:
        return self._regions[-1].end

    def regions(self) -> Sequence[Region]:
        return self._regions

    def close(self) -> None:
        pass


class CountingDriver(FakeDriver):
    """Counts the trips in which a hypervisor would be asked."""

    trips = 0

    def read_frames(self, requests: Sequence[tuple[int, int, memoryview]]) -> Sequence[bool]:
        self.trips += 1
        for request in requests:
            self.read_frame(*request)
        return [True] * len(requests)


def space_of(machine: Microvmi, tables: Tables) -> AddressSpace:
    paging, *rest = tables.space
    base, upper_base, control, physical_bits = rest
    return machine.address_space(
        base, paging=Paging(paging), upper_base=upper_base, control=control, physical_bits=physical_bits
    )


def plain(found: Iterable[VirtualRange]) -> list[tuple[int, int, int, int, int]]:
    return [(item.start, item.size, item.physical_address, int(item.rights), item.page_size) for item in found]


DRIVERS: dict[str, Callable[[bytearray], Driver]] = {
    "frames": lambda memory: FakeDriver({0: memory}),
    "regions": lambda memory: RegionDriver({0: memory}),
}


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Callable[[bytearray], Driver]:
    return DRIVERS[request.param]


def many(mode: str, count: int) -> Tables:
    """Pages here and there, most of them neighbours of others."""
    chance = random.Random(mode)
    tables = Tables(bytearray(2 * MIB), mode, MIB)
    page, top = tables.mode.page_sizes[0], 1 << 64 if tables.mode.high else 1 << 32
    for begin in (0, top - 6 * count * page):
        at = begin
        for number in range(count):
            tables.map(at, number * page)
            at += page * chance.choice((1, 1, 2, 5))
    return tables


@pytest.mark.parametrize("mode", MODES)
def test_what_is_mapped_is_told_in_every_mode(driver: Callable[[bytearray], Driver], mode: str) -> None:
    tables = many(mode, 900)  # more ranges than are asked for at once
    with Microvmi.from_driver(driver(tables.memory)) as machine:
        found = plain(space_of(machine, tables).mapped())
    assert found == list(runs(leaves(memory_reader(tables.memory), tables.space)))
    assert len(found) > 512


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 1 << 64),
        (0x2000, 0x9000),
        (0x2001, 0x2002),
        (0x2FFF, 0x200000),
        (0x5000, 0x5000),
        (0x8000, 0x4000),
        (1 << 40, 1 << 63),
        ((1 << 64) - 0x5001, (1 << 64) - 1),
        ((1 << 64) - 1, 1 << 64),
        (1 << 64, 1 << 64),
    ],
)
def test_a_part_of_what_is_mapped(driver: Callable[[bytearray], Driver], start: int, end: int) -> None:
    tables = many("x86-4", 40)
    tables.map((1 << 64) - 4096, 0)
    with Microvmi.from_driver(driver(tables.memory)) as machine:
        found = plain(space_of(machine, tables).mapped(start, end))
    assert found == [run for run in clipped(tables, start, end) if run[1] > 0]


def clipped(tables: Tables, start: int, end: int) -> list[tuple[int, int, int, int, int]]:
    """The ranges of the reference walker without what lies outside."""
    found = []
    for begin, size, physical, rights, page in runs(leaves(memory_reader(tables.memory), tables.space)):
        first = max(begin, start)
        found.append((first, min(begin + size, end) - first, physical + first - begin, rights, page))
    return found


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (0, (1 << 64) + 1), (1 << 65, 1 << 66)])
def test_addresses_beyond_64_bits_are_told_at_once(start: int, end: int) -> None:
    with Microvmi.from_driver(FakeDriver({0: bytearray(MIB)})) as machine, pytest.raises(InvalidArgumentError):
        machine.address_space(0).mapped(start, end)


def where_a_walk_ends(tables: Tables) -> int:
    """The address at which the first walk ends early, having found nothing."""
    ffi, lib = native()
    table = Table(RegionDriver({0: tables.memory}).regions(), len(tables.memory))
    runs, requests = ffi.gc(lib.mvi_runs_new(), lib.mvi_runs_free), ffi.new("struct microvmi_read_request **")
    rows, address = ffi.new("struct microvmi_virtual_range[1]"), ffi.new("uint64_t *")
    lib.mvi_runs_begin(runs, Space(PageTables(Paging(tables.space.paging), tables.base)).pointer, 0, END, rows, 1)
    while lib.mvi_runs_want(runs, requests):
        assert lib.mvi_runs_read(runs, table.pointer, address) == 0
    assert lib.mvi_runs_end(runs, address) == 0
    return int(address[0])


def test_a_range_that_a_walk_ended_in_is_one() -> None:
    tables, first, count = Tables(bytearray(136 * MIB), "x86-4", 0x1000), MIB, 34_000
    for number in range(count):
        tables.poke(number << 21, 2, (first + number * 4096) | 7)  # tables of nothing, each a different one
    border = where_a_walk_ends(tables)
    assert border % (1 << 21) == 0 < border < count << 21
    tables.map(border - 0x1000, border - 0x1000)
    tables.map(border, border)
    with Microvmi.from_driver(RegionDriver({0: tables.memory})) as machine:
        found = [(item.start, item.size) for item in space_of(machine, tables).mapped()]
    assert found == [(border - 0x1000, 0x2000)]


def test_the_tables_are_read_as_the_iterator_gets_there(driver: Callable[[bytearray], Driver]) -> None:
    tables = Tables(bytearray(MIB), "x86-4", 0x20000)
    for number in range(1000):
        tables.map(number << 13, number << 13)
    with Microvmi.from_driver(driver(tables.memory)) as machine:
        found = space_of(machine, tables).mapped()
        assert [item.physical_address for item in itertools.islice(found, 500)] == [at << 13 for at in range(500)]
        tables.map(998 << 13, 0x5000)
        assert [item.physical_address for item in found][-2:] == [0x5000, 999 << 13]


def test_a_table_of_which_a_part_is_no_memory() -> None:
    """Memory ends, and begins again, in the middle of an entry: the others are there."""
    tables = Tables(bytearray(MIB), "x86-4", 0x20000)
    tables.map_range(0, 0x10000, 512 * 4096)
    first = tables.entry_address(0, 1)
    gap = range(first + 100 * 8 + 4, first + 300 * 8 + 1)
    memory = tables.memory
    pieces = {0: memory[: gap.start], gap.stop: memory[gap.stop :]}
    with Microvmi.from_driver(RegionDriver(pieces)) as machine:
        found = [(item.start, item.size) for item in space_of(machine, tables).mapped()]

    def read(address: int, size: int) -> bytes | None:
        return None if address < gap.stop and address + size > gap.start else bytes(memory[address : address + size])

    assert found == [run[:2] for run in runs(leaves(read, tables.space))] == [(0, 100 << 12), (301 << 12, 211 << 12)]


def test_a_table_that_is_no_memory_maps_nothing(driver: Callable[[bytearray], Driver]) -> None:
    tables = Tables(bytearray(MIB), "x86-4", 0x20000)
    tables.map(0, 0)
    tables.map(3 << 39, 0x5000)
    tables.poke(1 << 39, 4, 1 << 30 | 7)
    tables.poke(0, 2, 1 << 30 | 7)
    with Microvmi.from_driver(driver(tables.memory)) as machine:
        assert [(item.start, item.size) for item in space_of(machine, tables).mapped()] == [(3 << 39, 0x1000)]
        assert list(machine.address_space(1 << 40).mapped()) == []


def test_a_table_that_cannot_be_read_is_an_error() -> None:
    tables = Tables(bytearray(MIB), "x86-4", 0x20000)
    tables.map(0, 0)
    driver = FakeDriver({0: tables.memory}, unreadable=[tables.entry_address(0, 1) >> 12])
    with Microvmi.from_driver(driver) as machine, pytest.raises(IoError):
        list(space_of(machine, tables).mapped())


def test_tables_of_a_driver_of_frames_are_read_in_few_trips() -> None:
    tables = Tables(bytearray(2 * MIB), "x86-4", MIB)
    for number in range(200):
        tables.map(number << 21, number << 12)
    driver = CountingDriver({0: tables.memory})
    with Microvmi.from_driver(driver) as machine:
        assert len(list(space_of(machine, tables).mapped())) == 200
    assert driver.trips <= 13  # three, and tables by 8, 16 and then 32


def test_a_table_that_names_itself_is_told_as_long_as_one_likes(driver: Callable[[bytearray], Driver]) -> None:
    tables = Tables(bytearray(MIB), "x86-5", 0x20000)
    tables.memory[tables.base : tables.base + 4096] = (tables.base | 7).to_bytes(8, "little") * 512
    with Microvmi.from_driver(driver(tables.memory)) as machine:
        found = list(itertools.islice(space_of(machine, tables).mapped(), 2000))
    assert [item.start for item in found] == [number << 12 for number in range(2000)]
    assert {item.physical_address for item in found} == {tables.base}


def test_a_machine_that_is_closed_is_walked_no_further() -> None:
    tables = many("x86-4", 900)
    with Microvmi.from_driver(FakeDriver({0: tables.memory})) as machine:
        found = space_of(machine, tables).mapped()
        next(found)
    with pytest.raises(InvalidContextError):
        list(found)
