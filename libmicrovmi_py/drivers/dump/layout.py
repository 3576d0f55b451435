# SPDX-License-Identifier: Apache-2.0
"""Extents of memory that lie in a file: their order, and what overlaps."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from libmicrovmi_py.declare import NamedTuple

Span = tuple[int, int]
"""(first, one past the last) address."""


class Extent(NamedTuple):
    """``size`` bytes from address ``start`` are those of the file from ``offset`` on."""

    start: int
    size: int
    offset: int

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.start + self.size


def laid_out(extents: Iterable[Extent]) -> list[Extent]:
    """The same memory sorted, without overlaps, neighbours joined; where extents overlap the first one given holds."""
    given = [extent for extent in extents if extent.size]
    ordered = sorted(given)
    if any(one.end > other.start for one, other in pairwise(ordered)):
        return joined(_swept(given))
    return joined(ordered)


def _swept(extents: Sequence[Extent]) -> Iterator[Extent]:
    """The same memory without overlaps: at each address the first of the extents that are there holds."""
    waiting = sorted(enumerate(extents), key=lambda item: item[1].start, reverse=True)
    present: list[tuple[int, Extent]] = []
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
            yield Extent(position, until - position, first.offset + position - first.start)
            position = until


def joined(extents: Iterable[Extent]) -> list[Extent]:
    """Join extents that follow each other both in memory and in the file."""
    result: list[Extent] = []
    for extent in extents:
        if result and result[-1].end == extent.start and result[-1].offset + result[-1].size == extent.offset:
            last = result.pop()
            extent = Extent(last.start, last.size + extent.size, last.offset)
        result.append(extent)
    return result


def once(extents: Iterable[Extent]) -> list[Extent]:
    """The same memory sorted, neighbours joined. Raises ``ValueError`` for memory that is there twice."""
    ordered = sorted(extent for extent in extents if extent.size)
    for one, other in pairwise(ordered):
        if one.end > other.start:
            raise ValueError(f"memory at {other.start:#x} is there twice")
    return joined(ordered)
