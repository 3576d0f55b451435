# SPDX-License-Identifier: Apache-2.0
"""The page tables that lead to a kernel's code: who makes code executable writes one of them.

They are watched where the guest itself has them mapped. Watched are the tables of the two lowest levels of each GiB of
addresses that has code in it: new code beside old, and in new tables beside old ones.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Iterator

from libmicrovmi_py.arch.x86.paging import changed_code, tables_below
from libmicrovmi_py.drivers.guestmemory import GuestMemory, GuestSpace
from libmicrovmi_py.drivers.qemu.events.code import CodeRange, limit_walks
from libmicrovmi_py.drivers.qemu.events.placing import WRITES, Place
from libmicrovmi_py.errors import NotMappedError, logger
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE
from libmicrovmi_py.paging import PageRights, PageTables, Paging

_log = logger(__name__)

_GIB_SHIFT, _TABLE_SHIFT = 30, 21
_MOST_REGIONS, _MOST_TABLES, _MOST_MAPPINGS, _MOST_PLACES = 64, 256, 1 << 17, 512
"""What a guest may have of each to be watched; beyond that its code is looked at from time to time only."""

_LONG = (Paging.X86_4_LEVELS, Paging.X86_5_LEVELS)


class CodeTables:
    """Which tables are watched, and what was in them."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._contents: dict[int, bytes] = {}  # by address
        self.places: frozenset[Place] = frozenset()
        self.pages: frozenset[int] = frozenset()
        """Where those begin."""

    def find(self, spaces: Collection[PageTables], code: Iterable[CodeRange]) -> bool:
        """Find the tables, and where they are mapped; whether that is elsewhere now. Too many are not watched."""
        regions = {address >> _GIB_SHIFT for item in code for address in (item.start, item.end - 1)}
        tables: set[int] = set()
        if len(regions) <= _MOST_REGIONS:
            for space in (self._memory.space(each) for each in spaces if each.paging in _LONG):
                for region in sorted(regions):
                    tables.update(self._tables_of(space, region << _GIB_SHIFT, tables))
        places = self._places(tables, spaces) if len(tables) <= _MOST_TABLES else None
        if places is None or len(regions) > _MOST_REGIONS:
            _log.warning("the guest's page tables are too many to be watched: new code is found within some seconds")
            places, tables = frozenset(), set()
        self._contents = {table: self._contents.get(table) or self._read(table) for table in tables}
        changed, self.places = places != self.places, places
        self.pages = frozenset(place.address & -PAGE_SIZE for place in places)
        return changed

    def _tables_of(self, space: GuestSpace, start: int, known: Collection[int]) -> Iterator[int]:
        """The addresses of the tables of a GiB, but for what is below one that is known."""
        for address in range(start, start + (1 << _GIB_SHIFT), 1 << _TABLE_SHIFT):
            found = space.translate(address)
            if found.entry_address is None or found.level > 2:
                return
            table = found.entry_address & -PAGE_SIZE
            if table in known:
                return
            yield table
            if found.level == 2:
                yield from tables_below(self._read(table))
                return

    def _places(self, tables: Collection[int], spaces: Collection[PageTables]) -> frozenset[Place] | None:
        """Where the guest can write the tables; ``None``: there are too many mappings."""
        found, ordered = set(), sorted(tables)
        check = limit_walks("its page tables")
        for each in spaces:
            mapped = self._memory.space(each).mapped(check, PageRights.KERNEL_WRITE, PageRights.USER_WRITE)
            for count, item in enumerate(mapped):
                at = bisect.bisect_left(ordered, item.physical_address)
                while at < len(ordered) and ordered[at] < item.physical_address + item.size:
                    found.add(Place(WRITES, item.start + ordered[at] - item.physical_address, PAGE_SIZE))
                    at += 1
                    if len(found) > _MOST_PLACES:
                        return None
                if count >= _MOST_MAPPINGS:
                    return None
        return frozenset(found)

    def changed(self) -> bool:
        """Whether one of the tables was changed in a way that may have changed code, since it was last looked at."""
        found = False
        for table, before in self._contents.items():
            now = self._read(table)
            if now != before:
                self._contents[table] = now
                found = changed_code(before, now) or found
        return found

    def _read(self, table: int) -> bytes:
        try:
            return self._memory.read(table >> PAGE_SHIFT << PAGE_SHIFT, PAGE_SIZE)
        except NotMappedError:
            return bytes(PAGE_SIZE)
