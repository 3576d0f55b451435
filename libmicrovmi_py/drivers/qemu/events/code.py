# SPDX-License-Identifier: Apache-2.0
"""Where a guest's kernel writes control registers and MSRs: what its page tables let a supervisor execute is searched.

A frame is searched once, wherever it is mapped, and again when it was mapped anew or when all is to be looked at. The
page tables and the code are the guest's: what they may take of time and of places is limited.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from libmicrovmi_py.arch.x86.paging import twin_tables
from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.guestmemory import GuestMemory
from libmicrovmi_py.drivers.qemu.events.instructions import LONGEST, Target, find
from libmicrovmi_py.errors import NotMappedError, NotSupportedError
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE
from libmicrovmi_py.paging import PageRights, PageTables
from libmicrovmi_py.transport.deadline import Deadline

_PATIENCE = 5.0
"""Seconds that page tables and code may take: those of Linux take milliseconds."""

_MOST_RANGES = 1 << 16
"""Ranges of code in one address space."""

_MOST_FRAMES = 1 << 18
"""Frames of code, 1 GiB."""

_TOO_MUCH = "its code is more than 1 GiB"

_MOST_SITES = 4096
"""Places, each of which slows the guest's page that it is in."""

_AT_ONCE = 2048
"""Frames that are read at once, 8 MiB."""


class CodeRange(NamedTuple):
    """Virtual addresses of code, and where it is in physical memory; sizes are bytes."""

    start: int
    size: int
    physical: int

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.start + self.size


Sites = Mapping[Target, frozenset[int]]
"""Virtual addresses by what the instructions there write."""


class Code:
    """The code of one guest, as far as it was looked at."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._found: dict[int, tuple[tuple[int, Target], ...]] = {}  # by frame that was searched: physical addresses
        self.ranges: frozenset[CodeRange] = frozenset()
        self.sites: Sites = {}

    def look(self, spaces: Iterable[PageTables], *, anew: bool) -> bool:
        """Look which code is mapped, and search what was not there before, or all of it; whether that changed sites.

        Raises ``NotSupportedError`` for a guest of which not all can be found; what is known stays then as it was.
        """
        check = limit_walks("its page tables and its code")
        ranges = frozenset[CodeRange]()
        for tables in spaces:
            ranges |= frozenset(self._code_of(tables, check))
        frames = self._frames(ranges)
        found = {} if anew else {frame: self._found[frame] for frame in frames & self._found.keys()}
        for run in _runs(sorted(frames - found.keys())):
            check()
            self._search(run, found)
        sites = _by_target(ranges, found, self._across_ends(ranges))
        changed = sites != self.sites
        self._found, self.ranges, self.sites = found, ranges, sites
        return changed

    def _code_of(self, tables: PageTables, check: Callable[[], None]) -> Iterator[CodeRange]:
        """What a supervisor may execute, and a user may not, in an address space."""
        space = self._memory.space(tables)
        mapped = space.mapped(check, PageRights.KERNEL_EXECUTE, PageRights.USER_EXECUTE)
        for count, item in enumerate(mapped):
            _refuse(count >= _MOST_RANGES, f"its page tables map code in more than {_MOST_RANGES} pieces")
            yield CodeRange(item.start, item.size, item.physical_address)

    def _search(self, run: range, found: dict[int, tuple[tuple[int, Target], ...]]) -> None:
        """Search frames that are neighbours; an instruction is found in the frame that it begins in."""
        start = max((run.start << PAGE_SHIFT) - LONGEST, 0)
        here = defaultdict(list)
        for at, target in find(self._read(start, (run.stop << PAGE_SHIFT) + LONGEST - start)):
            here[(start + at) >> PAGE_SHIFT].append((start + at, target))
        for frame in run:
            found[frame] = tuple(here.pop(frame, ()))
        for frame, items in here.items():  # the neighbours
            if frame in found:
                found[frame] = tuple(dict.fromkeys((*found[frame], *items)))

    def _read(self, address: int, size: int) -> bytes:
        """So many bytes, zeros in place of what is no memory (any more)."""
        try:
            return self._memory.read(address, size)
        except NotMappedError:
            if size <= PAGE_SIZE:
                return bytes(size)
        half = size // 2 & -PAGE_SIZE or PAGE_SIZE
        return self._read(address, half) + self._read(address + half, size - half)

    def _frames(self, ranges: Iterable[CodeRange]) -> set[int]:
        """Those that ranges are in, of memory that exists."""
        frames: set[int] = set()
        memory = self._memory.ranges()
        for item in ranges:
            for part in memory:
                first = max(item.physical, part.start) >> PAGE_SHIFT
                last = (min(item.physical + item.size, part.start + part.size) - 1) >> PAGE_SHIFT
                _refuse(last - first >= _MOST_FRAMES, _TOO_MUCH)
                frames.update(range(first, last + 1))
            _refuse(len(frames) > _MOST_FRAMES, _TOO_MUCH)
        return frames

    def _across_ends(self, ranges: Collection[CodeRange]) -> Iterator[tuple[int, Target]]:
        """What begins in a range and ends in the next, which goes on elsewhere in physical memory."""
        starts = defaultdict(set)
        for item in ranges:
            starts[item.start].add(item.physical)
        for item in ranges:
            for physical in starts.get(item.end, ()):
                data = self._read(item.physical + item.size - LONGEST, LONGEST) + self._read(physical, LONGEST)
                for at, target in find(data):
                    if at < LONGEST:
                        yield item.end - LONGEST + at, target


def limit_walks(what: str) -> Callable[[], None]:
    """What raises ``NotSupportedError`` once the time is over that a guest's tables may take from now on."""
    deadline = Deadline(_PATIENCE)
    return lambda: _refuse(deadline.expired, f"{what} take more than {_PATIENCE:g} s to be looked at")


def with_twins(spaces: Iterable[PageTables], memory: GuestMemory) -> Collection[PageTables]:
    """Each once, and the other tables of the same process where a kernel isolates its own (KPTI)."""
    found: dict[PageTables, None] = {}
    for tables in spaces:
        found[tables] = None
        try:
            found[twin_tables(tables, memory.read)] = None
        except (NotSupportedError, NotMappedError):
            continue
    return found


def _refuse(wrong: bool, why: str) -> None:
    if wrong:
        raise NotSupportedError(f"not all of the guest's instructions can be found: {why}")


def _runs(frames: list[int]) -> Iterator[range]:
    """Frames, ascending, as runs of neighbours that are read at once."""
    start = 0
    for index in range(1, len(frames) + 1):
        if index == len(frames) or frames[index] != frames[index - 1] + 1 or index - start >= _AT_ONCE:
            yield range(frames[start], frames[index - 1] + 1)
            start = index


def _by_target(
    ranges: Iterable[CodeRange],
    found: Mapping[int, Collection[tuple[int, Target]]],
    others: Iterable[tuple[int, Target]],
) -> Sites:
    """Virtual addresses: what was found in a frame is wherever that is mapped."""
    sites: dict[Target, set[int]] = defaultdict(set)
    physical = sorted(item for items in found.values() for item in items)
    count = 0
    for item in ranges:
        at = bisect.bisect_left(physical, (item.physical,))
        while at < len(physical) and physical[at][0] < item.physical + item.size:
            place, target = physical[at]
            sites[target].add(item.start + place - item.physical)
            at, count = at + 1, count + 1
            _refuse(count > _MOST_SITES, f"there are more than {_MOST_SITES}")
    for address, target in others:
        sites[target].add(address)
    return {target: frozenset(addresses) for target, addresses in sites.items()}
