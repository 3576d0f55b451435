# SPDX-License-Identifier: Apache-2.0
"""Copying all memory of a machine into the copy of a snapshot, once or several times: the last time counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from libmicrovmi_py.errors import NotMappedError
from libmicrovmi_py.memory.direct import read_error
from libmicrovmi_py.memory.frames import FRAMES_A_TRIP, FrameMemory
from libmicrovmi_py.memory.physical import PhysicalMemory
from libmicrovmi_py.model import PAGE_SIZE, MemoryRange
from libmicrovmi_py.transport.copy import Copy
from libmicrovmi_py.transport.native import give_way, native
from libmicrovmi_py.transport.watch import Watch

_TURN = 50
"""Milliseconds that are copied between two looks at who watches."""


_MIB = 1 << 20
_LONG = 16 * _MIB
"""Bytes of nothing, after which only a part of it is looked at."""


def _nothing() -> None:
    """For whoever has nothing to do meanwhile."""


class Course:
    """Of how many times this is which, from 0 on: what is told of the whole."""

    def __init__(self, copy: Copy, watch: Watch, times: int) -> None:
        self._size = sum(item.size for item in copy.ranges)
        self._watch = watch
        self._times = times
        self._past = 0

    def report(self, done: int) -> None:
        """So many bytes of this time are done. The last one is told of when the time is over: from the half on of two
        times the machine stands. Raises as ``Watch.report``."""
        self._watch.report(self._past * self._size + min(done, self._size - 1), self._times * self._size)

    def next(self) -> None:
        """This time is over. The next one is told of at its beginning, however short it is: the machine may stand."""
        self._past += 1
        self._watch.due()

    def finish(self) -> None:
        """All is done."""
        self._watch.report(self._times * self._size, self._times * self._size)


class DirectFilling:
    """Of memory that is reached directly: C copies, by several threads and without Python's lock."""

    def __init__(self, physical: PhysicalMemory, copy: Copy, threads: int) -> None:
        self._physical = physical
        self._copy = copy
        self._threads = threads

    @property
    def ranges(self) -> Sequence[MemoryRange]:
        """Those that exist: all that there is a copy of."""
        return self._copy.ranges

    def fill(self, course: Course, meanwhile: Callable[[], None] = _nothing) -> None:
        """Copy all, and call ``meanwhile``, which may take a moment. Raises what that does, an ``AccessError``, as the
        copy does, and as ``Watch.report``."""
        ffi, lib = native()
        assert self._physical.direct is not None
        copy, table = self._copy, self._physical.direct.table()
        rows = [(item.start, item.size, copy.offset_of(item.start)) for item in copy.ranges]
        parts = ffi.new("struct mvi_fill_part[]", rows)
        done, address, failed = ffi.new("uint64_t *"), ffi.new("uint64_t *"), ffi.new("int32_t *")
        fill = lib.mvi_fill_new(table.pointer, copy.pointer, parts, len(rows))
        if fill == ffi.NULL:
            raise MemoryError("no memory to copy a machine's with")
        try:
            lib.mvi_fill_start(fill, self._threads)
            meanwhile()
            course.report(0)
            while not lib.mvi_fill_some(fill, _TURN, done):
                course.report(done[0])
        finally:
            code = lib.mvi_fill_end(fill, address, failed)
        copy.check(failed[0])
        if code:
            raise read_error(code, address[0], PAGE_SIZE, 0)
        course.next()


class FrameFilling:
    """Of a driver of frames, in as few trips as it can. The first time it finds out what exists; later times read that.

    Behind a long stretch of nothing, of a machine whose driver tells no ranges (``known`` is false), it looks at the
    first and the last frame of each MiB: some hypervisors are asked for each frame, and a gigabyte of nothing would
    take seconds.
    """

    def __init__(self, frames: FrameMemory, copy: Copy, *, known: bool) -> None:
        self._frames = frames
        self._copy = copy
        self._known = known
        self._found: list[MemoryRange] | None = None
        self._nothing = 0  # bytes that do not exist, up to here
        self._scratch = memoryview(bytearray(FRAMES_A_TRIP * PAGE_SIZE))

    @property
    def ranges(self) -> Sequence[MemoryRange]:
        """Those that existed the last time."""
        return self._found or ()

    def fill(self, course: Course, meanwhile: Callable[[], None] = _nothing) -> None:
        """As :meth:`DirectFilling.fill`."""
        meanwhile()
        course.report(0)
        wanted: Sequence[MemoryRange] = self._copy.ranges if self._found is None else self._found
        self._found, before = [], 0
        for item in wanted:
            start = item.start
            while start < item.end:
                if self._nothing >= _LONG and not self._known:
                    start = self._skipped(start, item, course, before)
                buffer = self._scratch[: item.end - start]
                self._read(MemoryRange(start, len(buffer), item.kind), buffer)
                start += len(buffer)
                course.report(before + start - item.start)
                give_way()
            before += item.size
        course.next()

    def _skipped(self, start: int, within: MemoryRange, course: Course, before: int) -> int:
        """Where to read on, at most a MiB before something that exists; the end if nothing does."""
        for address in range(-(-start // _MIB) * _MIB, within.end, _MIB):
            if self._exists(address) or self._exists(min(address + _MIB, within.end) - 1):
                self._nothing = 0
                return max(start, address - _MIB)
            course.report(before + address - within.start)
        return within.end

    def _exists(self, address: int) -> bool:
        try:
            self._frames.read_within(address, memoryview(bytearray(1)))
        except NotMappedError:
            return False
        return True

    def _read(self, part: MemoryRange, buffer: memoryview) -> None:
        offset, end = self._copy.offset_of(part.start) if part.size else 0, 0
        for begin, end, exists in self._frames.read_existing(part.start, buffer):
            if exists:
                self._copy.store(offset + begin, buffer[begin:end])
                self._add(MemoryRange(part.start + begin, end - begin, part.kind))
                self._nothing = 0
            else:
                self._copy.clear(offset + begin, end - begin)
                self._nothing += end - begin
        self._copy.clear(offset + end, part.size - end)

    def _add(self, part: MemoryRange) -> None:
        assert self._found is not None
        last = self._found[-1] if self._found else None
        if last is not None and (last.end, last.kind) == (part.start, part.kind):
            self._found[-1] = MemoryRange(last.start, last.size + part.size, last.kind)
        else:
            self._found.append(part)
