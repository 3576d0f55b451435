# SPDX-License-Identifier: Apache-2.0
"""Memory of drivers that read frame by frame: the loops over frames, partial counts, padding, checks."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.base import (
    Driver,
    SupportsForeignReads,
    SupportsFrameBatches,
    SupportsFrames,
    SupportsFrameWrites,
    SupportsRanges,
    SupportsRangeWrites,
)
from libmicrovmi_py.errors import AccessError, IoError, NotMappedError, ReadOnlyError, not_mapped
from libmicrovmi_py.memory.batch import Request, Result, read_one, result
from libmicrovmi_py.memory.cache import PageCache
from libmicrovmi_py.memory.checks import check_count, memory_map
from libmicrovmi_py.memory.direct import Table
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE, PHYSICAL_BITS, MemoryKind
from libmicrovmi_py.transport.native import functions, give_way, native

FRAMES_A_TRIP = 1024
"""So many frames are asked of a driver at once, 4 MiB."""

_FRAMES = 1 << (PHYSICAL_BITS - PAGE_SHIFT)
"""No machine has more; a driver is not asked for them."""

_ZEROS = memoryview(bytes(1 << 20))


class _Piece(NamedTuple):
    """The part of an access within one frame; ``begin`` and ``end`` are offsets in the access."""

    begin: int
    end: int
    frame: int
    offset: int


def _pieces(address: int, size: int) -> Iterator[_Piece]:
    begin, size = 0, min(size, (1 << PHYSICAL_BITS) - address)
    while begin < size:
        frame, offset = divmod(address + begin, PAGE_SIZE)
        end = min(begin + PAGE_SIZE - offset, size)
        yield _Piece(begin, end, frame, offset)
        begin = end


_Part = tuple[int, int, bool]
"""Where a part of an access begins and ends, and whether it exists, and so was read."""


def _read_frames(read: Callable[[int, int, memoryview], None], address: int, buffer: memoryview) -> Iterator[_Part]:
    """Frame by frame, with a function that takes what ``SupportsFrames.read_frame`` does."""
    for begin, end, frame, offset in _pieces(address, len(buffer)):
        exists = True
        try:
            read(frame, offset, buffer[begin:end])
        except NotMappedError:
            exists = False
        yield begin, end, exists


def _trips(frames: SupportsFrameBatches, requests: Sequence[tuple[int, int, memoryview]]) -> list[bool]:
    """Ask for frames in trips of bounded size."""
    found: list[bool] = []
    for first in range(0, len(requests), FRAMES_A_TRIP):
        found += _trip(frames, requests[first : first + FRAMES_A_TRIP])
    return found


def _trip(frames: SupportsFrameBatches, requests: Sequence[tuple[int, int, memoryview]]) -> Sequence[bool]:
    """One trip. Raises ``IoError`` for a driver that answers for more or fewer frames than it was asked for."""
    found = frames.read_frames(requests)
    if len(found) != len(requests):
        raise IoError(f"the driver was asked for {len(requests)} frames and answered for {len(found)}")
    return found


def _read_batches(frames: SupportsFrameBatches, address: int, buffer: memoryview) -> Iterator[_Part]:
    """Each trip fills a buffer of ours: what it finds behind a hole is not for the caller until he comes to it."""
    pieces, scratch = _pieces(address, len(buffer)), memoryview(bytearray(min(len(buffer), FRAMES_A_TRIP * PAGE_SIZE)))
    while trip := list(itertools.islice(pieces, FRAMES_A_TRIP)):
        base = trip[0].begin
        found = _trip(
            frames, [(piece.frame, piece.offset, scratch[piece.begin - base : piece.end - base]) for piece in trip]
        )
        for exists, parts in itertools.groupby(zip(trip, found, strict=True), lambda part: part[1]):
            begin, end = _span([piece for piece, _ in parts])
            if exists:
                buffer[begin:end] = scratch[begin - base : end - base]
            yield begin, end, exists


def _span(pieces: Sequence[_Piece]) -> tuple[int, int]:
    return pieces[0].begin, pieces[-1].end


def _read_many(frames: SupportsFrameBatches, requests: Sequence[Request]) -> list[Result]:
    """As ``FrameMemory.read_batch``; requests of several frames go through buffers of ours, as above."""
    pieces = [list(_pieces(address, len(view))) for address, view in requests]
    targets = [
        memoryview(bytearray(len(view))) if len(parts) > 1 else view
        for (_, view), parts in zip(requests, pieces, strict=True)
    ]
    wanted = [(target, piece) for target, parts in zip(targets, pieces, strict=True) for piece in parts]
    found = iter(_trips(frames, [(piece.frame, piece.offset, view[piece.begin : piece.end]) for view, piece in wanted]))
    results = []
    for request, target, parts in zip(requests, targets, pieces, strict=True):
        exist = list(itertools.islice(found, len(parts)))
        valid = parts[: exist.index(False)] if False in exist else parts
        done = valid[-1].end if valid else 0
        if target is not request[1]:
            request[1][:done] = target[:done]
        results.append(result(request, done))
    return results


def _read_ranges(frames: SupportsRanges, address: int, buffer: memoryview) -> Iterator[_Part]:
    """After a hole a single frame is asked for: a driver that is asked for much has to find out where that ends."""
    done, size = 0, min(len(buffer), (1 << PHYSICAL_BITS) - address)
    end = size
    while done < size:
        got = check_count(frames.read_range(address + done, buffer[done:end]), end - done, address + done)
        if got > 0:
            yield done, done + got, True
        done, asked, end = done + got, end, size
        if done < asked:
            hole = done + next(_pieces(address + done, size - done)).end
            yield done, hole, False
            done, end = hole, min(hole + PAGE_SIZE, size)


class FrameMemory:
    """Memory by address over a driver's frames."""

    def __init__(self, driver: Driver, frames: SupportsFrames, cache: PageCache | None) -> None:
        self._driver = driver
        self._frames = frames
        # Asked once: looking for a protocol's methods takes as long as a small read.
        self._ranges = frames if isinstance(frames, SupportsRanges) else None
        self._batches = frames if isinstance(frames, SupportsFrameBatches) else None
        self._foreign = frames.foreign_reads() if isinstance(frames, SupportsForeignReads) else None
        self._cache = cache
        # Out of these somebody may read: a write drops its pages from all of them.
        self._caches = [cache] if cache is not None else []
        self._table = self._make_table()

    def table(self) -> Table | None:
        """What C can read by itself: pages of the cache, and what the library's function reads; ``None`` if neither."""
        return self._table

    def _make_table(self) -> Table | None:
        if self._cache is None and self._foreign is None:
            return None
        return Table((), self._driver.max_addr, self._cache, by_frames=True, foreign=self._foreign)

    def use_cache(self, cache: PageCache | None) -> None:
        """From now on keep pages in ``cache``, or none; :meth:`forget_others` once nobody reads the one before."""
        self._caches = [known for known in (cache, self._cache) if known is not None]
        self._cache = cache
        self._table = self._make_table()

    def forget_others(self) -> None:
        """All who read out of kept pages take those of the present cache."""
        self._caches = self._caches[:1] if self._cache is not None else []

    def _read_here(self, address: int, buffer: memoryview) -> int:
        """How much C reads by itself, from the start."""
        table, (ffi, lib) = self._table, native()  # held: another thread may replace it, and its cache goes with it
        if table is None:
            return 0
        target = ffi.from_buffer("uint8_t[]", buffer, require_writable=True)
        return int(lib.mvi_frames_read(table.pointer, address, target, len(buffer)))

    def _fetch(self, cache: PageCache, frame: int, offset: int, buffer: memoryview) -> None:
        """A small read: out of the cache, or else the whole frame, which is kept."""
        address = (frame << PAGE_SHIFT) + offset
        if cache.get(address, buffer):
            return
        epoch, content = cache.epoch, bytearray(PAGE_SIZE)
        self._frames.read_frame(frame, 0, memoryview(content))
        cache.keep(epoch, content, address, buffer)

    def read_within(self, address: int, buffer: memoryview) -> None:
        """A read that one frame holds, of at least a byte: the most frequent one, straight to the driver.

        Raises as ``PhysicalMemory.read_exactly_into``.
        """
        frame, cache = address >> PAGE_SHIFT, self._cache
        try:
            if frame >= _FRAMES:
                raise not_mapped(address)
            if cache is None:
                self._frames.read_frame(frame, address & (PAGE_SIZE - 1), buffer)
            else:
                self._fetch(cache, frame, address & (PAGE_SIZE - 1), buffer)
        except NotMappedError:
            raise not_mapped(address, len(buffer), 0) from None
        except AccessError as err:
            raise _stopped(err, address, len(buffer), 0) from err

    def read_into(self, address: int, buffer: memoryview) -> int:
        """As ``PhysicalMemory.read_into``."""
        return self.read_on(address, buffer, 0 if self._table is None else self._read_here(address, buffer))

    def read_on(self, address: int, buffer: memoryview, ready: int) -> int:
        """As :meth:`read_into`, when ``ready`` bytes of it were read already."""
        if ready == len(buffer):
            return ready
        if len(buffer) <= PAGE_SIZE - (address & (PAGE_SIZE - 1)):
            with contextlib.suppress(NotMappedError):
                self.read_within(address, buffer)
                return len(buffer)
            return 0
        done = ready
        try:
            for _, end, exists in self._read(address + ready, buffer[ready:]):
                if not exists:
                    break
                done = ready + end
                give_way()
        except AccessError as err:
            raise _stopped(err, address, len(buffer), done) from err
        return done

    def read_padded_into(self, address: int, buffer: memoryview) -> None:
        """As ``PhysicalMemory.read_padded_into``."""
        done = ready = self._read_here(address, buffer)
        try:
            for begin, end, exists in self._read(address + ready, buffer[ready:]):
                if not exists:
                    clear(buffer[ready + begin : ready + end])
                done = ready + end
                give_way()
        except AccessError as err:
            raise _stopped(err, address, len(buffer), done) from err
        clear(buffer[done:])

    def read_existing(self, address: int, buffer: memoryview) -> Iterator[_Part]:
        """Fill ``buffer`` where frames exist, part by part, each with whether it does. Raises as :meth:`read_into`."""
        done = ready = self._read_here(address, buffer)
        if ready:
            yield 0, ready, True
        try:
            for begin, end, exists in self._read(address + ready, buffer[ready:]):
                done = ready + end
                yield ready + begin, done, exists
        except AccessError as err:
            raise _stopped(err, address, len(buffer), done) from err

    def _read(self, address: int, buffer: memoryview) -> Iterator[_Part]:
        """Read, and tell part by part which exist; in as few trips as the driver can."""
        cache = self._cache
        if cache is not None and len(buffer) <= PAGE_SIZE:
            yield from _read_frames(functools.partial(self._fetch, cache), address, buffer)
        elif (address & (PAGE_SIZE - 1)) + len(buffer) <= PAGE_SIZE:
            yield from _read_frames(self._frames.read_frame, address, buffer)
        elif self._ranges is not None:
            yield from _read_ranges(self._ranges, address, buffer)
        elif self._batches is not None:
            yield from _read_batches(self._batches, address, buffer)
        else:
            yield from _read_frames(self._frames.read_frame, address, buffer)

    def read_batch(self, requests: Sequence[Request]) -> list[Result]:
        """As ``PhysicalMemory.read_batch``: few trips for a driver that can, else one a frame.

        An error other than a missing frame is told for the requests that it concerns: they are then done one by one.
        """
        if self._foreign is not None:
            return self._read_together(requests)
        if isinstance(self._frames, SupportsFrameBatches):
            with contextlib.suppress(AccessError):
                return _read_many(self._frames, requests)
        return [read_one(self.read_into, request) for request in requests]

    def _read_together(self, requests: Sequence[Request]) -> list[Result]:
        """In C, but for what C does not read."""
        return [
            read_one(functools.partial(self.read_on, ready=ready), request)
            for ready, request in zip(self._read_batch_here(requests), requests, strict=True)
        ]

    def _read_batch_here(self, requests: Sequence[Request]) -> list[int]:
        """How much C reads of each."""
        table = self._table
        found = functions().read_batch(table.address, list(requests)) if table is not None else 0
        if isinstance(found, int):
            return [0] * len(requests)
        return [item if isinstance(item, int) else item[1] for item in found]

    def write_from(self, address: int, data: memoryview) -> None:
        """As ``PhysicalMemory.write_from``."""
        frames, caches = self._frames, self._caches
        if not data:
            return
        pieces = self.check_write(address, data)
        assert isinstance(frames, SupportsFrameWrites)
        done = 0
        try:
            if isinstance(frames, SupportsRangeWrites) and len(pieces) > 1:
                frames.write_range(address, data)
                return
            for piece in pieces:
                frames.write_frame(piece.frame, piece.offset, data[piece.begin : piece.end])
                done = piece.end
                give_way()
        except AccessError as err:
            raise _stopped(err, address, len(data), done) from err
        finally:
            for cache in (*caches, *self._caches):
                cache.drop(address, len(data))

    def check_write(self, address: int, data: memoryview, *, part: bool = False) -> list[_Piece]:
        """The pieces of a write; raises what it would be refused with, before anything is written.

        A frame that is read-only the driver refuses by itself: it is looked for if others were written before, those
        of this write or, if it is a ``part``, of another one.
        """
        if not isinstance(self._frames, SupportsFrameWrites):
            raise ReadOnlyError("this driver cannot write memory", address=address)
        pieces, size = list(_pieces(address, len(data))), len(data)
        try:
            if (end := self._existing(pieces, address)) != size:
                raise not_mapped(address, size, end)
            if len(pieces) > 1 or part:
                self._check_rom(address, address + size)
        except AccessError as err:
            raise _unwritten(err, address, len(data)) from err
        return pieces

    def _existing(self, pieces: Sequence[_Piece], address: int) -> int:
        """The length of the prefix that exists: read in large parts where a driver can, else a byte of each frame."""
        end = 0
        if self._ranges is not None and len(pieces) > 1:
            size = pieces[-1].end
            scratch = memoryview(bytearray(min(size, FRAMES_A_TRIP * PAGE_SIZE)))
            while end < size:
                part = scratch[: size - end]
                got = check_count(self._ranges.read_range(address + end, part), len(part), address + end)
                if not got:
                    break
                end += got
            return end
        for piece in pieces:
            try:
                self._frames.read_frame(piece.frame, piece.offset, memoryview(bytearray(1)))
            except NotMappedError:
                break
            end = piece.end
        return end

    def _check_rom(self, start: int, end: int) -> None:
        """A driver refuses a read-only frame by itself, but perhaps after others were written."""
        for known in memory_map(self._driver):
            if known.kind is MemoryKind.ROM and known.start < end and start < known.end:
                first = max(start, known.start)
                raise ReadOnlyError(f"physical address {first:#x} is read-only memory", address=first)

    def find(self, address: int, hole: bool) -> int:
        """As ``DirectMemory.find``; a driver that knows no ranges has no holes."""
        maximum = self._driver.max_addr
        for known in memory_map(self._driver):
            if address < known.end:
                if not hole:
                    return min(max(address, known.start), maximum)
                if address < known.start:
                    break
                address = known.end
        return min(address, maximum) if hole else maximum


def _stopped(err: AccessError, address: int, size: int, done: int) -> AccessError:
    """The same error, telling where in the whole access it came up."""
    kind = IoError if isinstance(err, NotMappedError) else type(err)
    done += min(max(err.completed, 0), size - done)
    return kind(str(err), address=address + done, requested=size, completed=done)


def _unwritten(err: AccessError, address: int, size: int) -> AccessError:
    """The same error of a look in front of a write: what it says was completed was read, and nothing was written."""
    at = err.address if address <= err.address < address + size else address
    return type(err)(str(err), address=at, requested=size)


def clear(buffer: memoryview) -> None:
    """Make bytes zeros."""
    for start in range(0, len(buffer), len(_ZEROS)):
        piece = buffer[start : start + len(_ZEROS)]
        piece[:] = _ZEROS[: len(piece)]
