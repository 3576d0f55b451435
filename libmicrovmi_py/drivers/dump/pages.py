# SPDX-License-Identifier: Apache-2.0
"""Memory that is unpacked when it is read: page by page, or out of an image whose bytes have to be unpacked."""

from __future__ import annotations

import bisect
import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, Any
from libmicrovmi_py.drivers.dump.image import Image, Place
from libmicrovmi_py.drivers.dump.layout import Extent, Span
from libmicrovmi_py.errors import AccessError, IoError
from libmicrovmi_py.model import PAGE_SIZE
from libmicrovmi_py.transport.native import give_way
from libmicrovmi_py.transport.packing import ImagePart, Packing, PageCodec

if TYPE_CHECKING:
    from array import array


def words(kind: str, content: bytes | Iterable[int] = b"") -> array[int]:
    """Numbers of a few bytes each: ``kind`` is ``"B"`` (1), ``"I"`` (4) or ``"Q"`` (8)."""
    return _array()(kind, content)


@functools.cache
def _array() -> type[array[int]]:
    from array import array  # of all that opens a dump only packed pages need it

    return array


class Spans(Sequence[Span]):
    """(start, end) in bytes of runs of pages, which a format keeps as numbers of pages: there may be many."""

    def __init__(self, starts: Sequence[int], ends: Sequence[int], size: int) -> None:
        self._starts, self._ends, self._size = starts, ends, size

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Spans(self._starts[index], self._ends[index], self._size)
        return self._starts[index] * self._size, self._ends[index] * self._size

    def __iter__(self) -> Iterator[Span]:
        size = self._size
        return ((first * size, end * size) for first, end in zip(self._starts, self._ends, strict=True))


class PackedPages:
    """Pages that are unpacked one by one. A format says which there are (:meth:`add`), and unpacks them (:meth:`page`).

    Runs of pages take 24 bytes each, however many pages they have. ``size`` is that of a page in bytes, a power of 2.
    """

    def __init__(self, image: Image, size: int) -> None:
        self.image = image
        self.size = size
        self._starts, self._ends, self._indices = words("Q"), words("Q"), words("Q")
        self._touching = False
        self.packing: Packing | None = None

    def read_in_c(self, codecs: Iterable[PageCodec], *, table: int = 0, entries: array[int] | None = None) -> None:
        """From now on C reads these pages, which are all that there are: as :class:`Packing` has them.

        What C does not unpack is asked of :meth:`unpacked`, which tells why.
        """
        if not self._starts or not self.image.flat:
            return
        with contextlib.suppress(IoError):  # a part of a view that is nowhere
            parts = [_part(start, place) for start, place in self.image.pieces()]
            runs = self._starts, self._ends, self._indices
            self.packing = Packing(runs, self.size, parts, codecs, table=table, entries=entries)

    def add(self, first: int, end: int, index: int) -> None:
        """The pages from number ``first`` to before ``end`` are there; they are called ``index``, ``index + 1``, ...

        In ascending order. One that follows the last run in both its numbers and its indices makes that longer.
        """
        if self._ends and self._ends[-1] == first and self._indices[-1] + first - self._starts[-1] == index:
            self._ends[-1] = end
            return
        if self._ends and first < self._ends[-1]:
            raise self.image.damaged(f"page {first:#x} is there twice, or pages are not in order")
        self._touching = self._touching or (bool(self._ends) and self._ends[-1] == first)
        self._starts.append(first)
        self._ends.append(end)
        self._indices.append(index)

    def add_all(self, starts: array[int], ends: array[int], indices: array[int]) -> None:
        """The same for all runs at once: as arrays, which are kept, and of which none follows another without a gap."""
        self._starts, self._ends, self._indices = starts, ends, indices

    def leave_out(self, lost: Sequence[tuple[int, int]]) -> None:
        """The pages called ``first`` to before ``end`` are not there after all; sorted."""
        runs = list(zip(self._starts, self._ends, self._indices, strict=True))
        self._starts, self._ends, self._indices = words("Q"), words("Q"), words("Q")
        place = 0
        for first, end, index in runs:
            while place < len(lost) and lost[place][1] <= index:
                place += 1
            gap = place
            while first < end:
                begin, until = lost[gap] if gap < len(lost) else (index + end - first, 0)
                there = min(begin - index, end - first)
                if there > 0:
                    self.add(first, first + there, index)
                step = max(until - index, there)
                first, index, gap = first + step, index + step, gap + 1

    def unpacked(self, index: int, count: int) -> Iterator[bytes]:
        """``count`` pages from that one on, which follow each other in memory as well. Raises as :meth:`page`."""
        for number in range(index, index + count):
            yield self.page(number)

    def page(self, index: int) -> bytes:
        """The page that :meth:`add` called ``index``: ``size`` bytes. A format has this, or :meth:`unpacked`.

        Raises ``ValueError`` with what is wrong for one that cannot be unpacked, or ``IoError``.
        """
        raise NotImplementedError

    def ranges(self) -> Sequence[tuple[int, int]]:
        """(start, end) of the memory that is in the file, in bytes."""
        if not self._touching:
            return Spans(self._starts, self._ends, self.size)
        found: list[tuple[int, int]] = []
        for first, end in zip(self._starts, self._ends, strict=True):
            start = found.pop()[0] if found and found[-1][1] == first * self.size else first * self.size
            found.append((start, end * self.size))
        return found

    def read_range(self, address: int, buffer: memoryview) -> int:
        """Fill ``buffer`` up to the first page that is not in the file; the length of that."""
        done = 0
        while done < len(buffer):
            done += self.packing.read(address + done, buffer[done:]) if self.packing else 0
            if done == len(buffer):
                break
            number, begin = divmod(address + done, self.size)
            run = bisect.bisect_right(self._starts, number) - 1
            if run < 0 or number >= self._ends[run]:
                break
            count = min(-(-(begin + len(buffer) - done) // self.size), self._ends[run] - number)
            count = 1 if self.packing else count  # the next one may be C's again
            pages = self.unpacked(self._indices[run] + number - self._starts[run], count)
            for _ in range(count):
                content = self._next(pages, address + done, done)
                length = min(self.size - begin, len(buffer) - done)
                buffer[done : done + length] = memoryview(content)[begin : begin + length]
                done, begin = done + length, 0
                give_way()
        return done

    def _next(self, pages: Iterator[bytes], address: int, done: int) -> bytes:
        try:
            content = next(pages)
            if len(content) != self.size:
                raise ValueError(f"it has {len(content)} bytes")
        except (ValueError, KeyError, AccessError) as err:
            text = f"{self.image.path}: the page of physical address {address:#x} is damaged: {err}"
            raise IoError(text, address=address, completed=done) from err
        return content


def _part(start: int, place: Place) -> ImagePart:
    offset = place.mapping.offset + place.offset
    return ImagePart(start, start + place.size, offset, place.mapping.file())


class ExtentPages:
    """Extents of an image that is not ``flat``: they lie there as memory has them, and the image unpacks its pieces.

    Memory that is read this way consists of whole frames: one that is there in part has zeros for the rest.
    """

    def __init__(self, image: Image, extents: Sequence[Extent]) -> None:
        self._image, self._extents = image, extents
        self._starts = [extent.start for extent in extents]

    def ranges(self) -> Sequence[tuple[int, int]]:
        """(start, end) of the frames that are there, in bytes."""
        found: list[tuple[int, int]] = []
        for extent in self._extents:
            start, end = extent.start & -PAGE_SIZE, -(-extent.end // PAGE_SIZE) * PAGE_SIZE
            start = found.pop()[0] if found and found[-1][1] >= start else start
            found.append((start, end))
        return found

    def read_range(self, address: int, buffer: memoryview) -> int:
        """Fill ``buffer`` up to the first frame that is not in the image; the length of that."""
        done = 0
        while done < len(buffer):
            begin = address + done
            extent, zeros = self._at(begin)
            length = min(zeros or extent.end - begin, len(buffer) - done)
            if length <= 0:
                break
            offset = extent.offset + begin - extent.start
            buffer[done : done + length] = bytes(length) if zeros else self._bytes(offset, length, begin, done)
            done += length
            give_way()
        return done

    def _at(self, address: int) -> tuple[Extent, int]:
        """The extent that has the address, or how many zeros its frame has from there on."""
        index = bisect.bisect_right(self._starts, address) - 1
        extent = self._extents[index] if index >= 0 else _NOWHERE
        if address < extent.end:
            return extent, 0
        end = address - address % PAGE_SIZE + PAGE_SIZE
        following = self._starts[index + 1] if index + 1 < len(self._starts) else end
        there = extent.end > address - address % PAGE_SIZE or following < end
        return Extent(address, 0, 0), (min(following, end) - address if there else 0)

    def _bytes(self, offset: int, size: int, address: int, done: int) -> bytes:
        try:
            return self._image.read(offset, size, f"memory from {address:#x} on")
        except AccessError as err:
            text = f"physical address {address:#x} cannot be unpacked: {err}"
            raise IoError(text, address=address, completed=done) from err


_NOWHERE = Extent(0, 0, 0)
