# SPDX-License-Identifier: Apache-2.0
"""Memory in a stream of QEMU that was saved with mapped-ram: every page has a place of its own in the file.

Each block of RAM has a header behind its name, a bitmap of the pages that are not zeros, and room for all of its pages.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.bitmap import runs
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.layout import Extent
from libmicrovmi_py.drivers.dump.savedram import Block
from libmicrovmi_py.drivers.dump.views import Part, View, Zeros
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE

HEADER = struct.Struct(">I3Q")
"""The version, the size of a page, and where in the file the bitmap and the pages are."""

_NOWHERE = -1
_WAY_OUT = "save the machine without mapped-ram, or pause it before it is saved"


class _Piece(NamedTuple):
    """``size`` bytes of all blocks in a row from ``start`` on; in the file from ``offset`` on, or zeros."""

    start: int
    size: int
    offset: int


class MappedPages:
    """All blocks one after the other, as parts of the file."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._pieces: list[_Piece] = []

    def add(self, block: Block, position: int, *, shared_left_out: bool) -> int:
        """Read the header of a block, and where its pages are; where the last one ends.

        With ``shared_left_out`` a block without any page in the file was left out of it. Raises ``ValueError`` where
        the file is cut, or lies.
        """
        if not self._image.has(position, HEADER.size):
            raise ValueError(f"it ends at {self._image.size:#x}, in the middle of memory")
        version, page, bitmap, pages = HEADER.unpack(self._image.read(position, HEADER.size, "the header of a block"))
        if (version, page) != (1, PAGE_SIZE):
            what = f"a saved machine of QEMU with mapped-ram of version {version} and pages of {page} bytes"
            raise self._image.refused(what, _WAY_OUT)
        behind = position + HEADER.size
        pages -= bitmap - behind  # they count from the start of the file, not of the stream
        count = block.size >> PAGE_SHIFT
        if pages < behind + -(-count // 8):
            raise ValueError(f"the pages of the block {block.name[:80]!r} would be at {pages:#x}")
        if not self._image.has(behind, -(-count // 8)):
            raise ValueError(f"it ends at {self._image.size:#x}, in the middle of memory")
        spans = runs(self._image, behind, count)
        first = next(spans, None)
        if first is not None or not shared_left_out:
            self._add_pieces(block, pages, first or (count, count), spans)
        return int(pages + block.size)

    def _add_pieces(self, block: Block, pages: int, span: tuple[int, int], more: Iterator[tuple[int, int]]) -> None:
        begin, count, start = 0, block.size >> PAGE_SHIFT, block.first << PAGE_SHIFT
        for first, end in (span, *more, (count, count)):
            if begin < first:
                offset, size = pages + (begin << PAGE_SHIFT), first - begin << PAGE_SHIFT
                hole = self._image.has(offset, size) and self._image.next_data(offset) >= offset + size
                self._add(start + (begin << PAGE_SHIFT), size, offset if hole else _NOWHERE)
            offset = pages + (first << PAGE_SHIFT)
            if first < end:
                size = self._image.clipped(
                    offset, end - first << PAGE_SHIFT, f"memory of the block {block.name[:80]!r}"
                )
                self._add(start + (first << PAGE_SHIFT), size & -PAGE_SIZE, offset)
            begin = end

    def _add(self, start: int, size: int, offset: int) -> None:
        before = self._pieces[-1] if self._pieces else None
        follows = before is not None and before.start + before.size == start
        if before and follows and offset == (before.offset + before.size if before.offset >= 0 else _NOWHERE):
            self._pieces[-1] = _Piece(before.start, before.size + size, before.offset)
        elif size:
            self._pieces.append(_Piece(start, size, offset))
        if len(self._pieces) > MAX_PIECES:
            raise self._image.refused(f"a saved machine of QEMU in more than {MAX_PIECES} pieces", _WAY_OUT)

    def view(self) -> Image:
        """All of them, by where they start; the file if there are none."""
        if not self._pieces:
            return self._image
        longest = max((item.size for item in self._pieces if item.offset < 0), default=0)
        zeros = Zeros(self._image, longest)
        return View(
            self._image.path,
            [
                Part(item.start, item.size, zeros if item.offset < 0 else self._image, max(item.offset, 0))
                for item in self._pieces
            ],
        )

    def extents(self, block: Block, offset: int, size: int, address: int) -> Iterator[Extent]:
        """What is there of those bytes of a block, as memory from ``address`` on, by where it is in the view."""
        start = (block.first << PAGE_SHIFT) + offset
        index = max(bisect.bisect_right(self._pieces, start, key=lambda item: item.start) - 1, 0)
        end, begin = start + size, start
        while begin < end and index < len(self._pieces):
            piece = self._pieces[index]
            begin = max(begin, piece.start)
            until = min(piece.start + piece.size, end)
            if begin < until:
                yield Extent(address + begin - start, until - begin, begin)
            begin, index = max(begin, until), index + 1

    def bytes_of(self, block: Block) -> bytes:
        """All of a block; nothing if it is not there."""
        there = list(self.extents(block, 0, block.size, 0))
        if sum(item.size for item in there) < block.size:
            return b""
        return self.view().read(there[0].offset, block.size, "a block")
