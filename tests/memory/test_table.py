# SPDX-License-Identifier: Apache-2.0
"""The table of regions against a plain model of it: any layout, any address of 64 bits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from libmicrovmi_py.drivers.base import Region
from libmicrovmi_py.errors import NotMappedError
from libmicrovmi_py.memory.direct import DirectMemory
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.transport.reach import Reach

TOP = 1 << 64
SHIFT = 3
"""The bytes of a source before those of its region."""


@dataclass(frozen=True)
class Bytes:
    """A source over bytes, writable from the start."""

    content: bytearray

    def reach(self) -> Reach:
        view = memoryview(self.content)
        return Reach(view=view, writable=view)

    def open_for_writing(self) -> None:
        pass


class Layout:
    """Regions as a driver tells them, and the same bytes by address."""

    max_addr = TOP - 1

    def __init__(self, ranges: Sequence[tuple[int, int]], chance: random.Random) -> None:
        self.bytes: dict[int, int] = {}
        self._regions = tuple(self._region(start, size, chance) for start, size in ranges)

    def _region(self, start: int, size: int, chance: random.Random) -> Region:
        content = bytearray(chance.randbytes(SHIFT + size))
        self.bytes.update((start + index, content[SHIFT + index]) for index in range(size))
        return Region(start, size, MemoryKind.RAM, Bytes(content), SHIFT)

    def regions(self) -> Sequence[Region]:
        return self._regions

    def prefix(self, address: int, size: int) -> bytes:
        """The bytes up to the first that does not exist."""
        found = bytearray()
        while len(found) < size and address + len(found) in self.bytes:
            found.append(self.bytes[address + len(found)])
        return bytes(found)

    def padded(self, address: int, size: int) -> bytes:
        return bytes(self.bytes.get(address + index, 0) for index in range(size))


def random_ranges(chance: random.Random) -> list[tuple[int, int]]:
    """Up to 40 regions from somewhere on: adjacent ones, small gaps, gaps of most of the space, one byte each."""
    ranges, start = [], chance.choice((0, 0, 1, 5000, TOP - 3000))
    for _ in range(chance.randint(0, 40)):
        size = chance.choice((1, 1, 2, 8, 64, 300))
        if start + size > TOP:
            break
        ranges.append((start, size))
        start += size + chance.choice((0, 0, 1, 7, 100, 1 << 20, 1 << 61))
    return ranges


def at_the_top(chance: random.Random) -> list[tuple[int, int]]:
    """Regions of which the last one ends with the address space."""
    ranges, end = [], TOP
    for _ in range(chance.randint(1, 20)):
        size = chance.choice((1, 2, 16, 200))
        ranges.append((end - size, size))
        end -= size + chance.choice((0, 1, 50))
    return ranges[::-1]


LAYOUTS = {
    "none": lambda _: [],
    "one byte at 0": lambda _: [(0, 1)],
    "one byte at the top": lambda _: [(TOP - 1, 1)],
    "both": lambda _: [(0, 1), (TOP - 1, 1)],
    "adjacent bytes": lambda _: [(number, 1) for number in range(100)],
    "every other byte": lambda _: [(2 * number, 1) for number in range(100)],
    **{f"random {number}": random_ranges for number in range(25)},
    **{f"top {number}": at_the_top for number in range(10)},
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    chance = random.Random(request.param)
    return Layout(LAYOUTS[request.param](chance), chance)


def some_range(layout: Layout, chance: random.Random) -> tuple[int, int]:
    """Around the edges of regions and of the space."""
    edges = [0, TOP - 1, *(edge for region in layout.regions() for edge in (region.start, region.end))]
    address = chance.choice(edges) + chance.randint(-20, 20)
    return min(max(address, 0), TOP - 1), chance.choice((0, 1, 4, 8, chance.randint(0, 400)))


def test_reads_agree_with_the_model(layout: Layout) -> None:
    memory, chance = DirectMemory(layout), random.Random(1)
    for _ in range(400):
        address, size = some_range(layout, chance)
        buffer = bytearray(b"\xee") * size
        done = memory.read_into(address, memoryview(buffer))
        assert bytes(buffer[:done]) == layout.prefix(address, size), (address, size)
        assert buffer[done:] == b"\xee" * (size - done)
        memory.read_padded_into(address, memoryview(buffer))
        assert bytes(buffer) == layout.padded(address, size), (address, size)


def test_a_batch_agrees_with_the_model(layout: Layout) -> None:
    chance = random.Random(2)
    ranges = [some_range(layout, chance) for _ in range(300)]
    buffers = [bytearray(size) for _, size in ranges]
    results = DirectMemory(layout).read_batch(
        [(address, memoryview(buffer)) for (address, _), buffer in zip(ranges, buffers, strict=True)]
    )
    for (address, size), buffer, (done, error) in zip(ranges, buffers, results, strict=True):
        assert bytes(buffer[:done]) == layout.prefix(address, size)
        assert (error is None) == (done == size)


def test_writes_change_all_or_nothing(layout: Layout) -> None:
    memory, chance = DirectMemory(layout), random.Random(3)
    for _ in range(200):
        address, size = some_range(layout, chance)
        data = chance.randbytes(size)
        if len(layout.prefix(address, size)) == size:
            memory.write_from(address, memoryview(data))
            layout.bytes.update((address + index, byte) for index, byte in enumerate(data))
        else:
            with pytest.raises(NotMappedError, match="no memory at"):
                memory.write_from(address, memoryview(data))
        start = max(address - 30, 0)
        around = bytearray(min(size + 60, TOP - start))
        memory.read_padded_into(start, memoryview(around))
        assert bytes(around) == layout.padded(start, len(around))


def test_the_search_for_memory_agrees_with_the_model(layout: Layout) -> None:
    memory, chance = DirectMemory(layout), random.Random(4)
    for _ in range(200):
        address = min(some_range(layout, chance)[0], layout.max_addr)
        later = [known for known in layout.bytes if address <= known < layout.max_addr]
        assert memory.find(address, hole=False) == min(later, default=layout.max_addr)
        while address in layout.bytes and address < layout.max_addr:
            address += 1
        assert memory.find(address, hole=True) == address
