# SPDX-License-Identifier: Apache-2.0
"""What reads through the Python classes cost, beside what Python itself needs for the same bytes.

classes.py PACKAGE URI RAM_FILE SECONDS START END
    prints pairs (see bench.h), in ns per call, seconds for all of them
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import os
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pairs

PAGE = 4096
MIB = 1 << 20
BATCH = 256


class Way(NamedTuple):
    """Two ways to read ``size`` bytes at each of some addresses that lie one behind the other, ``calls`` of them.

    Each gives what it read last: bytes, or a list of them.
    """

    name: str
    size: int
    calls: int
    ours: Callable[[range], Any]
    partner: Callable[[range], Any]


class Reads:
    """The machine, its memory's file and a mapping of that."""

    def __init__(self, machine: Any, ram: str, end: int) -> None:
        self._machine, self._memory = machine, machine.memory
        self._file = os.open(ram, os.O_RDONLY | os.O_CLOEXEC)
        self._mapping = mmap.mmap(self._file, end, mmap.MAP_PRIVATE)
        self._origin = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))
        self._pages = [bytearray(PAGE) for _ in range(BATCH)]

    def ways(self, start: int, end: int) -> Iterator[Way]:
        """All that is compared."""
        yield self._readinto("readinto of 1 MiB", MIB, 8)
        yield self._readinto("readinto of 4 KiB", PAGE, 256)
        yield Way("read of 1 MiB", MIB, 4, self._read, self._pread)
        yield Way("read_physical of 1 MiB", MIB, 4, self._read_physical, self._pread)
        yield Way("seek and read of 8 B", 8, 256, self._read_words, self._read_words_of_file)
        places = [random.randrange(start, end, PAGE) for _ in range(BATCH)]
        yield Way("256 pages", PAGE, 1, lambda _: self._batch(places), lambda _: self._slices(places))

    def _readinto(self, name: str, size: int, calls: int) -> Way:
        buffer = bytearray(size)
        target = (ctypes.c_char * size).from_buffer(buffer)

        def ours(addresses: range) -> bytearray:
            readinto = self._memory.readinto
            for _ in addresses:
                readinto(buffer)
            return buffer

        def partner(addresses: range) -> bytearray:
            first, memmove = self._origin, ctypes.memmove
            for address in addresses:
                memmove(target, first + address, size)
            return buffer

        return Way(name, size, calls, ours, partner)

    def seek(self, address: int) -> None:
        """Where a read without an address begins."""
        self._memory.seek(address)

    def _read(self, addresses: range) -> bytes:
        content = b""
        for _ in addresses:
            content = self._memory.read(MIB)
        return content

    def _read_physical(self, addresses: range) -> bytes:
        content = b""
        for address in addresses:
            content = self._machine.read_physical(address, MIB)
        return content

    def _pread(self, addresses: range) -> bytes:
        content = b""
        for address in addresses:
            content = os.pread(self._file, MIB, address)
        return content

    def _read_words(self, addresses: range) -> bytes:
        content, seek, read = b"", self._memory.seek, self._memory.read
        for address in addresses:
            seek(address)
            content = read(8)
        return content

    def _read_words_of_file(self, addresses: range) -> bytes:
        content, file, seek, read = b"", self._file, os.lseek, os.read
        for address in addresses:
            seek(file, address, 0)
            content = read(file, 8)
        return content

    def _batch(self, places: list[int]) -> list[bytearray]:
        self._machine.read_physical_batch(list(zip(places, self._pages, strict=True)))
        return self._pages

    def _slices(self, places: list[int]) -> list[bytes]:
        mapping = self._mapping
        return [mapping[at : at + PAGE] for at in places]

    def touch(self, start: int, end: int) -> None:
        """Read everything once by both ways, so that neither pays for the first look at a page."""
        self._memory.seek(start)
        buffer = bytearray(MIB)
        for address in range(start, end - MIB + 1, MIB):
            self._memory.readinto(buffer)
            buffer[:] = memoryview(self._mapping)[address : address + MIB]


def check(reads: Reads, way: Way, start: int) -> None:
    """Compare what both read."""
    addresses = range(start, start + way.size * way.calls, way.size)
    reads.seek(start)
    found = []
    for read in (way.ours, way.partner):
        content = read(addresses)
        found.append([bytes(part) for part in content] if isinstance(content, list) else bytes(content))
    if found[0] != found[1]:
        sys.exit(f"{way.name} does not read what is there")


def compare(reads: Reads, way: Way, seconds: float, start: int, end: int) -> None:
    """Take turns; every sample is of another stretch of memory."""
    stretch = way.size * way.calls

    def sample(read: Callable[[range], Any]) -> float:
        begin = random.randrange(start, end - stretch, PAGE)
        reads.seek(begin)
        addresses = range(begin, begin + stretch, way.size)
        return pairs.timed(lambda: read(addresses))

    samples = pairs.take_turns(lambda: sample(way.ours), lambda: sample(way.partner), seconds)
    pairs.print_pair(f"Python {way.name}", samples, way.calls)


def main(package: str, uri: str, ram: str, *numbers: str) -> None:
    sys.path.insert(0, package)
    microvmi = importlib.import_module("libmicrovmi_py")
    seconds, start, end = float(numbers[0]), int(numbers[1]), int(numbers[2])
    with microvmi.Microvmi.open(uri) as machine:
        reads = Reads(machine, ram, end)
        reads.touch(start, end)
        ways = list(reads.ways(start, end))
        for way in ways:
            check(reads, way, start + MIB)
            compare(reads, way, seconds / len(ways), start, end)


if __name__ == "__main__":
    main(*sys.argv[1:])
