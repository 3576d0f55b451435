# SPDX-License-Identifier: Apache-2.0
"""What page tables map, from C, on every way to memory, compared with a walker that shares no code with the library."""

from __future__ import annotations

import random
from collections.abc import Callable
from ctypes import byref, c_size_t, c_uint8, c_uint64, sizeof
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from pagetables import MIB, MODES, Tables, table_entry
from pagewalk import EVERYTHING, KERNEL_WRITE, OFF, USER_WRITE, X86_4_LEVELS, Space, leaves, memory_reader, runs

INVALID_ARGUMENT, INVALID_CONTEXT, IO = 1, 2, 10
END = 0x180000
TABLES = 0x100000
"""Every machine here has memory below 0x80000 and from 0x100000 to the end; an image has no hole."""

Run = tuple[int, int, int, int, int]


class Machine(NamedTuple):
    """One whose memory is to be filled; ``open`` does that."""

    open: Callable[[bytes | bytearray], int]


@pytest.fixture(params=["image", "fake", "shared", "private"])
def machine(
    request: pytest.FixtureRequest,
    lib: Any,
    tmp_path: Path,
    opened: Callable[[str], int],
    start_machine: Callable[..., str],
) -> Machine:
    """Memory of the tests, on every way to memory."""

    def image(memory: bytes | bytearray) -> int:
        (tmp_path / "image.raw").write_bytes(memory)
        return opened(str(tmp_path / "image.raw"))

    def written(memory: bytes | bytearray) -> int:
        if request.param == "fake":
            context = opened(f"vmi://fake/?size={END:#x}&holes=0x80000-0x100000&pattern=zero")
        else:
            context = opened(start_machine(*(["-fake", "private"] if request.param == "private" else [])))
        content = (c_uint8 * (END - TABLES)).from_buffer_copy(memory[TABLES:END])
        assert lib.microvmi_write_physical(context, TABLES, content, len(content)), lib.microvmi_last_error()
        return context

    return Machine(image if request.param == "image" else written)


class Calls:
    """``microvmi_get_virtual_map`` of one address space, with room for ``capacity`` ranges."""

    def __init__(self, lib: Any, stubs: ModuleType, context: int, space: Space, capacity: int = 4096) -> None:
        self._lib, self._context = lib, context
        self.space = stubs.microvmi_address_space(sizeof(stubs.microvmi_address_space), *space)
        self.ranges, self.next, self.count = (stubs.microvmi_virtual_range * capacity)(), c_uint64(0), c_size_t(77)

    def __call__(self, begin: int | None = None) -> list[Run]:
        if begin is not None:
            self.next.value = begin
        assert self._lib.microvmi_get_virtual_map(
            self._context, byref(self.space), byref(self.next), self.ranges, len(self.ranges), byref(self.count)
        ), self._lib.microvmi_last_error()
        assert self._lib.microvmi_last_error_code() == 0
        rows = self.ranges[: self.count.value]
        return [(row.start, row.size, row.physical_address, row.rights, row.page_size) for row in rows]

    def all(self, begin: int = 0) -> list[Run]:
        found = self(begin)
        while self.next.value:
            found += self()
        return found


def scattered(mode: str, chance: random.Random) -> Tables:
    """Pages of all sizes in both halves, with and without neighbours, the last page of all among them."""
    tables = Tables(bytearray(END), mode, TABLES)
    sizes, top = tables.mode.page_sizes, (1 << 64 if tables.mode.high else 1 << 32)
    places = [0, *([tables.mode.high] if tables.mode.high else []), top - 128 * sizes[0]]
    for place in places:
        at = place
        for _ in range(chance.randint(20, 40)):
            rights = chance.choice((EVERYTHING, EVERYTHING, EVERYTHING & ~(KERNEL_WRITE | USER_WRITE)))
            tables.map(at, at % (1 << 30) + chance.choice((0, 0, 0, 1 << 29)), rights=rights)
            at += sizes[0] * chance.choice((1, 1, 1, 2))
    for number, size in enumerate(sizes[1:], 1):
        for index in range(3):
            tables.map((number * 4 + index) * sizes[-1] + index * size, (number + 4 + index) * size, size)
    tables.map(top - sizes[0], 5 * sizes[0])
    return tables


def expected(memory: bytes | bytearray, space: Space, begin: int = 0) -> list[Run]:
    return list(runs(leaves(memory_reader(memory), space, begin)))


@pytest.mark.parametrize("mode", MODES)
def test_all_that_is_mapped_is_told_in_every_mode(lib: Any, stubs: ModuleType, machine: Machine, mode: str) -> None:
    tables = scattered(mode, random.Random(mode))
    calls = Calls(lib, stubs, machine.open(tables.memory), tables.space)
    found = calls.all()
    assert found == expected(tables.memory, tables.space)
    assert (found[-1][0] + found[-1][1]) in (1 << 64, 1 << 32)


@pytest.mark.parametrize("capacity", [1, 2, 7])
@pytest.mark.parametrize("mode", ["x86-4", "aarch64-16k"])
def test_a_list_that_is_continued_has_neither_gaps_nor_repetitions(
    lib: Any, stubs: ModuleType, machine: Machine, mode: str, capacity: int
) -> None:
    tables = scattered(mode, random.Random(mode))
    calls = Calls(lib, stubs, machine.open(tables.memory), tables.space, capacity)
    assert calls.all() == expected(tables.memory, tables.space)


@pytest.fixture
def image(lib: Any, stubs: ModuleType, tmp_path: Path, opened: Callable[[str], int]) -> Callable[..., Calls]:
    """``image(tables, capacity)`` lays memory into a file and opens it."""

    def lay(tables: Tables, capacity: int = 4096, space: Space | None = None) -> Calls:
        (tmp_path / "memory.raw").write_bytes(tables.memory)
        context = opened(str(tmp_path / "memory.raw"))
        return Calls(lib, stubs, context, space or tables.space, capacity)

    return lay


@pytest.mark.parametrize("mode", MODES)
def test_a_range_goes_on_from_one_table_to_the_next(image: Callable[..., Calls], mode: str) -> None:
    tables = Tables(bytearray(2 * MIB), mode, 0x20000)
    page, border = tables.mode.page_sizes[0], 1 << tables.mode.shifts[1]
    rights = EVERYTHING & ~(KERNEL_WRITE | USER_WRITE)
    tables.map_range(border - 4 * page, 0x7000000, 9 * page, rights)
    assert image(tables, 1).all() == [(border - 4 * page, 9 * page, 0x7000000, rights, page)]


@pytest.mark.parametrize(
    "begin",
    [0x5000, 0x5001, 0x7FFF, 0x8000, 0x200000, 0x2FFFFF, 0x7FFFFFFFFFFF, 1 << 63, 0xFFFF_4000_0000_0001],
)
def test_a_list_begins_where_the_caller_wants(image: Callable[..., Calls], begin: int) -> None:
    tables = Tables(bytearray(MIB), "x86-4", 0x20000)
    tables.map_range(0x4000, 0x30000, 0x4000)
    tables.map(0x200000, 0x400000, 0x200000)
    tables.map(200 << 39, 0x9000)
    tables.map((1 << 64) - 0x1000, 0)
    whole = expected(tables.memory, tables.space)
    rest = [(start, size, *other) for start, size, *other in whole if start + size > begin]
    start, size, physical, *other = rest[0]
    before = max(begin - start, 0)
    rest[0] = (start + before, size - before, physical + before, *other)
    assert image(tables).all(begin) == rest


def test_the_last_page_of_all_can_be_where_to_go_on(image: Callable[..., Calls]) -> None:
    tables = Tables(bytearray(MIB), "x86-4", 0x20000)
    tables.map(0, 0)
    tables.map((1 << 64) - 0x1000, 0x3000)
    calls = image(tables, 1)
    assert calls() == [(0, 0x1000, 0, EVERYTHING, 0x1000)]
    assert calls.next.value == (1 << 64) - 0x1000
    assert calls() == [((1 << 64) - 0x1000, 0x1000, 0x3000, EVERYTHING, 0x1000)]
    assert calls.next.value == 0


def test_an_empty_list(image: Callable[..., Calls]) -> None:
    assert image(Tables(bytearray(MIB), "x86-4", 0x20000)).all() == []


def test_without_paging_all_addresses_are_mapped(image: Callable[..., Calls]) -> None:
    calls = image(Tables(bytearray(MIB), "x86-4", 0x20000), 1, Space(OFF, 0))
    assert calls.all() == [(0, 1 << 52, 0, EVERYTHING, 4096)]
    assert calls.all(0x1234) == [(0x1234, (1 << 52) - 0x1234, 0x1234, EVERYTHING, 4096)]
    assert calls.all(1 << 52) == []


@pytest.mark.parametrize("bit", [7, 23])
def test_a_half_whose_walks_are_switched_off_has_nothing(image: Callable[..., Calls], bit: int) -> None:
    tables = Tables(bytearray(MIB), "aarch64-4k", 0x20000)
    tables.map(0, 0x1000)
    tables.map(tables.mode.high, 0x2000)
    space = tables.space._replace(control=tables.space.control | 1 << bit)
    assert [run[2] for run in image(tables, 8, space).all()] == [0x2000 if bit == 7 else 0x1000]


def test_what_a_translation_would_refuse_is_not_mapped(image: Callable[..., Calls]) -> None:
    tables = Tables(bytearray(MIB), "x86-4", 0x20000, physical_bits=40)
    for number in range(6):
        tables.map(number << 39, 0x1000)
    tables.poke(1 << 39, 1, 1 << 41 | 7)  # the page has an address that no processor has
    tables.poke(2 << 39, 4, tables.peek(2 << 39, 4) | 0x80)  # a large page where none may be
    tables.poke(3 << 39, 3, 1 << 39 | 7)  # the next table is no memory
    tables.poke(4 << 39, 2, 0x400080 | 0x2000 | 7)
    assert image(tables).all() == [(number << 39, 0x1000, 0x1000, EVERYTHING, 0x1000) for number in (0, 5)]


def test_pages_whose_addresses_run_into_reserved_bits_end_there(image: Callable[..., Calls]) -> None:
    tables = Tables(bytearray(MIB), "x86-4", 0x20000, physical_bits=36)
    last = (1 << 36) - 0x1000
    tables.map(0, last - 0x1000)
    tables.map(0x1000, last)
    tables.poke(0x2000, 1, tables.peek(0x1000, 1) + 0x1000)
    tables.map(0x3000, 0x1000)
    assert image(tables).all() == [
        (0, 0x2000, last - 0x1000, EVERYTHING, 0x1000),
        (0x3000, 0x1000, 0x1000, EVERYTHING, 0x1000),
    ]


def test_pages_differ_in_what_their_rights_are_and_not_in_what_a_processor_notes(image: Callable[..., Calls]) -> None:
    tables = Tables(bytearray(MIB), "x86-4", 0x20000)
    tables.map_range(0, 0x10000, 0x8000)
    tables.poke(0x2000, 1, tables.peek(0x2000, 1) & ~0x60)
    tables.poke(0x3000, 1, tables.peek(0x3000, 1) | 0x600)
    tables.poke(0x5000, 1, tables.peek(0x5000, 1) & ~2)
    read_only = EVERYTHING & ~(KERNEL_WRITE | USER_WRITE)
    assert image(tables).all() == [
        (0, 0x5000, 0x10000, EVERYTHING, 0x1000),
        (0x5000, 0x1000, 0x15000, read_only, 0x1000),
        (0x6000, 0x2000, 0x16000, EVERYTHING, 0x1000),
    ]


# ------------------------------------------------------------------------------------------------ hostile tables


def test_a_table_that_is_named_everywhere_is_looked_at_once(image: Callable[..., Calls]) -> None:
    tables = Tables(bytearray(MIB), "x86-4", 0x20000)
    empty, directory, pointers = (tables.table() for _ in range(3))
    for at, below in ((directory, empty), (pointers, directory), (tables.base, pointers)):
        tables.memory[at : at + 4096] = table_entry(tables.mode, 2, below).to_bytes(8, "little") * 512
    calls = image(tables)
    assert calls() == []  # of 68,719,476,736 entries, in one call
    assert calls.next.value == 0


@pytest.mark.parametrize("rights", [0x67, 0x65, 0x61])
def test_a_table_that_is_named_again_is_told_with_the_rights_that_are_left(
    image: Callable[..., Calls], rights: int
) -> None:
    tables = Tables(bytearray(MIB), "x86-4", 0x20000)
    tables.map_range(0x4000, 0x10000, 0x3000)
    shared = tables.peek(0, 2) & ~0xFFF
    for number in range(1, 60):
        tables.poke(number << 21, 2, shared | (rights if number % 3 else 0x67))
    assert image(tables).all() == expected(tables.memory, tables.space)
    assert image(tables, 5).all() == expected(tables.memory, tables.space)


def test_a_table_of_tables_that_is_named_again(image: Callable[..., Calls]) -> None:
    tables, first = Tables(bytearray(MIB), "x86-4", 0x20000), 5 << 30
    tables.map_range(first + 0x1FE000, 0x10000, 0x3000)
    tables.map(first + 0x40000000 - 0x200000, 0x600000, 0x200000)
    for number in range(6, 40):
        tables.poke(number << 30, 3, tables.peek(first, 3))
    assert image(tables).all() == expected(tables.memory, tables.space)


@pytest.mark.parametrize("mode", ["x86-4", "x86-pae", "x86-32", "aarch64-4k"])
def test_a_table_that_names_itself_is_what_a_walker_sees(image: Callable[..., Calls], mode: str) -> None:
    tables = Tables(bytearray(2 * MIB), mode, 0x20000)
    tables.map_range(0, 0x10000, 3 * tables.mode.page_sizes[0])
    top = len(tables.mode.shifts)
    tables.poke(1 << tables.mode.shifts[-1], top, table_entry(tables.mode, top, tables.base))
    assert image(tables).all() == expected(tables.memory, tables.space)


def test_a_table_all_of_whose_entries_name_it_gives_as_many_ranges_as_one_likes(image: Callable[..., Calls]) -> None:
    tables = Tables(bytearray(MIB), "x86-4", 0x20000)
    tables.memory[tables.base : tables.base + 4096] = (tables.base | 7).to_bytes(8, "little") * 512
    calls = image(tables, 1000)
    pages = [page for _ in range(5) for page in calls()]
    assert pages == [(number << 12, 4096, tables.base, EVERYTHING, 4096) for number in range(5000)]
    assert calls((1 << 64) - 0x2000)[-1] == ((1 << 64) - 0x1000, 4096, tables.base, EVERYTHING, 4096)


LIMIT = 1 << 24


def test_a_call_ends_early_when_it_has_looked_at_so_many_entries(image: Callable[..., Calls]) -> None:
    tables = Tables(bytearray(150 * MIB), "x86-4", 0x1000)
    first, count = MIB, 36_000  # tables of nothing, each a different one
    for number in range(count):
        tables.poke(number << 21, 2, (first + number * 4096) | 7)
    last = (count << 21) - 0x1000
    tables.map(last, 0x5000)
    calls = image(tables)
    assert calls() == []
    assert LIMIT - 100_000 <= calls.next.value >> 12 <= LIMIT
    assert calls() == [(last, 0x1000, 0x5000, EVERYTHING, 0x1000)]
    assert calls.next.value == 0


def test_a_range_is_not_cut_where_a_call_ends_early_but_for_its_first(image: Callable[..., Calls]) -> None:
    tables = Tables(bytearray(150 * MIB), "x86-4", 0x1000)
    first, count = MIB, 36_000
    for number in range(count):
        tables.poke(number << 21, 2, (first + number * 4096) | 7)
    for number in range(32_000, count):  # a page on each side of each border between two tables
        tables.map((number << 21) - 0x1000, (number << 21) - 0x1000)
        tables.map(number << 21, number << 21)
    calls = image(tables, 8192)
    whole = [((number << 21) - 0x1000, 0x2000) for number in range(32_000, count)]
    assert [run[:2] for run in calls.all()] == whole
    assert [run[:2] for run in calls.all(whole[0][0])] == whole


# ------------------------------------------------------------------------------------------------ errors


def test_a_table_that_cannot_be_read_is_an_error(lib: Any, stubs: ModuleType, opened: Callable[[str], int]) -> None:
    tables = Tables(bytearray(END), "x86-4", TABLES)
    tables.map(0, 0)
    tables.map(1 << 30, 0)
    context = opened(f"vmi://fake/?size={END:#x}&pattern=zero&unreadable={TABLES + 0x5000:#x}-{TABLES + 0x6000:#x}")
    content = (c_uint8 * 0x5000).from_buffer_copy(tables.memory[TABLES : TABLES + 0x5000])
    assert lib.microvmi_write_physical(context, TABLES, content, len(content))
    calls = Calls(lib, stubs, context, tables.space)
    arguments = byref(calls.space), byref(calls.next), calls.ranges, len(calls.ranges), byref(calls.count)
    assert not lib.microvmi_get_virtual_map(context, *arguments)
    assert lib.microvmi_last_error_code() == IO
    assert (calls.next.value, calls.count.value) == (0, 77)


def test_what_is_wrong_with_a_call_is_told(lib: Any, stubs: ModuleType, opened: Callable[[str], int]) -> None:
    context = opened(f"vmi://fake/?size={END:#x}")
    calls = Calls(lib, stubs, context, Space(X86_4_LEVELS, 0))
    good = [context, byref(calls.space), byref(calls.next), calls.ranges, 1, byref(calls.count)]
    for place in range(1, 6):
        wrong = [*good[:place], 0 if place == 4 else None, *good[place + 1 :]]
        assert not lib.microvmi_get_virtual_map(*wrong)
        assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
    calls.space.paging = 99
    assert not lib.microvmi_get_virtual_map(*good)
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
    calls.space.paging = X86_4_LEVELS
    assert not lib.microvmi_get_virtual_map(12345, *good[1:])
    assert lib.microvmi_last_error_code() == INVALID_CONTEXT
    assert (calls.next.value, calls.count.value) == (0, 77)
