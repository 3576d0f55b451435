# SPDX-License-Identifier: Apache-2.0
"""Which frames of a domain exist: found by mapping them, as Xen has no call that tells another domain's layout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from libmicrovmi_py.drivers.saved.xenmemory import DEVICES, FOUR_GIB, kind_of
from libmicrovmi_py.drivers.xen.mappings import Mapper
from libmicrovmi_py.drivers.xen.memory import MOST
from libmicrovmi_py.drivers.xen.xenctrl import Domain
from libmicrovmi_py.model import PAGE_SHIFT, MemoryRange, end_of_ram

GROUP = 512
"""Frames of a superpage, 2 MiB."""

_SPECIAL = (0xFC000, 0xFEE00)
"""Groups in which Xen has special pages of PVH and HVM domains."""

_FRESH = 10.0

Errors = Callable[[Sequence[int]], Sequence[int]]
"""Tells of each frame whether it exists (0)."""


class Layout:
    """The layout of one domain. Finding it takes mapping every frame at worst, so it is kept for a while."""

    def __init__(self, mapper: Mapper, domain: Domain) -> None:
        self._domain = domain
        self._mapper = mapper
        self._known: tuple[MemoryRange, ...] = ()
        self._state = (-1, -1)
        self._when = 0.0

    def _errors(self, frames: Sequence[int]) -> Sequence[int]:
        return self._mapper.map(frames).errors

    def end(self) -> int:
        """One past the last byte of main memory, with few tries: holes in memory do not matter here."""
        return end_of_ram(probe(self._errors, self._domain.maximum_frame()))

    def ranges(self) -> tuple[MemoryRange, ...]:
        """The ranges that exist; for up to 10 s the last ones, if the domain has as many pages as it had then."""
        state = self._domain.maximum_frame(), self._domain.info().pages
        if state != self._state or time.monotonic() - self._when > _FRESH:
            self._known = probe(self._errors, *state)
            self._state, self._when = state, time.monotonic()
        return self._known


def probe(errors: Errors, highest: int, pages: int | None = None) -> tuple[MemoryRange, ...]:
    """The ranges up to frame ``highest``, of a domain that has ``pages`` pages; without these, without small holes.

    Memory comes in superpages, so one frame of each group is tried, and all frames of groups where memory begins or
    ends. If that does not give the pages that the domain has, all frames of groups in and at memory are tried; some of
    the pages may be in no frame, as that of a ring is. If a superpage or more is still missing, every frame is tried:
    2^20 of them for a small domain, because of the special pages below 4 GiB.
    """
    firsts = range(0, highest + 1, GROUP)
    there = [not code for index in range(0, len(firsts), MOST) for code in errors(firsts[index : index + MOST])]
    runs = list(_searched(errors, highest, there, all_of_memory=False))
    if pages is None:
        return tuple(_ranges(runs))
    if _count(runs) != pages:
        runs = list(_searched(errors, highest, there, all_of_memory=True))
    if pages - _count(runs) >= GROUP:
        runs = [run for first in range(0, highest + 1, MOST) for run in _runs(errors, first, MOST, highest)]
    return tuple(_ranges(runs))


def _count(runs: Sequence[range]) -> int:
    return sum(len(run) for run in runs)


def _searched(errors: Errors, highest: int, there: Sequence[bool], *, all_of_memory: bool) -> Iterator[range]:
    """The runs, from what is known of the first frame of each group."""
    for index, exists in enumerate(there):
        first = index * GROUP
        around = there[max(0, index - 1) : index + 2]
        edge = index in (0, len(there) - 1) or first in _SPECIAL or exists != there[index + 1]
        if edge or (all_of_memory and any(around)):
            yield from _runs(errors, first, GROUP, highest)
        elif exists:
            yield range(first, first + GROUP)


def _runs(errors: Errors, first: int, count: int, highest: int) -> Iterator[range]:
    """The runs of frames that exist among ``count`` from the ``first`` on."""
    codes = errors(range(first, min(first + count, highest + 1)))
    for code, group in groupby(codes, key=bool):
        end = first + sum(1 for _ in group)
        if not code:
            yield range(first, end)
        first = end


def _ranges(runs: Sequence[range]) -> Iterator[MemoryRange]:
    """Joined where they touch and are of one kind."""
    start = end = 0
    for run in runs:
        if run.start != end or run.start in (DEVICES, FOUR_GIB):
            yield from _range(start, end)
            start = run.start
        end = run.stop
    yield from _range(start, end)


def _range(start: int, end: int) -> Iterator[MemoryRange]:
    if start < end:
        yield MemoryRange(start << PAGE_SHIFT, (end - start) << PAGE_SHIFT, kind_of(start))
