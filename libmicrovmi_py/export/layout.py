# SPDX-License-Identifier: Apache-2.0
"""A file that is made while it is read: where in it bytes of ours are, and where memory of the guest."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import PAGE_SIZE, U64_MAX, MemoryRange

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_STEP = 1 << 20
"""Bytes that are read at once."""
_ZEROS = memoryview(bytes(_STEP))
"""What holes are told as, a part of it at a time."""
_EMPTY = bytes(PAGE_SIZE)


class Segment(NamedTuple):
    """``size`` bytes of the file from ``offset`` on: ``content``, or the guest's memory from ``address`` on."""

    offset: int
    size: int
    content: bytes | None = None
    address: int = 0

    @property
    def end(self) -> int:
        """One past its last byte in the file."""
        return self.offset + self.size


class Extent(NamedTuple):
    """``size`` neighbouring bytes of the file from ``offset`` on; a ``hole`` is zeros that nobody has to read."""

    offset: int
    size: int
    hole: bool

    @property
    def end(self) -> int:
        """One past its last byte."""
        return self.offset + self.size


class Layout:
    """A file of ``size`` bytes; what no segment has is zeros, and so is memory of the guest that is gone meanwhile.

    It has no cursor, so any number of threads may read at once, as long as the machine is open. ``segments`` ascend.
    """

    def __init__(self, machine: Microvmi, segments: Iterable[Segment], size: int) -> None:
        """Raises ``InvalidArgumentError`` for segments that do not ascend, or do not end within ``size``."""
        self.machine = machine
        self.segments: Sequence[Segment] = tuple(segment for segment in segments if segment.size)
        self.size = size
        ends = [0, *(segment.end for segment in self.segments)]
        starts = [*(segment.offset for segment in self.segments), size]
        if any(end > start for end, start in zip(ends, starts, strict=True)):
            raise InvalidArgumentError("the segments of a file overlap, or are not within it")
        self._starts = starts[:-1]

    def read_into(self, offset: int, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` from byte ``offset`` of the file on; the count is less than asked for at the file's end only.

        Raises what reading the machine raises, but for memory that is not there, which is zeros.
        """
        view = memoryview(buffer).cast("B")
        view = view[: max(self.size - offset, 0)]
        for start, end, segment in self._parts(offset, len(view)):
            part = view[start - offset : end - offset]
            if segment is None:
                _fill_with_zeros(part)
            elif segment.content is not None:
                part[:] = segment.content[start - segment.offset : end - segment.offset]
            else:
                self.machine.read_physical_padded_into(segment.address + start - segment.offset, part)
        return len(view)

    def extents(self, offset: int = 0, size: int | None = None) -> Iterator[Extent]:
        """The extents that a part of the file has, in order, each as long as can be; by default of all that follows."""
        end = self.size if size is None else min(offset + size, self.size)
        last: Extent | None = None
        for extent in self._pieces(offset, end - offset):
            if last is not None and last.hole == extent.hole:
                last = last._replace(size=last.size + extent.size)
                continue
            if last is not None:
                yield last
            last = extent
        if last is not None:
            yield last

    def _pieces(self, offset: int, size: int) -> Iterator[Extent]:
        for start, end, segment in self._parts(offset, size):
            if segment is None or segment.content is not None:
                yield Extent(start, end - start, segment is None)
                continue
            shift = start - (segment.address + start - segment.offset)
            for part in _filled(self.machine, segment.address + start - segment.offset, end - start):
                yield part._replace(offset=part.offset + shift)

    def _parts(self, offset: int, size: int) -> Iterator[tuple[int, int, Segment | None]]:
        """A part of the file cut where segments begin and end: first byte, one past the last one, the segment."""
        if not 0 <= offset <= U64_MAX:
            raise InvalidArgumentError(f"the offset {offset} is not within 64 bits")
        end = min(offset + size, self.size)
        index = max(bisect.bisect_right(self._starts, offset) - 1, 0)
        while offset < end:
            while index < len(self.segments) and self.segments[index].end <= offset:
                index += 1
            segment = self.segments[index] if index < len(self.segments) else None
            if segment is None or offset < segment.offset:
                until = end if segment is None else min(segment.offset, end)
                yield offset, until, None
            else:
                until = min(segment.end, end)
                yield offset, until, segment
            offset = until


def _filled(machine: Microvmi, address: int, size: int) -> Iterator[Extent]:
    """Where a range of memory may hold something, and where it is known to be zero; offsets are addresses.

    Above the maximum address nobody looks, and all may hold something.
    """
    end, find = address + size, machine.physical.find
    limit = min(end, machine.max_addr)
    while address < limit:
        data = min(find(address, False), limit)
        if data > address:
            yield Extent(address, data - address, True)
        hole = min(max(find(data, True), data + 1), limit) if data < limit else limit
        if hole > data:
            yield Extent(data, hole - data, False)
        address = hole
    if address < end:
        yield Extent(address, end - address, False)


def _fill_with_zeros(view: memoryview) -> None:
    for start in range(0, len(view), len(_ZEROS)):
        part = view[start : start + len(_ZEROS)]
        part[:] = _ZEROS[: len(part)]


def joined(ranges: Iterable[MemoryRange], end: int) -> list[tuple[int, int]]:
    """(start, end) of the memory below ``end``, ascending, neighbours of whatever kinds as one."""
    found: list[tuple[int, int]] = []
    for item in ranges:
        start, until = item.start, min(item.end, end)
        if start >= until:
            continue
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, until))
    return found


def pieces(layout: Layout, extents: Iterable[Extent]) -> Iterator[tuple[int, memoryview]]:
    """(offset, bytes) of what in these extents may hold something. A piece is good until the next one is asked for."""
    buffer = memoryview(bytearray(_STEP))
    for extent in extents:
        for start in range(extent.offset, extent.end, _STEP) if not extent.hole else ():
            piece = buffer[: min(_STEP, extent.end - start)]
            layout.read_into(start, piece)
            yield start, piece


def filled(piece: memoryview) -> Iterator[tuple[int, int]]:
    """(start, end) of the pages that are not zeros, neighbours together; the piece is where its buffer begins."""
    buffer, size = piece.obj, len(piece)
    assert isinstance(buffer, bytearray)  # which compares by memcmp(), without a copy
    begin: int | None = None
    for start in range(0, size, PAGE_SIZE):
        if not buffer.startswith(_EMPTY[: size - start], start):
            begin = start if begin is None else begin
        elif begin is not None:
            yield begin, start
            begin = None
    if begin is not None:
        yield begin, size
