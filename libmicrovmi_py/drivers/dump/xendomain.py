# SPDX-License-Identifier: Apache-2.0
"""What the files of Xen have in common: runs of frames in a list of numbers, and which memory is a device's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.dump.layout import Span
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.saved.xenmemory import DEVICES, FOUR_GIB, kind_of
from libmicrovmi_py.model import PAGE_SHIFT, MemoryRange, end_of_ram

if TYPE_CHECKING:
    from array import array

INVALID = (1 << 64) - 1
"""What stands for a frame that the domain has not."""


class DomainKinds:
    """The kinds of memory of an HVM or PVH domain, as Xen lays it out: the driver of Xen says the same."""

    def __init__(self, exists: Iterable[Span]) -> None:
        self.end_of_ram = end_of_ram(part for start, end in exists for part in self.of(start, end))

    def of(self, start: int, end: int) -> Iterator[MemoryRange]:
        """The range, cut where its kind changes."""
        edges = [start, *(edge << PAGE_SHIFT for edge in (DEVICES, FOUR_GIB) if start < edge << PAGE_SHIFT < end), end]
        for first, last in pairwise(edges):
            yield MemoryRange(first, last - first, kind_of(first >> PAGE_SHIFT))


def runs(numbers: array[int]) -> Iterator[tuple[int, int, int]]:
    """(index, number, count) of each run of numbers that go up by one; ``INVALID`` is in none.

    Runs are looked for by halves, as lists of 2^24 numbers have few of them.
    """
    index = 0
    while index < len(numbers):
        count = _length(numbers, index)
        if numbers[index] != INVALID:
            yield index, numbers[index], count
        index += count


def _length(numbers: array[int], index: int) -> int:
    """How many numbers from ``index`` on go up by one: a power of 2 at most, so that a wrong guess costs little."""
    first, count = numbers[index], 1
    while index + 2 * count <= len(numbers) and _go_up(numbers, index + count, first + count, count):
        count *= 2
    return count


def _go_up(numbers: array[int], index: int, first: int, count: int) -> bool:
    """Whether ``count`` numbers from ``index`` on are ``first`` and those behind it."""
    if numbers[index] != first or numbers[index + count - 1] != first + count - 1:
        return False
    return first + count <= INVALID and numbers[index : index + count] == words("Q", range(first, first + count))
