# SPDX-License-Identifier: Apache-2.0
"""Page tables in a target's memory: laid there by the stand where memory cannot be written, else by the test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contract.truth import PAGE, Truth
from pagetables import MIB, Tables
from pagewalk import KERNEL_READ, KERNEL_WRITE, USER_READ, Space, Walked, walk

PAGES = 12
"""What the tables take, a few pages behind the begin of the lowest piece that has room."""

KERNEL = 0xFFFF_8880_0000_0000
"""A page each, one after the other: memory from everywhere, two things that are missing among it."""
RESERVED, LARGE, NO_TABLE = KERNEL + 2 * MIB, KERNEL + 4 * MIB, KERNEL + 6 * MIB
"""An entry with reserved bits; the first 2 MiB of memory as a large page; a table that is no memory."""
ITSELF = 0xFFFF_9000_0000_0000
"""The tables, through an entry of the highest one that leads to itself."""
USER = 0x40_0000
"""One page of a program."""


@dataclass(frozen=True)
class Laid:
    """Tables that map a target's memory, and the memory with them. ``pages`` is how many pages from KERNEL on count."""

    start: int
    content: bytes
    space: Space
    memory: Truth
    pages: int

    @classmethod
    def of(cls, pieces: Mapping[int, bytes]) -> Laid:
        """What to lay into these pieces, which may have it already."""
        truth = Truth.of(pieces)
        begin = next(first for first, end in truth.ranges if end // PAGE - -(-first // PAGE) >= PAGES + 8)
        start = (-(-begin // PAGE) + 4) * PAGE
        memory = bytearray(start + PAGES * PAGE)
        tables = Tables(memory, "x86-4", start)
        pages = _map(tables, truth)
        content = bytes(memory[start : start + PAGES * PAGE])
        return cls(start, content, tables.space, Truth.of(_with(pieces, start, content)), pages)

    def read(self, address: int, size: int) -> bytes | None:
        """Physical memory, for the reference walker."""
        found = self.memory.valid(address, size)
        return found if len(found) == size else None

    def walk(self, address: int) -> Walked:
        """What the reference walker finds."""
        return walk(self.read, self.space, address)

    def valid(self, address: int, size: int) -> bytes:
        """The valid prefix of a virtual read."""
        found, end = b"", address + size
        while address < min(end, 1 << 64) and (physical := self.walk(address).physical) is not None:
            part = min(PAGE - address % PAGE, end - address)
            there = self.memory.valid(physical, part)
            found += there
            if len(there) < part:
                break
            address += part
        return found

    def padded(self, address: int, size: int) -> bytes:
        """The same with zeros where nothing is."""
        found, end = b"", address + size
        while address < min(end, 1 << 64):
            part, physical = min(PAGE - address % PAGE, end - address), self.walk(address).physical
            found += bytes(part) if physical is None else self.memory.padded(physical, part)
            address += part
        return found + bytes(size - len(found))

    def edges(self) -> list[int]:
        """Addresses at which something changes."""
        found = [KERNEL + index * PAGE for index in range(self.pages + 1)]
        found += [RESERVED, LARGE, LARGE + self.start, NO_TABLE, ITSELF, USER, USER + PAGE]
        return [*found, *(LARGE + edge for edge in self.memory.edges() if edge < 2 * MIB)]


def laid(pieces: Mapping[int, bytes]) -> dict[int, bytes]:
    """The pieces with the tables in them, for a stand whose memory cannot be written."""
    made = Laid.of(pieces)
    return _with(pieces, made.start, made.content)


def _with(pieces: Mapping[int, bytes], start: int, content: bytes) -> dict[int, bytes]:
    """Lay bytes over what pieces hold, which may be several beside each other."""
    found = {}
    for first, old in pieces.items():
        begin, end = max(start, first), min(start + len(content), first + len(old))
        if begin < end:
            old = old[: begin - first] + content[begin - start : end - start] + old[end - first :]
        found[first] = old
    return found


def _map(tables: Tables, truth: Truth) -> int:
    frames = [first for first in truth.frames() if first + PAGE in truth.frames()]
    chosen = [frames[0], frames[0] + PAGE, frames[-1], frames[len(frames) // 2], frames[0]]
    missing = truth.holes[-1][0] // PAGE * PAGE + PAGE if truth.holes else 1 << 40
    places: list[int | None] = [*chosen, None, *chosen[::-1], missing, *chosen[1:4]]
    for index, place in enumerate(places):
        if place is not None:
            tables.map(KERNEL + index * PAGE, place)
    tables.poke(RESERVED, 2, 0x2000 | 0xE7)
    tables.map(LARGE, 0, 2 * MIB, KERNEL_READ | KERNEL_WRITE)
    tables.poke(NO_TABLE, 2, missing | 0x67)
    tables.poke(ITSELF, 4, tables.base | 0x63)
    tables.map(USER, chosen[0], rights=KERNEL_READ | USER_READ)
    return len(places)
