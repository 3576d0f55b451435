# SPDX-License-Identifier: Apache-2.0
"""What kind of memory a hypervisor's dump has where: such dumps hold the memory of devices and the firmware as well."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence

from libmicrovmi_py.declare import Protocol
from libmicrovmi_py.drivers.dump.firmware import Read, mirrored, told
from libmicrovmi_py.drivers.dump.layout import Span
from libmicrovmi_py.model import PHYSICAL_BITS, MemoryKind, MemoryRange

_MIB, _GIB, _4_GIB = 1 << 20, 1 << 30, 1 << 32
_VIDEO = (0xA0000, 0xC0000)
_HIGHEST_LOW_END = 0xE0000000
"""Where main memory below 4 GiB ends at the latest, unless it is seen to go on: behind it is room for devices."""
_APIC = 0xFEE00000
"""An address that is no memory on any PC."""
_LOW_FIRMWARE = 128 << 10
"""So much of the firmware's end is seen once more below 1 MiB."""


class AllKinds(Protocol):
    """The kinds of memory in a dump."""

    @property
    def end_of_ram(self) -> int:
        """One past the last byte of main memory that the dump knows of, also if it was left out. 0 without any."""

    def of(self, start: int, end: int) -> Iterable[MemoryRange]:
        """A range of the dump, part by part, each with its kind."""


class OnlyRam:
    """All of it is main memory."""

    def __init__(self, exists: Iterable[Span]) -> None:
        """``exists`` is all memory that the dump knows of."""
        self.end_of_ram = max((end for _, end in exists), default=0)

    def of(self, start: int, end: int) -> Iterable[MemoryRange]:
        """The range."""
        return (MemoryRange(start, end - start),)


class Kinds:
    """The kinds of memory in a PC's dump.

    Main memory goes on from 1 MiB to its end below 4 GiB, and from 4 GiB on. In a whole dump its end is where the first
    hole is; where pages were left out, a hole tells nothing. What the firmware told the guest is better than both, as
    long as it agrees with what is there. Everything else belongs to devices, and is the firmware if it ends at 4 GiB.
    """

    def __init__(self, exists: Iterable[Span], *, whole: bool, read: Read) -> None:
        """``exists`` is all memory that the dump knows of; ``whole`` is whether nothing was left out of it."""
        spans = joined(exists)
        low = end_of_run(spans, _MIB)
        whole = whole and low > _MIB and _covers(spans, 0, _VIDEO[0])
        asked = told(read) if not whole or spans[-1][1] > _4_GIB else ()
        main = _agreed(asked, low, whole)
        if main and not whole:
            spans = joined([*spans, main[0]])
        main = main or (_seen(spans, low) if whole else _possible(low))
        self._firmware_at = next((start for start, end in spans if low <= start < _4_GIB <= end), _4_GIB)
        writable = _firmware_below_1_mib(spans, _4_GIB - self._firmware_at, read) if whole else 0
        self._firmware = MemoryKind.DEVICE if writable else MemoryKind.ROM
        self._main = list(_without(main, _MIB - writable, _MIB))
        self._edges = sorted({edge for span in self._main for edge in span} | {_4_GIB})
        self.end_of_ram = _last(spans, self._main)

    def of(self, start: int, end: int) -> Iterator[MemoryRange]:
        """The range, cut where its kind changes."""
        inner = self._edges[bisect.bisect_right(self._edges, start) : bisect.bisect_left(self._edges, end)]
        for first, last in zip([start, *inner], [*inner, end], strict=True):
            yield MemoryRange(first, last - first, self._kind(first, last))

    def _kind(self, first: int, last: int) -> MemoryKind:
        if any(start <= first < end for start, end in self._main):
            return MemoryKind.RAM
        return self._firmware if self._firmware_at <= first < _4_GIB else MemoryKind.DEVICE


def _agreed(told: Sequence[Span], low: int, whole: bool) -> list[Span]:
    """What the firmware told, if that agrees with the end of main memory that is seen; else nothing."""
    if not told:
        return []
    spans = joined([(0, _MIB), *told])
    end = spans[0][1]
    return spans if (end == low if whole else low <= end <= _4_GIB) else []


def _seen(spans: Sequence[Span], low: int) -> list[Span]:
    """Main memory of a whole dump; memory that was plugged in begins at the next GiB."""
    high = end_of_run(spans, _4_GIB)
    plugged = end_of_run(spans, -(-high // _GIB) * _GIB)
    return joined([(0, low), (_4_GIB, max(high, plugged) if high > _4_GIB else high)])


def _possible(low: int) -> list[Span]:
    """Where main memory may be in a dump of which pages were left out."""
    return joined([(0, max(low, _HIGHEST_LOW_END)), (_4_GIB, 1 << PHYSICAL_BITS)])


def _firmware_below_1_mib(spans: Sequence[Span], size: int, read: Read) -> int:
    """How many bytes below 1 MiB are the firmware's, on a machine without a chip set that could put RAM in their place.

    Such a machine (microvm) has no room for video memory either, nor is its firmware read-only.
    """
    size = min(size, _LOW_FIRMWARE)
    return size if size and _covers(spans, *_VIDEO) and mirrored(read, size) else 0


def _last(spans: Sequence[Span], main: Sequence[Span]) -> int:
    """One past the last address that both lists of spans contain."""
    for first, last in reversed(main):
        ends = [min(end, last) for start, end in spans if start < last and end > first]
        if ends:
            return ends[-1]
    return 0


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same addresses, sorted, in as few spans as possible."""
    result: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if result and start <= result[-1][1]:
            before = result.pop()
            result.append((before[0], max(end, before[1])))
        else:
            result.append((start, end))
    return result


def plausible(spans: Iterable[Span]) -> bool:
    """Whether that can be the memory of a PC: in files that call every page memory it cannot."""
    return not _covers(spans, _APIC, _APIC + 1)


def end_of_run(spans: Iterable[Span], address: int) -> int:
    """Where the memory that is at ``address`` ends; ``address`` if there is none."""
    return next((end for start, end in spans if start <= address < end), address)


def _covers(spans: Iterable[Span], start: int, end: int) -> bool:
    return any(first <= start and end <= last for first, last in spans)


def _without(spans: Iterable[Span], start: int, end: int) -> Iterator[Span]:
    """The spans with a gap from ``start`` to ``end``, if these differ."""
    for first, last in spans:
        parts = ((first, min(last, start)), (max(first, end), last)) if start < end else ((first, last),)
        yield from (part for part in parts if part[0] < part[1])
