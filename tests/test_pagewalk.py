# SPDX-License-Identifier: Apache-2.0
"""The oracle of page tables itself: what the builder maps, the reference walker finds."""

from __future__ import annotations

import pagewalk
import pytest
from pagetables import MIB, MODES, Tables
from pagewalk import Failure, Leaf, leaves, memory_reader, runs, walk


@pytest.fixture(params=MODES)
def tables(request: pytest.FixtureRequest) -> Tables:
    return Tables(bytearray(4 * MIB), request.param, MIB)


def _places(tables: Tables) -> list[int]:
    top = 0 if not tables.mode.high else (1 << 64) - (4 << 30)
    return [0, 1 << 31, *([tables.mode.high, top] if top else [])]


def test_every_page_size_of_every_mode_is_found_in_both_halves(tables: Tables) -> None:
    read, expected = memory_reader(tables.memory), []
    for place in _places(tables):
        at = place
        for number, size in enumerate(tables.mode.page_sizes):
            at = -(-at // size) * size if number else at
            physical = (number + 3) * size
            tables.map(at, physical, size)
            expected.append((at, size, physical))
            at += size
    for at, size, physical in expected:
        for offset in (0, size - 1, size // 2 + 5):
            found = walk(read, tables.space, at + offset)
            assert (found.failure, found.physical, found.page_size) == (0, physical + offset, size)
    assert [(leaf.start, leaf.size, leaf.physical) for leaf in leaves(read, tables.space)] == expected


def test_what_is_not_mapped_says_at_which_level(tables: Tables) -> None:
    tables.map(0, 0)
    read, page = memory_reader(tables.memory), tables.mode.page_sizes[0]
    found = walk(read, tables.space, page)
    assert found == (Failure.NOT_PRESENT, None, page, 0, 1, 0, tables.entry_address(page, 1))


def test_a_table_outside_memory_is_told_by_the_entry_that_cannot_be_read(tables: Tables) -> None:
    count, far = len(tables.mode.shifts), 0x4000_0000
    tables.map(0, 0)
    tables.poke(0, count, tables.peek(0, count) & 0xFFF | far)
    found = walk(memory_reader(tables.memory), tables.space, 0)
    assert found == (Failure.TABLE_NOT_MEMORY, None, 1 << tables.mode.shifts[-2], 0, count - 1, 0, far)


def test_addresses_between_the_halves_are_not_canonical(tables: Tables) -> None:
    end = 1 << (tables.mode.virtual_bits - (tables.mode.paging in (pagewalk.X86_4_LEVELS, pagewalk.X86_5_LEVELS)))
    for address in (end, (tables.mode.high or 1 << 64) - 1):
        assert walk(memory_reader(tables.memory), tables.space, address).failure == Failure.NOT_CANONICAL


def test_neighbours_are_one_run() -> None:
    found = [Leaf(0, 4096, 8192, 1), Leaf(4096, 4096, 12288, 1), Leaf(8192, 4096, 16384, 3), Leaf(16384, 4096, 0, 3)]
    expected = [(0, 8192, 8192, 1, 4096), (8192, 4096, 16384, 3, 4096), (16384, 4096, 0, 3, 4096)]
    assert list(runs(iter(found))) == expected
