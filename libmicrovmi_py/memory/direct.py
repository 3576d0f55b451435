# SPDX-License-Identifier: Apache-2.0
"""Memory of drivers that tell regions: an immutable table in C, which does the reading and writing without Python."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, Any, NamedTuple
from libmicrovmi_py.drivers.base import Anew, Region, SupportsMemoryMap, SupportsRegions
from libmicrovmi_py.errors import (
    AccessError,
    IoError,
    NotMappedError,
    NotSupportedError,
    PermissionDeniedError,
    ReadOnlyError,
    VmGoneError,
    not_mapped,
)
from libmicrovmi_py.memory.batch import Result, Whole, understood
from libmicrovmi_py.memory.cache import PageCache
from libmicrovmi_py.memory.checks import check_address, check_maximum, check_ranges
from libmicrovmi_py.model import PAGE_SIZE, U64_MAX
from libmicrovmi_py.transport.deadline import limited
from libmicrovmi_py.transport.native import functions, native
from libmicrovmi_py.transport.reach import Reach

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from libmicrovmi_py.transport.foreign_reads import ForeignReads

_ASK_PYTHON = -1
_FARTHEST = (1 << 63) - 1

_LOOK = 0.02
"""Seconds for which the answer counts that memory has yet to arrive."""

_PATIENCE = 1.0
"""Seconds that a read may wait for that answer."""

_ERRORS: dict[int, type[AccessError]] = {
    kind.code: kind for kind in (NotMappedError, PermissionDeniedError, VmGoneError, IoError, ReadOnlyError)
}


class Table:
    """The regions of one moment, and everything that they point at: hold it while C uses its pointer."""

    def __init__(
        self,
        regions: Sequence[Region],
        max_addr: int,
        cache: PageCache | None = None,
        *,
        by_frames: bool = False,
        foreign: ForeignReads | None = None,
        lasts: bool = False,
    ) -> None:
        """``by_frames``, without regions, is for a driver of frames: C reads the pages in the cache only, and what
        ``foreign`` reads. ``lasts``, as does a cache: the memory does not change by itself, so that translations of
        virtual addresses may be remembered.

        Raises ``IoError`` for regions that no machine can have.
        """
        ffi, lib = native()
        check_maximum(max_addr)
        check_ranges(regions)
        rows = ffi.new("struct mvi_region[]", max(len(regions), 1))
        sources = {id(region.source): region.source for region in regions}
        reaches = {key: source.reach() for key, source in sources.items()}
        for row, region in zip(rows, regions, strict=False):
            _fill(row, region, reaches[id(region.source)])
        self.awaited = any(reach.awaited for reach in reaches.values())
        lasts = lasts or cache is not None
        if not by_frames and all(reach.view is not None for reach in reaches.values()):
            cache = None  # a mapping is cheaper than a kept page
        self.cache = cache
        self._kept = reaches, sources, foreign
        pages = cache.pointer if cache else ffi.NULL
        reads = foreign.pointer if foreign else ffi.NULL
        table = lib.mvi_table_new(rows, len(regions), max_addr, pages, by_frames, reads)
        if table == ffi.NULL:
            raise MemoryError(f"no memory for a table of {len(regions)} regions")
        self.pointer: Any = ffi.gc(table, lib.mvi_table_free)
        if lasts:
            lib.mvi_table_lasts(table)
        self.address = int(ffi.cast("uintptr_t", table))

    def release(self, _: object) -> None:
        """Does nothing: as the destructor of an object of C it keeps this table alive until that object ends."""


def _fill(row: Any, region: Region, reach: Reach) -> None:
    """Describe ``region`` in a ``struct mvi_region``; ``reach`` is how C gets at its source, to be kept alive."""
    for view in (reach.view, reach.writable):
        if view is not None and not 0 <= region.offset <= len(view) - region.size:
            raise IoError(f"the driver's memory map is wrong: {region.start:#x} is not within what it mapped")
    if not 0 <= reach.offset + region.offset <= _FARTHEST - region.size:
        raise IoError(f"the driver's memory map is wrong: {region.start:#x} lies at no offset that a file can have")
    row.start, row.size, row.kind = region.start, region.size, region.kind
    row.offset = reach.offset + region.offset
    row.fd = reach.fd.number if reach.fd else -1
    row.write_fd = reach.writer.number if reach.writer else -1
    row.pid = reach.pid
    row.pidfd = reach.pidfd.number if reach.pidfd else -1
    row.pagemap_fd = reach.pagemap.number if reach.pagemap else -1
    row.image, row.arriving, row.unsteady = reach.image, reach.arriving, region.unsteady
    row.mapping = native().ffi.NULL if reach.mapping is None else reach.mapping
    row.bytes = _address(reach.view, region.offset)
    row.writable = _address(reach.writable, region.offset)


def _address(view: memoryview | None, offset: int) -> Any:
    """Where the bytes are, which stay there as long as the view lives.

    Nothing is kept of cffi's, here or in a frame that an error may come through: a view that somebody exports crashes
    CPython when it is garbage in a cycle.
    """
    ffi = native().ffi
    return ffi.NULL if view is None else ffi.from_buffer("uint8_t[]", view) + offset


class Stream(NamedTuple):
    """The ways of a stream without Python. Positions and sizes are bytes."""

    readinto: Callable[[WriteableBuffer], int]
    read: Callable[[int], bytes]
    seek: Callable[[int, int], int]


class _Bound:
    """What a stream's calls of C need, and the regions that it is for. Whoever uses the address holds the object."""

    __slots__ = ("regions", "stream")

    def __init__(self) -> None:
        self.stream: tuple[Any, int] = None, 0
        self.regions: Sequence[Region] | None = None

    def forget(self) -> None:
        """The table changes."""
        self.regions = None


def _ways(regions: Callable[[], Sequence[Region]], bound: _Bound, bind: Callable[[], None]) -> Stream:
    """The calls of a stream; names of functions are looked up once."""
    ffi, lib = native()
    from_buffer, characters, take = ffi.from_buffer, ffi.typeof("uint8_t[]"), lib.mvi_stream_take
    take_bytes, move = functions().take_bytes, lib.mvi_stream_move

    def readinto(buffer: WriteableBuffer) -> int:
        if regions() is not bound.regions:
            bind()
        target = from_buffer(characters, buffer, True)
        size = len(target)
        done: int = take(bound.stream[0], target, size)
        if done < 0:
            del target  # the error's traceback holds this frame: see _address()
            raise _stream_error(-done, size)
        return done

    def read(size: int) -> bytes:
        if regions() is not bound.regions:
            bind()
        held = bound.stream
        found = take_bytes(held[1], size)
        if isinstance(found, int):
            raise _stream_error(found, size)
        return found

    def seek(offset: int, whence: int) -> int:
        if regions() is not bound.regions:
            bind()
        position: int = move(bound.stream[0], offset, whence)
        return position

    return Stream(readinto, read, seek)


class DirectMemory:
    """Memory by address over a driver's regions; the table follows the driver's regions."""

    def __init__(self, driver: SupportsRegions) -> None:
        self._driver = driver
        self._regions: Sequence[Region] | None = None
        self._table = Table((), 0)
        self._cache: PageCache | None = None
        self._lasts = False
        self._known_until = 0.0
        self._lock = threading.Lock()
        self._forget: list[Callable[[], None]] = []

    def table(self) -> Table:
        """The table of the regions that the driver tells now; a new one if they are not those of the last call."""
        if self._table.awaited:
            self._look_for_memory()
        if self._driver.regions() is not self._regions:
            self._make_table()
        return self._table

    def present(self) -> Table | None:
        """As :meth:`table`, where nobody has to be asked; ``None`` while memory is awaited, as only Python asks."""
        if self._driver.regions() is not self._regions:
            self._make_table()
        return None if self._table.awaited else self._table

    def _look_for_memory(self) -> None:
        """Ask the driver whether memory that is awaited has come, unless it was asked just now."""
        if self._known_until < time.monotonic() and isinstance(self._driver, SupportsMemoryMap):
            try:
                with limited(_PATIENCE):
                    self._driver.memory_map()
            finally:
                self._known_until = time.monotonic() + _LOOK

    def _make_table(self) -> None:
        with self._lock:
            regions = self._driver.regions()
            anew = self._regions is not regions and (self._regions != regions or isinstance(regions, Anew))
            if self._cache is not None and self._regions is not None and anew:
                self._cache = self._cache.emptied()
            self._table = Table(regions, self._driver.max_addr, self._cache, lasts=self._lasts)
            self._regions = regions
            for forget in self._forget:
                forget()

    def use_cache(self, cache: PageCache | None) -> None:
        """From now on keep pages in ``cache``, or none."""
        if cache is None and self._cache is None and self._driver.regions() is self._regions:
            return
        self._cache = cache
        self._make_table()

    def keep_translations(self) -> None:
        """The memory never changes: translations of virtual addresses are remembered from now on."""
        self._lasts = True
        self._make_table()

    def read(self, address: int, size: int) -> bytes:
        """As ``PhysicalMemory.read``."""
        table = self.table()
        found = functions().read_bytes(table.address, address, size)
        if isinstance(found, tuple):
            code, done = found
            raise read_error(code, address, size, done)
        return found

    def read_into(self, address: int, buffer: memoryview) -> int:
        """As ``PhysicalMemory.read_into``."""
        code, done = self._read(False, address, buffer)
        if code and code != NotMappedError.code:
            raise read_error(code, address, len(buffer), done)
        return done

    def read_padded_into(self, address: int, buffer: memoryview) -> None:
        """As ``PhysicalMemory.read_padded_into``."""
        code, done = self._read(True, address, buffer)
        if code:
            raise read_error(code, address, len(buffer), done)

    def _read(self, padded: bool, address: int, buffer: memoryview) -> tuple[int, int]:
        ffi, lib = native()
        done = ffi.new("uint64_t *")
        table = self.table()
        target = ffi.from_buffer("uint8_t[]", buffer, require_writable=True)
        code = lib.mvi_table_read(table.pointer, padded, address, target, len(buffer), done)
        return code, done[0]

    def write_from(self, address: int, data: memoryview) -> None:
        """As ``PhysicalMemory.write_from``; the first write opens the memory for writing.

        Raises what the driver raises when it cannot tell whether memory that may be unplugged is still there.
        """
        code, done = self._write(address, data, checked=False)
        if code == _ASK_PYTHON:
            self.prepare_write(address, len(data))
            code, done = self._write(address, data, checked=True)
        if code:
            refused = code in (NotMappedError.code, ReadOnlyError.code)
            raise (
                read_error(code, address + done, len(data), 0)
                if refused
                else read_error(code, address, len(data), done)
            )

    def prepare_write(self, address: int, size: int) -> None:
        """What C does not do of a write: see to it that memory is still there, and open it.

        Raises what the driver raises when it cannot tell.
        """
        self._look_again(address, size)
        self._open_for_writing(address, size)

    def _look_again(self, address: int, size: int) -> None:
        """Before a write to memory that may have been unplugged meanwhile: have the driver read its map anew."""
        if any(region.unsteady for region in self._within(address, size)) and isinstance(
            self._driver, SupportsMemoryMap
        ):
            self._driver.memory_map()

    def _within(self, address: int, size: int) -> list[Region]:
        return [item for item in self._driver.regions() if item.start < address + size and address < item.end]

    def _write(self, address: int, data: memoryview, *, checked: bool) -> tuple[int, int]:
        ffi, lib = native()
        done = ffi.new("uint64_t *")
        table = self.table()
        source = ffi.from_buffer("uint8_t[]", data)
        code = lib.mvi_table_write(table.pointer, address, source, len(data), checked, done)
        return code, done[0]

    def _open_for_writing(self, address: int, size: int) -> None:
        for region in self._within(address, size):
            region.source.open_for_writing()
        self._make_table()

    def stream(self, cursor: Any, padded: bool) -> Stream:
        """What a stream does at a cursor, each in one call of C.

        What they need is bound until the table changes: small reads are asked for often.
        """
        ffi = native().ffi
        bound = _Bound()

        def bind() -> None:
            self.table()
            with self._lock:
                made = ffi.new("struct mvi_stream *", (cursor, self._table.pointer, padded))
                bound.stream = ffi.gc(made, self._table.release), int(ffi.cast("uintptr_t", made))
                bound.regions = None if self._table.awaited else self._regions

        self._forget.append(bound.forget)
        return _ways(self._driver.regions, bound, bind)

    def read_batch(self, requests: Iterable[tuple[int, WriteableBuffer]]) -> list[Result]:
        """As ``PhysicalMemory.read_batch``."""
        table, pairs = self.table(), list(requests)
        found = functions().read_batch(table.address, pairs)
        if isinstance(found, int):
            found = functions().read_batch(table.address, understood(pairs, check_address))
        assert isinstance(found, list)
        whole = Whole()
        return [
            whole[item] if isinstance(item, int) else _failed(request, *item)
            for item, request in zip(found, pairs, strict=True)
        ]

    def read_tables(self, runs: Any) -> None:
        """Do the reads that a walk over page tables wants (``runs.h``); what is no memory is no error."""
        ffi, lib = native()
        address = ffi.new("uint64_t *")
        if code := lib.mvi_runs_read(runs, self.table().pointer, address):
            raise read_error(code, address[0], PAGE_SIZE, 0)

    def view(self, address: int, size: int) -> memoryview:
        """The bytes themselves, read-only: ``NotMappedError``, ``NotSupportedError`` where they are not mapped here."""
        for region in self._driver.regions():
            if region.start <= address and address + size <= region.end:
                mapped = region.source.reach().view
                if mapped is None:
                    raise NotSupportedError("this memory is another process's, not mapped here: read it instead")
                begin = region.offset + address - region.start
                return mapped[begin : begin + size].toreadonly()
        if self.read_into(address, memoryview(bytearray(1))):
            raise NotMappedError(f"{size} bytes at {address:#x} are not in one piece", address=address, requested=size)
        raise not_mapped(address, size, 0)

    def find(self, address: int, hole: bool) -> int:
        """The first byte at or after ``address`` that may hold something, or that is a hole; the maximum if none."""
        table = self.table()
        return int(native().lib.mvi_table_find(table.pointer, address, hole))


def _failed(request: tuple[int, WriteableBuffer], code: int, done: int) -> Result:
    address, buffer = request
    return Result(done, read_error(code, address, memoryview(buffer).nbytes, done))


def _stream_error(code: int, size: int) -> AccessError:
    """What made the last read of a stream in this thread fail."""
    ffi, lib = native()
    position, done = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    lib.mvi_stream_failure(position, done)
    return read_error(code, position[0], size, done[0])


def read_error(code: int, address: int, size: int, done: int) -> AccessError:
    """The error of a code that C gave for an access to physical memory, of which so many bytes were done."""
    ffi, lib = native()
    text = ffi.new("char[]", native().lib.MVI_DESCRIPTION)
    lib.mvi_describe(code, address & U64_MAX, size, done, text, len(text))
    return access_error(code, ffi.string(text).decode(), address + done, size, done)


def access_error(code: int, text: str, address: int, size: int, done: int) -> AccessError:
    """The error of a code that C gave for an access, which stopped at ``address``."""
    return _ERRORS.get(code, IoError)(text, address=address, requested=size, completed=done)
