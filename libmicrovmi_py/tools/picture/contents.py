# SPDX-License-Identifier: Apache-2.0
"""What frames seem to hold. Looked at by C, as there are millions of them."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Sequence

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import PAGE_SIZE, Architecture, MemoryRange
from libmicrovmi_py.transport.native import native

MOST_CELLS = 1 << 24
"""Of so many cells a picture is made, at the most: 64 GiB frame by frame."""

_WINDOW = 64 << 20
"""So much memory is looked at between two reports, in bytes. A cell has no more."""

_PIECE = 1 << 20
"""So much is read at once, in bytes."""


class Content(enum.IntEnum):
    """What a frame seems to hold; the numbers from 1 on are those of ``_native/content.h``."""

    UNMAPPED = 0
    ZERO = 1
    DATA = 2
    TEXT = 3
    CODE = 4
    POINTERS = 5
    RANDOM = 6


class Owner(NamedTuple):
    """Whose ``size`` bytes from ``start`` on are, in words."""

    start: int
    size: int
    name: str

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.start + self.size


class Run(NamedTuple):
    """``length`` neighbouring cells from number ``first`` on that hold the same."""

    first: int
    length: int
    content: Content


class Picture(NamedTuple):
    """Memory from address 0 to ``size``: a :class:`Content` for each ``cell`` bytes, and what is known beside it."""

    cells: bytes
    cell: int
    size: int
    ranges: Sequence[MemoryRange]
    owners: Sequence[Owner] = ()

    def runs(self) -> Iterator[Run]:
        """All cells, in order."""
        return _runs(self.cells)

    def totals(self) -> dict[Content, int]:
        """Bytes that hold each; those that are there at all, the last cell as far as it goes."""
        counts = {content: self.cells.count(content) * self.cell for content in Content}
        if self.cells:
            counts[Content(self.cells[-1])] -= len(self.cells) * self.cell - self.size
        return {content: count for content, count in counts.items() if count}


def _runs(cells: bytes | bytearray) -> Iterator[Run]:
    for found in re.finditer(rb"(.)\1*", cells, re.DOTALL):
        yield Run(found.start(), found.end() - found.start(), Content(cells[found.start()]))


def look(machine: Microvmi, report: Callable[[int], None] = lambda done: None) -> Picture:
    """Look at all memory up to the maximum address; ``report`` is told how many bytes are done.

    Holes are not read. Raises what reading the machine raises.
    """
    size = machine.max_addr
    cell = PAGE_SIZE
    while -(-size // cell) > MOST_CELLS and cell < _WINDOW:
        cell *= 2
    ranges = [item for item in machine.memory_map() if item.start < size]
    cells = bytearray(-(-size // cell))
    look_at = _Looker(machine)
    for start in range(0, size, _WINDOW):
        end = min(start + _WINDOW, size)
        inside = [
            (max(item.start, start), min(item.end, end)) for item in ranges if item.start < end > start < item.end
        ]
        if inside:
            frames = look_at(start, end, inside)
            cells[start // cell : -(-end // cell)] = _grouped(frames, cell // PAGE_SIZE)
        report(end)
    return Picture(bytes(cells), cell, size, ranges)


class _Looker:
    """Has what it takes to look at a window: a buffer, and C's functions."""

    def __init__(self, machine: Microvmi) -> None:
        self._machine = machine
        self._find = machine.physical.find
        self._aarch64 = machine.driver.architecture is Architecture.AARCH64
        self._buffer = memoryview(bytearray(_PIECE))
        self._ffi, self._lib = native()

    def __call__(self, start: int, end: int, ranges: Sequence[tuple[int, int]]) -> bytearray:
        """A content for each frame of a window, of which ``ranges`` exist."""
        frames = bytearray(-(-(end - start) // PAGE_SIZE))
        for first, last in ranges:
            begin, until = (first - start) // PAGE_SIZE, -(-(last - start) // PAGE_SIZE)
            frames[begin:until] = bytes([Content.ZERO]) * (until - begin)
            self._range(start, first // PAGE_SIZE * PAGE_SIZE, last, memoryview(frames))
        return frames

    def _range(self, start: int, at: int, end: int, frames: memoryview) -> None:
        """Look at what is no hole."""
        while at < end and (at := max(self._find(at, False) // PAGE_SIZE * PAGE_SIZE, at)) < end:
            size = -(-(min(at + _PIECE, end) - at) // PAGE_SIZE) * PAGE_SIZE
            self._machine.read_physical_padded_into(at, self._buffer[:size])
            index, count = (at - start) // PAGE_SIZE, size // PAGE_SIZE
            told = self._ffi.from_buffer(frames[index : index + count])
            self._lib.mvi_contents(self._ffi.from_buffer(self._buffer), count, self._aarch64, told)
            at += size


def _grouped(frames: bytearray, group: int) -> bytes | bytearray:
    """One content for each ``group`` frames: what most of them hold that hold something, if one does."""
    cells = frames[::group]
    mixed = {run.first // group for run in _runs(frames) if run.first % group}
    for cell in mixed:
        part = frames[cell * group : (cell + 1) * group]
        counts = {content: part.count(content) for content in Content if content > Content.ZERO}
        most = max(counts, key=lambda content: counts[content])
        cells[cell] = most if counts[most] else max(part)
    return cells
