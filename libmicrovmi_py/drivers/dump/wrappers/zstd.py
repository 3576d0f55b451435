# SPDX-License-Identifier: Apache-2.0
"""zstd: a file of several frames that tell their size is read at random, another is unpacked as a whole.

RFC 8878: a frame is a header and blocks of a header of 3 bytes; the frames of the seekable format, and of ``pzstd``,
are small ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump import codecs, unpacked
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.packed import LARGEST_PIECE, Packed
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.probing import Probe, Sure

BEGINS = (b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18")
"""A frame, and one that is passed over, which ``pzstd`` writes before each."""

_SKIPPABLE, _RLE, _RESERVED = 0x184D2A50, 1, 3
_MOST, _MOST_EMPTY = 1 << 22, 64
"""Frames, and blocks of nothing in one: more is no index to be made in Python."""


def probe(image: Image) -> Probe | None:
    """By the signature of the first frame that has anything, and a bit that is 0."""
    start = image.start
    if start.startswith(BEGINS[1]) and len(start) >= 8:
        begin = 8 + int.from_bytes(start[4:8], "little")
        start = image.read(begin, 5, "a frame") if image.has(begin, 5) else b""
    if not start.startswith(BEGINS[0]):
        return None
    return Probe(Sure.CERTAIN if len(start) > 4 and not start[4] & 8 else Sure.POSSIBLE, "a zstd file")


def unwrap(image: Image) -> Image:
    """What is inside."""
    try:
        frames = list(_frames(image))
    except ValueError:
        frames = []
    if len(frames) > 1 and all(0 < frame.size <= LARGEST_PIECE for frame in frames):
        return _Frames(image, frames)
    return unpacked.whole(image, codecs.zstd_stream(unpacked.blocks(image)), "zstd")


class _Frame(NamedTuple):
    """Where a frame is, and its size, packed and unpacked; 0 if that is not told."""

    offset: int
    length: int
    size: int


class _Frames(Packed):
    def __init__(self, image: Image, frames: Sequence[_Frame]) -> None:
        starts = [0]
        for frame in frames:
            starts.append(starts[-1] + frame.size)
        super().__init__(image, words("Q", starts))
        self._frames, self._unpack = frames, codecs.zstd()

    def unpack(self, index: int) -> bytes:
        """It stands alone."""
        frame = self._frames[index]
        return self._unpack(self.image.read(frame.offset, frame.length, "a frame"), frame.size)


def _frames(image: Image) -> Iterator[_Frame]:
    """The frames with content. Raises ``ValueError`` where there is none, or none that can be found so."""
    position = count = 0
    while position < image.size:
        head = image.read(position, min(18, image.size - position), "a frame").ljust(18, b"\0")
        if int.from_bytes(head[:4], "little") & ~0xF == _SKIPPABLE:
            position += 8 + int.from_bytes(head[4:8], "little")
            continue
        if not head.startswith(BEGINS[0]) or count == _MOST:
            raise ValueError("no frame")
        size, begin = _header(head)
        end = _end(image, position + begin) + (4 if head[4] & 4 else 0)
        if end > image.size:
            raise ValueError("a frame is cut")
        yield _Frame(position, end - position, size)
        position, count = end, count + 1


def _header(head: bytes) -> tuple[int, int]:
    """The size of a frame's content, 0 if it is not told, and how long its header is."""
    flags = head[4]
    single = flags >> 5 & 1
    begin = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    size = int.from_bytes(head[begin : begin + width], "little") + (256 if width == 2 else 0)
    return size, begin + width


def _end(image: Image, position: int) -> int:
    """Where the blocks end that begin there."""
    empty, last = 0, 0
    while not last:
        if not image.has(position, 3):
            raise ValueError("a frame is cut")
        head = int.from_bytes(image.read(position, 3, "a block"), "little")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        empty += size == 0
        if kind == _RESERVED or empty > _MOST_EMPTY:
            raise ValueError("no block")
        position += 3 + (1 if kind == _RLE else size)
    return position
