# SPDX-License-Identifier: Apache-2.0
"""Pieces of memory that lie in a file: their order, what overlaps, and what kind of memory they are."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from libmicrovmi_py.model import MemoryKind, MemoryRange

_MIB, _4_GIB = 1 << 20, 1 << 32


class Piece(NamedTuple):
    """``size`` bytes from address ``start`` are those of the file from ``offset`` on."""

    start: int
    size: int
    offset: int

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.start + self.size


def laid_out(pieces: Iterable[Piece]) -> list[Piece]:
    """The same memory sorted, without overlaps, neighbours joined; where pieces overlap the first one given holds."""
    given = [piece for piece in pieces if piece.size]
    ordered = sorted(given)
    if any(one.end > other.start for one, other in pairwise(ordered)):
        return joined(_swept(given))
    return joined(ordered)


def _swept(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Go over the addresses; at each, the first of the pieces that are there holds."""
    waiting = sorted(enumerate(pieces), key=lambda item: item[1].start, reverse=True)
    present: list[tuple[int, Piece]] = []
    position = 0
    while waiting or present:
        if not present:
            position = max(position, waiting[-1][1].start)
        while waiting and waiting[-1][1].start <= position:
            heapq.heappush(present, waiting.pop())
        while present and present[0][1].end <= position:
            heapq.heappop(present)
        if present:
            first = present[0][1]
            until = min(first.end, waiting[-1][1].start) if waiting else first.end
            yield Piece(position, until - position, first.offset + position - first.start)
            position = until


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Neighbours that are neighbours in the file as well become one."""
    result: list[Piece] = []
    for piece in pieces:
        if result and result[-1].end == piece.start and result[-1].offset + result[-1].size == piece.offset:
            last = result.pop()
            piece = Piece(last.start, last.size + piece.size, last.offset)
        result.append(piece)
    return result


class Kinds:
    """What kind of memory a hypervisor's dump has where; such dumps hold the memory of devices as well.

    On a PC main memory goes on from 1 MiB to its end below 4 GiB without a hole. What lies between there and 4 GiB
    belongs to devices, and is the firmware where it ends at 4 GiB.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        """``ranges`` are all (start, end) of the dump, sorted."""
        self._low_end = _MIB
        for start, end in ranges:
            if start <= self._low_end < end:
                self._low_end = end

    def of(self, start: int, end: int) -> list[MemoryRange]:
        """One of the ranges with its kind; in two where main memory begins at 4 GiB, right behind the firmware."""
        if self._low_end == _MIB or start < self._low_end or start >= _4_GIB:
            return [MemoryRange(start, end - start, MemoryKind.RAM)]
        edge = min(end, _4_GIB)
        kind = MemoryKind.ROM if edge == _4_GIB else MemoryKind.DEVICE
        return [MemoryRange(start, edge - start, kind)] + ([MemoryRange(edge, end - edge)] if end > edge else [])
