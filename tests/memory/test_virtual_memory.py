# SPDX-License-Identifier: Apache-2.0
"""Virtual memory of Python programs, over regions and over frames alike: every mode, hostile tables, few trips."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pagetables import KIB, MIB, MODES, Tables
from pagewalk import KERNEL_EXECUTE, KERNEL_READ, KERNEL_WRITE, USER_READ, X86_32, Walked, memory_reader, walk

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import IoError, NotMappedError, ReadOnlyError, VmGoneError
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.model import PAGE_SHIFT
from libmicrovmi_py.paging import Paging

SIZE = 6 * MIB
START = 2 * MIB
"""Where the tables begin; what is mapped lies below."""


class Batches(FakeDriver):
    """A machine that reads many frames in a trip, notes how many trips there were, and fails in some frames."""

    def __init__(self, memory: bytearray) -> None:
        super().__init__({0: memory})
        self.trips: list[int] = []
        self.broken: set[int] = set()

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        self.trips.append(1)
        self._read(frame, offset, buffer)

    def _read(self, frame: int, offset: int, buffer: memoryview) -> None:
        if frame in self.broken:
            raise IoError("this frame is broken", address=(frame << PAGE_SHIFT) + offset)
        super().read_frame(frame, offset, buffer)

    def read_frames(self, requests: Sequence[tuple[int, int, memoryview]]) -> Sequence[bool]:
        self.trips.append(len(requests))
        return [self._exists(*request) for request in requests]

    def _exists(self, frame: int, offset: int, buffer: memoryview) -> bool:
        try:
            self._read(frame, offset, buffer)
        except NotMappedError:
            return False
        return True


def by_frames(memory: bytearray, folder: Path) -> Microvmi:
    return Microvmi.from_driver(FakeDriver({0: memory}))


def by_batches(memory: bytearray, folder: Path) -> Microvmi:
    return Microvmi.from_driver(Batches(memory))


def mapped(memory: bytearray, folder: Path) -> Microvmi:
    (folder / "image").write_bytes(memory)
    return Microvmi.open(str(folder / "image"))


def read_by_calls(memory: bytearray, folder: Path) -> Microvmi:
    (folder / "image").write_bytes(memory)
    return Microvmi.open(f"vmi://dump/?path={folder / 'image'}&mapped=no")


Way = Callable[[bytearray, Path], Microvmi]

WAYS: list[Way] = [by_frames, by_batches, mapped, read_by_calls]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    """How the machine is read."""
    chosen: Way = request.param
    return chosen


def space_of(machine: Microvmi, tables: Tables) -> AddressSpace:
    paging, base, upper, control, bits = tables.space
    return machine.address_space(base, paging=Paging(paging), upper_base=upper, control=control, physical_bits=bits)


def filled(seed: int) -> bytearray:
    return bytearray(random.Random(seed).randbytes(START)) + bytearray(SIZE - START)


def halves(tables: Tables) -> list[int]:
    """Where pages are mapped: within the first GiB of each half."""
    return [0x1000_0000, *([tables.mode.high + 0x1000_0000] if tables.mode.high else [])]


def same(found: Sequence[object], expected: Walked) -> bool:
    return tuple(found) == tuple(expected)


# -------------------------------------------------------------------------------------------------------------- modes


@pytest.mark.parametrize("mode", MODES)
def test_all_modes_translate_and_read_as_the_reference(mode: str, way: Way, tmp_path: Path) -> None:
    memory, chance = filled(1), random.Random(2)
    tables = Tables(memory, mode, START)
    page = tables.mode.page_sizes[0]
    content: dict[int, bytes] = {}
    for start in halves(tables):
        for index in (0, 1, 2, 3, 4, 6, 7):
            place = chance.randrange(START // page) * page
            rights = KERNEL_READ | KERNEL_EXECUTE | chance.choice([0, KERNEL_WRITE, USER_READ])
            tables.map(start + index * page, place, rights=rights)
            content[start + index * page] = bytes(memory[place : place + page])
    read = memory_reader(memory)
    with way(memory, tmp_path) as machine:
        space = space_of(machine, tables)
        for start in halves(tables):
            for offset in (step * page + at for step in range(-1, 9) for at in (0, 1, page // 2, page - 1)):
                assert same(space.translate(start + offset), walk(read, tables.space, start + offset))
            whole = b"".join(content[start + index * page] for index in range(5))
            assert space.read_virtual(start + 3, 5 * page - 3) == whole[3:]
            assert space.window(start).read(8 * page) == whole
            buffer = bytearray(9 * page)
            space.read_virtual_padded_into(start - page + 1, buffer)
            assert buffer[page - 1 :][: 7 * page] == whole + bytes(page) + content[start + 6 * page]


@pytest.mark.parametrize("mode", MODES)
def test_large_pages_are_read_across_their_edges(mode: str, way: Way, tmp_path: Path) -> None:
    memory = filled(3)
    tables = Tables(memory, mode, START)
    for size in tables.mode.page_sizes[1:]:
        tables.map(size * 2, 0, size)
        with way(memory, tmp_path) as machine:
            space = space_of(machine, tables)
            there = min(size, SIZE)
            assert space.read_virtual(size * 2, there) == memory[:there]
            buffer = bytearray(b"\xee" * 64)
            assert space.read_virtual_into(size * 2 - 8, buffer) == 0
            space.read_virtual_padded_into(size * 2 - 8, buffer)
            assert buffer == bytes(8) + memory[:56]
            if size > SIZE:
                with pytest.raises(NotMappedError, match="is mapped to physical address 0x600000, which is no memory"):
                    space.read_virtual(size * 2 + SIZE - 4, 8)


def test_without_paging_virtual_memory_is_physical(way: Way, tmp_path: Path) -> None:
    memory = filled(4)
    with way(memory, tmp_path) as machine:
        space = machine.address_space(0, paging=Paging.OFF)
        assert space.read_virtual(12345, 8000) == memory[12345:20345]
        assert space.translate(SIZE + 5).physical_address == SIZE + 5
        assert space.read_batch([(SIZE - 1, bytearray(2))])[0].done == 1


# ------------------------------------------------------------------------------------------------------- hostile tables


@pytest.mark.parametrize("mode", MODES)
def test_tables_of_random_bytes_end_as_the_reference_says(mode: str, way: Way, tmp_path: Path) -> None:
    chance = random.Random(mode)
    words = (chance.randbytes(3) + bytes(5) for _ in range(1 << 15))  # in memory for the most part: walks go deep
    memory = bytearray(b"".join(words) * (SIZE >> 18))
    tables = Tables(bytearray(SIZE), mode, START)
    read = memory_reader(memory)
    with way(memory, tmp_path) as machine:
        space = space_of(machine, tables)
        for _ in range(300):
            address = chance.getrandbits(64) if chance.random() < 0.2 else chance.getrandbits(30) + tables.mode.high
            expected = walk(read, tables.space, address)
            assert same(space.translate(address), expected), hex(address)
            there = expected.physical is not None and expected.physical < SIZE
            assert space.read_virtual_into(address, bytearray(1)) == there


def test_a_table_that_is_its_own_lower_one_ends(way: Way, tmp_path: Path) -> None:
    memory = filled(5)
    tables = Tables(memory, "x86-5", START)
    for index in range(512):
        tables.poke(index << 48, 5, tables.base | 0x67)
    with way(memory, tmp_path) as machine:
        space = space_of(machine, tables)
        assert space.read_virtual(0, 4096) == memory[START : START + 4096]
        assert space.translate((1 << 64) - 1).physical_address == START + 4095


def test_reserved_bits_depend_on_the_processor(way: Way, tmp_path: Path) -> None:
    memory = filled(6)
    for bits, expected in ((0, 0), (40, 2), (52, 0)):
        tables = Tables(memory, "x86-4", START, physical_bits=bits)
        tables.poke(0x1000, 1, 1 << 45 | 0x67)
        with way(memory, tmp_path) as machine:
            assert space_of(machine, tables).translate(0x1000).failure == expected


# -------------------------------------------------------------------------------------------------------------- writes


@pytest.mark.parametrize("make", [by_frames, by_batches])
def test_a_write_goes_where_its_pages_are(make: Way, tmp_path: Path) -> None:
    memory = filled(7)
    tables = Tables(memory, "x86-4", START)
    for index, place in enumerate((0x5000, 0x3000, 0x9000)):
        tables.map(0x10000 + index * 4096, place)
    with make(memory, tmp_path) as machine:
        data = bytes(range(256)) * 17
        space_of(machine, tables).write_virtual(0x10000 + 4000, data)
        assert memory[0x5FA0:0x6000] == data[:96]
        assert memory[0x3000:0x4000] == data[96:4192]
        assert memory[0x9000:][: 4352 - 4192] == data[4192:]


@pytest.mark.parametrize("missing", [0x13000, 0x12000])
def test_a_write_that_meets_a_hole_writes_nothing(missing: int, tmp_path: Path) -> None:
    memory = filled(8)
    tables = Tables(memory, "x86-4", START)
    tables.map_range(0x10000, 0x5000, 0x4000)
    tables.poke(missing, 1, 0)
    before = bytes(memory)
    with by_frames(memory, tmp_path) as machine, pytest.raises(NotMappedError) as caught:
        space_of(machine, tables).write_virtual(0x10FFF, bytes(0x4000))
    assert (caught.value.address, caught.value.completed, caught.value.requested) == (missing, 0, 0x4000)
    assert caught.value.translation is not None
    assert caught.value.translation.level == 1
    assert memory == before


def test_a_write_that_ends_in_memory_that_cannot_be_written_writes_nothing(tmp_path: Path) -> None:
    memory, rom = filled(9), bytearray(b"rom!" * KIB)
    tables = Tables(memory, "x86-4", START)
    tables.map(0x10000, 0x5000)
    tables.map(0x11000, SIZE)
    before = bytes(memory)
    driver = FakeDriver({0: memory, SIZE: rom}, rom=[SIZE])
    with Microvmi.from_driver(driver) as machine, pytest.raises(ReadOnlyError) as caught:
        space_of(machine, tables).write_virtual(0x10FFC, b"12345678")
    assert (caught.value.address, caught.value.completed) == (0x11000, 0)
    assert memory == before
    assert rom == b"rom!" * KIB


# ------------------------------------------------------------------------------------------------------ trips, failures


def test_a_read_of_many_pages_takes_a_trip_a_level_and_one_for_the_data() -> None:
    memory, chance = filled(10), random.Random(11)
    tables = Tables(memory, "x86-4", START)
    places = [chance.randrange(START >> 12) << 12 for _ in range(400)]
    for index, place in enumerate(places):
        tables.map(0x100000 + (index << 12), place)
    driver = Batches(memory)
    with Microvmi.from_driver(driver) as machine:
        space = space_of(machine, tables)
        found = space.read_virtual(0x100000, 400 << 12)
        assert found == b"".join(memory[place : place + 4096] for place in places)
        assert len(driver.trips) <= 5
        assert sum(driver.trips) <= 400 + 3 + 2  # a piece of each table, two of the lowest ones
        driver.trips.clear()
        requests = [(0x100000 + (index << 12) + 8, bytearray(16)) for index in chance.sample(range(400), 256)]
        assert all(done == 16 for done, _ in space.read_batch(requests))
        assert len(driver.trips) <= 5


def test_behind_a_hole_nothing_is_handed_out() -> None:
    memory = filled(12)
    tables = Tables(memory, "x86-4", START)
    for index, place in enumerate((0x5000, 0x3000, SIZE, 0x9000)):
        tables.map(0x10000 + index * 4096, place)
    with Microvmi.from_driver(Batches(memory)) as machine:
        buffer = bytearray(b"\xee" * 0x4000)
        assert space_of(machine, tables).read_virtual_into(0x10000, buffer) == 0x2000
        assert buffer[0x2000:] == b"\xee" * 0x2000


@pytest.mark.parametrize("batches", [True, False])
def test_a_failure_of_the_driver_is_told_with_what_was_read(batches: bool) -> None:
    memory = filled(13)
    tables = Tables(memory, "x86-4", START)
    for index, place in enumerate((0x5000, 0x3000, 0x7000, 0x9000)):
        tables.map(0x1FE000 + index * 4096, place)  # two lowest tables
    driver = Batches(memory) if batches else FakeDriver({0: memory}, unreadable=[7])
    with Microvmi.from_driver(driver) as machine:
        space = space_of(machine, tables)
        if isinstance(driver, Batches):
            driver.broken = {7}
        with pytest.raises(IoError) as caught:
            space.read_virtual(0x1FE004, 0x3000)
        assert (caught.value.address, caught.value.completed) == (0x200000, 0x2000 - 4)
        with pytest.raises(IoError):
            space.read_virtual_padded_into(0x1FE004, bytearray(0x3000))
        results = space.read_batch([(0x1FE000, bytearray(8)), (0x1FFFFC, bytearray(8)), (0x201000, bytearray(8))])
        assert [done for done, _ in results] == [8, 4, 8]
        assert isinstance(results[1].error, IoError)


def test_a_table_that_cannot_be_read_is_no_hole() -> None:
    memory = filled(14)
    tables = Tables(memory, "x86-4", START)
    for index in range(4):
        tables.map(0x1FE000 + index * 4096, 0x5000 + index * 4096)
    driver = Batches(memory)
    with Microvmi.from_driver(driver) as machine:
        driver.broken = {tables.entry_address(0x200000, 1) >> 12}
        space = space_of(machine, tables)
        for call in (
            lambda: space.read_virtual(0x1FE000, 0x4000),
            lambda: space.read_virtual_padded_into(0x1FE000, bytearray(0x4000)),
            lambda: space.write_virtual(0x1FE000, bytes(0x4000)),
        ):
            with pytest.raises(IoError) as caught:
                call()
            assert caught.value.address == 0x200000
        with pytest.raises(IoError):
            space.translate(0x200000)
        assert memory[0x5000:0x6000] != bytes(0x1000)


def test_a_machine_that_ends_ends_the_read() -> None:
    class Ending(Batches):
        def read_frames(self, requests: Sequence[tuple[int, int, memoryview]]) -> Sequence[bool]:
            raise VmGoneError("gone")

        def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
            raise VmGoneError("gone")

    memory = filled(15)
    tables = Tables(memory, "x86-4", START)
    with Microvmi.from_driver(Ending(memory)) as machine:
        space = space_of(machine, tables)
        for size in (1, 0x9000):
            with pytest.raises(VmGoneError):
                space.read_virtual(0x1000, size)
        (result,) = space.read_batch([(0x1000, bytearray(4))])
        assert isinstance(result.error, VmGoneError)


def test_pages_of_32_bit_modes_end_at_4_gib(way: Way, tmp_path: Path) -> None:
    memory = filled(16)
    tables = Tables(memory, "x86-32", START)
    assert tables.mode.paging == X86_32
    tables.map(0xFFFF_F000, 0x5000)
    with way(memory, tmp_path) as machine:
        space = space_of(machine, tables)
        assert space.window(0xFFFF_FFF0).read(64) == memory[0x5FF0:0x6000]
        assert space.translate(1 << 32).failure == 4


@pytest.mark.parametrize("call", ["read_virtual_into", "read_virtual_padded_into"])
def test_behind_a_frame_that_cannot_be_read_the_buffer_stays_as_it_is(call: str) -> None:
    memory = filled(9)
    tables = Tables(memory, "x86-4", START)
    for index, frame in enumerate((0x10000, 0x30000, 0x20000)):
        tables.map(index * 4096, frame)
    driver = Batches(memory)
    driver.broken.add(0x30)
    with Microvmi.from_driver(driver) as machine:
        space, buffer = space_of(machine, tables), bytearray(b"\xee" * 0x3000)
        with pytest.raises(IoError) as caught:
            getattr(space, call)(0, buffer)
    assert caught.value.completed == 4096
    assert buffer == memory[0x10000:0x11000] + b"\xee" * 0x2000
