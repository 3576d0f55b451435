# SPDX-License-Identifier: Apache-2.0
"""Pieces of memory that lie in a file: their order, and what overlaps."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

Span = tuple[int, int]
"""(first, one past the last) address."""


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
