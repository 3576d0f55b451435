# SPDX-License-Identifier: Apache-2.0
"""Memory by address, once for all drivers: the loops over regions and frames, partial counts, padding, checks.

Stateless: nothing here has a cursor or a lock, so any number of threads may read at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

from libmicrovmi_py.drivers.base import (
    Driver,
    Region,
    SupportsFrames,
    SupportsFrameWrites,
    SupportsMemoryMap,
    SupportsRegions,
)
from libmicrovmi_py.errors import AccessError, InvalidArgumentError, IoError, NotMappedError, ReadOnlyError
from libmicrovmi_py.model import PAGE_SIZE, PHYSICAL_BITS, U64_MAX, MemoryKind

_ZEROS = memoryview(bytes(1 << 20))


class _Piece(Protocol):
    """A part of an access that one region or one frame serves; ``begin`` and ``end`` are offsets in the access."""

    @property
    def begin(self) -> int: ...

    @property
    def end(self) -> int: ...

    def read_into(self, buffer: memoryview) -> None:
        """Fill ``buffer``, which is as long as the piece; ``NotMappedError`` if it does not exist after all."""

    def check_writable(self, address: int) -> None:
        """Raise unless the piece can be written; ``address`` is its guest-physical address, for the message."""

    def write_from(self, data: memoryview) -> None:
        """Write ``data``, which is as long as the piece."""


class _RegionPiece(NamedTuple):
    begin: int
    end: int
    region: Region
    offset: int

    def read_into(self, buffer: memoryview) -> None:
        self.region.source.read_into(self.offset, buffer)

    def check_writable(self, address: int) -> None:
        if self.region.kind is MemoryKind.ROM:
            raise ReadOnlyError(f"physical address {address:#x} is read-only memory", address=address)
        if not self.region.source.writable:
            raise ReadOnlyError("this machine's memory cannot be written: it is open read-only", address=address)

    def write_from(self, data: memoryview) -> None:
        self.region.source.write_from(self.offset, data)


class _FramePiece(NamedTuple):
    begin: int
    end: int
    driver: SupportsFrames
    frame: int
    offset: int

    def read_into(self, buffer: memoryview) -> None:
        self.driver.read_frame(self.frame, self.offset, buffer)

    def check_writable(self, address: int) -> None:
        if not isinstance(self.driver, SupportsFrameWrites):
            raise ReadOnlyError("this driver cannot write memory", address=address)
        self.driver.read_frame(self.frame, self.offset, memoryview(bytearray(1)))

    def write_from(self, data: memoryview) -> None:
        if isinstance(self.driver, SupportsFrameWrites):
            self.driver.write_frame(self.frame, self.offset, data)


def _region_pieces(driver: SupportsRegions, address: int, size: int) -> Iterator[_Piece]:
    regions = driver.regions()
    index = max(bisect_right(regions, address, key=lambda region: region.start) - 1, 0)
    for region in regions[index:]:
        begin, end = max(region.start - address, 0), min(region.end - address, size)
        if begin >= size:
            return
        if begin < end:
            yield _RegionPiece(begin, end, region, region.offset + address + begin - region.start)


def _frame_pieces(driver: SupportsFrames, address: int, size: int) -> Iterator[_Piece]:
    begin, size = 0, min(size, (1 << PHYSICAL_BITS) - address)
    while begin < size:
        frame, offset = divmod(address + begin, PAGE_SIZE)
        end = min(begin + PAGE_SIZE - offset, size)
        yield _FramePiece(begin, end, driver, frame, offset)
        begin = end


def _not_mapped(address: int, size: int, done: int) -> NotMappedError:
    return NotMappedError(
        f"no memory at physical address {address + done:#x} ({done} of {size} bytes before it)",
        address=address + done,
        requested=size,
        completed=done,
    )


def _stopped(err: AccessError, address: int, size: int, done: int) -> AccessError:
    """The same error, telling where in the whole access it came up."""
    kind = IoError if isinstance(err, NotMappedError) else type(err)
    done += err.completed
    return kind(str(err), address=address + done, requested=size, completed=done)


class PhysicalMemory:
    """A driver's memory by guest-physical address, in bytes. Addresses are 0 to 2**64 - 1, sizes any."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._by_region = isinstance(driver, SupportsRegions)
        self._pieces_of: Callable[[int, int], Iterator[_Piece]]
        if isinstance(driver, SupportsRegions):
            self._pieces_of = partial(_region_pieces, driver)
        elif isinstance(driver, SupportsFrames):
            self._pieces_of = partial(_frame_pieces, driver)
        else:
            raise InvalidArgumentError(f"driver {driver.name} has neither regions() nor read_frame()")

    @property
    def max_addr(self) -> int:
        """One past the last byte of RAM."""
        return self._driver.max_addr

    def _pieces(self, address: int, size: int) -> Iterator[_Piece]:
        if not 0 <= address <= U64_MAX:
            raise InvalidArgumentError(f"physical address {address:#x} is not within 64 bits")
        return self._pieces_of(address, size)

    def read_into(self, address: int, buffer: memoryview) -> int:
        """Fill ``buffer`` (bytes, one dimension) up to the first byte that does not exist.

        Returns the length of that valid prefix; the rest of the buffer is as it was. Raises an ``AccessError`` whose
        ``completed`` is the valid prefix for everything but memory that does not exist.
        """
        done = 0
        try:
            for piece in self._pieces(address, len(buffer)):
                if piece.begin != done:
                    break
                piece.read_into(buffer[done : piece.end])
                done = piece.end
        except NotMappedError as err:
            done += err.completed
        except AccessError as err:
            raise _stopped(err, address, len(buffer), done) from err
        return done

    def read_padded_into(self, address: int, buffer: memoryview) -> None:
        """Fill ``buffer``; bytes that do not exist are zeros. Raises as :meth:`read_into`."""
        done = 0
        try:
            for piece in self._pieces(address, len(buffer)):
                _clear(buffer[done : piece.begin])
                done = piece.begin
                self._read_or_clear(piece, buffer[done : piece.end])
                done = piece.end
        except AccessError as err:
            raise _stopped(err, address, len(buffer), done) from err
        _clear(buffer[done:])

    def _read_or_clear(self, piece: _Piece, buffer: memoryview) -> None:
        try:
            piece.read_into(buffer)
        except NotMappedError:
            if self._by_region:
                raise
            _clear(buffer)

    def write_from(self, address: int, data: memoryview) -> None:
        """Write ``data``, all or nothing: the whole range is checked first.

        Raises ``NotMappedError`` or ``ReadOnlyError``, and any ``AccessError`` whose ``completed`` tells how much
        was written when a hypervisor fails in the middle.
        """
        pieces = list(self._pieces(address, len(data)))
        self._check_write(pieces, address, len(data))
        if len(pieces) > 1 and not self._by_region:
            self._check_rom(address, address + len(data))
        done = 0
        try:
            for piece in pieces:
                piece.write_from(data[piece.begin : piece.end])
                done = piece.end
        except AccessError as err:
            raise _stopped(err, address, len(data), done) from err

    def _check_write(self, pieces: list[_Piece], address: int, size: int) -> None:
        end = 0
        for piece in pieces:
            if piece.begin != end:
                break
            try:
                piece.check_writable(address + piece.begin)
            except NotMappedError:
                break
            end = piece.end
        if end != size:
            hole = _not_mapped(address, size, end)
            raise NotMappedError(str(hole), address=hole.address, requested=size)

    def _check_rom(self, start: int, end: int) -> None:
        """A driver of frames refuses a read-only one by itself, but perhaps after others were written."""
        if not isinstance(self._driver, SupportsMemoryMap):
            return
        for known in self._driver.memory_map():
            if known.kind is MemoryKind.ROM and known.start < end and start < known.end:
                first = max(start, known.start)
                raise ReadOnlyError(f"physical address {first:#x} is read-only memory", address=first)


def read_exactly(memory: PhysicalMemory, address: int, buffer: memoryview) -> None:
    """Fill ``buffer`` or raise ``NotMappedError`` whose ``completed`` is the valid prefix."""
    done = memory.read_into(address, buffer)
    if done < len(buffer):
        raise _not_mapped(address, len(buffer), done)


def _clear(buffer: memoryview) -> None:
    for start in range(0, len(buffer), len(_ZEROS)):
        piece = buffer[start : start + len(_ZEROS)]
        piece[:] = _ZEROS[: len(piece)]
