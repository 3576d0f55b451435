# SPDX-License-Identifier: Apache-2.0
"""Private memory of a process, parts of which it never touched: every read is right, and what is not there is found."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
from collections.abc import Sequence

import pytest

from libmicrovmi_py.drivers.base import Region
from libmicrovmi_py.memory.direct import DirectMemory
from libmicrovmi_py.model import PAGE_SIZE, MemoryKind
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import ProcessMemory

CHUNK = 64 << 10
SIZE = 40 * CHUNK
SHIFT = 3 * PAGE_SIZE
"""The region begins in the middle of what the kernel keeps together."""

PATTERNS = {
    "nothing": [],
    "everything": range(SIZE // PAGE_SIZE),
    "a page in the first and one in the last chunk": [15, SIZE // PAGE_SIZE - 1],
    "every other chunk": [page for page in range(SIZE // PAGE_SIZE) if page // 16 % 2],
    "five chunks in a row": range(5 * 16, 10 * 16),
    "some": sorted(random.Random(1).sample(range(SIZE // PAGE_SIZE), 30)),
}


class Machine:
    """A machine whose memory is an anonymous mapping of this process, of which only some pages were touched."""

    def __init__(self, pages: Sequence[int]) -> None:
        self.area = mmap.mmap(-1, SIZE + 2 * CHUNK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.area.madvise(mmap.MADV_NOHUGEPAGE)
        self.content = bytearray(SIZE)
        for page in pages:
            self.touch(page)
        process = Process.find(os.getpid())
        assert process is not None
        self.memory = ProcessMemory(process)
        host = ctypes.addressof(ctypes.c_char.from_buffer(self.area)) + SHIFT
        self._regions = (Region(0, SIZE, MemoryKind.RAM, self.memory.anonymous(), host),)
        self.max_addr = SIZE

    def touch(self, page: int) -> None:
        start = page * PAGE_SIZE
        self.content[start : start + PAGE_SIZE] = random.Random(page).randbytes(PAGE_SIZE)
        self.area[SHIFT + start : SHIFT + start + PAGE_SIZE] = self.content[start : start + PAGE_SIZE]

    def regions(self) -> Sequence[Region]:
        return self._regions

    def data_in(self, chunk: int) -> bool:
        return any(self.content[chunk * CHUNK : (chunk + 1) * CHUNK])


def check_some_reads(machine: Machine, direct: DirectMemory, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        address = chance.choice((chance.randrange(SIZE), chance.randrange(40) * CHUNK))
        size = min(chance.choice((CHUNK, CHUNK + 1, chance.randint(1, 9 * CHUNK))), SIZE - address)
        buffer = bytearray(b"\xee" * size)
        assert direct.read_into(address, memoryview(buffer)) == size
        assert buffer == machine.content[address : address + size], (address, size)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_reads_of_any_size_are_right(pattern: str) -> None:
    machine = Machine(PATTERNS[pattern])
    check_some_reads(machine, DirectMemory(machine), 2)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_untouched_chunks_are_found_as_holes(pattern: str) -> None:
    machine = Machine(PATTERNS[pattern])
    direct = DirectMemory(machine)
    for start in range(40):
        for hole in (False, True):
            expected = next((chunk for chunk in range(start, 40) if machine.data_in(chunk) is not hole), 40)
            assert direct.find(start * CHUNK, hole) == expected * CHUNK, (start, hole)


def test_what_is_touched_later_is_read() -> None:
    machine = Machine([])
    direct = DirectMemory(machine)
    chance = random.Random(3)
    for round_ in range(10):
        check_some_reads(machine, direct, round_)
        machine.touch(chance.randrange(SIZE // PAGE_SIZE))
    assert direct.find(0, False) < SIZE


def test_what_is_given_back_is_zero() -> None:
    machine = Machine(PATTERNS["everything"])
    direct = DirectMemory(machine)
    check_some_reads(machine, direct, 4)
    machine.area.madvise(mmap.MADV_DONTNEED, 0, 20 * CHUNK)
    machine.content[: 20 * CHUNK - SHIFT] = bytes(20 * CHUNK - SHIFT)
    check_some_reads(machine, direct, 5)
