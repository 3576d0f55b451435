# SPDX-License-Identifier: Apache-2.0
"""The frames in which two memories differ: C compares tables; frames of drivers are read into tables of one window."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Sequence

from libmicrovmi_py.declare import Any, NamedTuple, replace
from libmicrovmi_py.drivers.base import Region
from libmicrovmi_py.errors import AccessError, MicrovmiError, NotMappedError, ReadOnlyError, was_closed
from libmicrovmi_py.memory.checks import check_address
from libmicrovmi_py.memory.direct import Table, access_error
from libmicrovmi_py.memory.physical import PhysicalMemory
from libmicrovmi_py.model import PAGE_SIZE, U64_MAX, MemoryKind, MemoryRange
from libmicrovmi_py.transport.native import give_way, native
from libmicrovmi_py.transport.reach import Reach

_AT_ONCE = 512
"""How many runs are asked of C at once."""

MOST_AT_ONCE = 65536
"""So many a caller of C gets of a call that Python does, whatever room he has."""

_WINDOW = 4 << 20
"""So much is read at once of memory that is read frame by frame, in bytes."""

_WINDOWS = 4
"""So many windows one look for differences takes before it ends early."""

_ROW = struct.Struct("=QQI12x")
"""``struct microvmi_memory_range``."""


_kind = functools.cache(MemoryKind)


class Found(NamedTuple):
    """What one look finds: runs, the address to go on at (0: that was all), and the error that ended it."""

    ranges: list[MemoryRange]
    going_on: int
    error: MicrovmiError | None


def runs(older: PhysicalMemory, newer: PhysicalMemory, start: int) -> Iterator[MemoryRange]:
    """As ``Microvmi.diff``."""
    check_address(start)
    return _joined(older, newer, start)


def _joined(older: PhysicalMemory, newer: PhysicalMemory, going_on: int) -> Iterator[MemoryRange]:
    """The runs of looks that follow each other: one that ended early may have cut a run in two."""
    last: list[MemoryRange] = []
    error: MicrovmiError | None = None
    more = True
    while more:
        if older.closed or newer.closed:
            raise was_closed()
        found, going_on, error = some(older, newer, going_on, _AT_ONCE)
        last = _append(last, found)
        yield from last[:-1]
        last = last[-1:]
        more = going_on != 0 and error is None
        give_way()
    yield from last
    if error is not None:
        raise error


def _append(ranges: list[MemoryRange], more: Sequence[MemoryRange]) -> list[MemoryRange]:
    """``ranges`` with ``more`` behind, which go on where they end; a frame that is told already is not told again."""
    for item in more:
        last = ranges[-1] if ranges else None
        if last is not None and last.end > item.start:
            item = MemoryRange(last.end, item.end - last.end, item.kind)
        if item.size > 0 and last is not None and (last.end, last.kind) == (item.start, item.kind):
            ranges[-1] = replace(last, size=last.size + item.size)
        elif item.size > 0:
            ranges.append(item)
    return ranges


def some(older: PhysicalMemory, newer: PhysicalMemory, start: int, capacity: int) -> Found:
    """As ``microvmi_diff``: ``capacity`` runs at the most, from ``start`` on, of a bounded amount of memory."""
    if older.direct is not None and newer.direct is not None:
        return _compare((older.direct.table(), newer.direct.table()), start, U64_MAX, capacity)
    return _windows((older, newer), start // PAGE_SIZE * PAGE_SIZE, capacity)


def _compare(tables: tuple[Table, Table], start: int, last: int, capacity: int) -> Found:
    """Have C compare two tables, from an address to another, which is the last one."""
    ffi, lib = native()
    rows = ffi.new("struct microvmi_memory_range[]", capacity)
    diff = ffi.new("struct mvi_diff *")
    diff.older, diff.newer, diff.next, diff.last = tables[0].pointer, tables[1].pointer, start, last
    diff.ranges, diff.capacity = rows, capacity
    code = lib.mvi_diff_some(diff)
    found = _ROW.iter_unpack(bytes(ffi.buffer(rows, diff.count * _ROW.size)))
    ranges = [MemoryRange(start, size, _kind(kind)) for start, size, kind in found]
    return Found(ranges, diff.next, _error(code, diff) if code else None)


def _error(code: int, diff: Any) -> AccessError:
    ffi, lib = native()
    text = ffi.new("char[]", lib.MVI_DESCRIPTION)
    lib.mvi_diff_describe(diff, code, text, len(text))
    return access_error(code, ffi.string(text).decode(), diff.next, PAGE_SIZE, 0)


# ---------------------------------------------------------------------------------------------------------- windows


class _Window(NamedTuple):
    """Memory from an address to another, which is the last one, as a table; ``error``: what came behind it."""

    table: Table
    last: int
    error: MicrovmiError | None


class _Buffer:
    """Frames that were read, as the source of regions."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def reach(self) -> Reach:
        """The bytes."""
        return Reach(view=self._view)

    def open_for_writing(self) -> None:
        """Raises ``ReadOnlyError``."""
        raise ReadOnlyError("this is a copy of the guest's memory")


def _windows(pair: tuple[PhysicalMemory, PhysicalMemory], start: int, capacity: int) -> Found:
    maps = [_append([], memory.ranges()) for memory in pair]  # neighbours are read together
    found: list[MemoryRange] = []
    for _ in range(_WINDOWS):
        begin = _next(maps, start)
        if begin is None:
            return Found(found, 0, None)
        last = min(begin | (_WINDOW - 1), U64_MAX)
        older, newer = (_window(*side, begin, last) for side in zip(pair, maps, strict=True))
        last, error = min((older.last, older.error), (newer.last, newer.error), key=lambda side: side[0])
        part = Found([], 0, None)
        if last >= begin:
            part = _compare((older.table, newer.table), begin, last, capacity - len(found) + 1)
        found = _append(found, part.ranges)
        if len(found) > capacity:
            return Found(found[:capacity], found[capacity].start, None)
        if part.going_on or part.error is not None:
            return Found(found, part.going_on, part.error)
        if error is not None or last == U64_MAX:
            return Found(found, 0 if error is None else last + 1, error)
        start = last + 1
        give_way()
    return Found(found, start, None)


def _next(maps: Sequence[Sequence[MemoryRange]], address: int) -> int | None:
    """The first frame at or after an address in which one of them has memory."""
    begins = [max(item.start, address) for known in maps for item in known if item.end > address]
    return min(begins) // PAGE_SIZE * PAGE_SIZE if begins else None


def _window(memory: PhysicalMemory, known: Sequence[MemoryRange], begin: int, last: int) -> _Window:
    """What a memory has of a window; memory that is not read frame by frame needs no copy."""
    if memory.direct is not None:
        return _Window(memory.direct.table(), last, None)
    copy, error = _Copy(memory, begin, last), None
    try:
        copy.fill(known)
    except MicrovmiError as err:
        last, error = copy.at // PAGE_SIZE * PAGE_SIZE - 1, err
    return _Window(Table(copy.regions, U64_MAX), last, error)


class _Copy:
    """The frames of a window that are there; ``at`` is where reading is, or failed."""

    def __init__(self, memory: PhysicalMemory, begin: int, last: int) -> None:
        self._memory = memory
        self._begin = begin
        self._view = memoryview(bytearray(last + 1 - begin))
        self._source = _Buffer(self._view)
        self.regions: list[Region] = []
        self.at = begin

    def fill(self, known: Sequence[MemoryRange]) -> None:
        """Read what there is of ranges. Raises what the driver raises."""
        for item in known:
            self.at = max(item.start, self._begin)
            end = min(item.end, self._begin + len(self._view))
            if self.at < end:
                self._whole(end, item.kind)
            if self.at < end:
                self._frames(end, item.kind)

    def _whole(self, end: int, kind: MemoryKind) -> None:
        """Read up to the first frame that is not there, and pass it over."""
        try:
            done = self._memory.read_into(self.at, self._part(self.at, end))
        except AccessError as err:
            self._keep(err.completed, kind)
            raise
        self._keep(done, kind)
        if self.at < end:
            self.at = self.at // PAGE_SIZE * PAGE_SIZE + PAGE_SIZE

    def _frames(self, end: int, kind: MemoryKind) -> None:
        """Read each of the frames that follow, in as few trips as can be."""
        starts = range(self.at, end, PAGE_SIZE)
        results = self._memory.read_batch([(at, self._part(at, min(at + PAGE_SIZE, end))) for at in starts])
        for self.at, (done, error) in zip(starts, results, strict=True):
            self._keep(done, kind)
            if error is not None and not isinstance(error, NotMappedError):
                raise error

    def _part(self, start: int, end: int) -> memoryview:
        return self._view[start - self._begin : end - self._begin]

    def _keep(self, done: int, kind: MemoryKind) -> None:
        """So many bytes are there."""
        last = self.regions[-1] if self.regions else None
        if done and last is not None and (last.end, last.kind) == (self.at, kind):
            self.regions[-1] = replace(last, size=last.size + done)
        elif done:
            self.regions.append(Region(self.at, done, kind, self._source, self.at - self._begin))
        self.at += done
