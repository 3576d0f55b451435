# SPDX-License-Identifier: Apache-2.0
"""xz: a file of several blocks, as ``xz -T`` and pixz write it, is read at random, another is unpacked as a whole.

https://tukaani.org/xz/xz-file-format.txt: streams of a header, blocks, an index with the sizes of the blocks, a footer.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Iterator, Sequence

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump import unpacked
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.packed import LARGEST_PIECE, Packed
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.probing import Probe, Sure

BEGINS = (b"\xfd7zXZ\x00",)

_HEADER, _FOOTER = 12, struct.Struct("<2I2s2s")
_MEMORY = 1 << 30
"""Bytes that the decompressor may take: the largest dictionary of ``xz -9`` takes 64 MiB."""
_PADDING = 64 << 10
_MOST, _LONGEST = 1 << 22, 64 << 20
"""Blocks, and bytes of an index."""


def probe(image: Image) -> Probe:
    """By its signature."""
    return Probe(Sure.CERTAIN, "an xz file")


def unwrap(image: Image) -> Image:
    """What is inside."""
    blocks = _blocks(image)
    if len(blocks) > 1 and max(block.size for block in blocks) <= LARGEST_PIECE:
        return _Blocks(image, blocks)
    chunks = unpacked.streams(image, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY), lzma.LZMAError)
    return unpacked.whole(image, chunks, "xz")


class _Block(NamedTuple):
    """Where a block is, how long it is with its padding, how long unpacked, and the flags of its stream."""

    offset: int
    length: int
    size: int
    flags: bytes


class _Blocks(Packed):
    def __init__(self, image: Image, blocks: Sequence[_Block]) -> None:
        starts = [0]
        for block in blocks:
            starts.append(starts[-1] + block.size)
        super().__init__(image, words("Q", starts))
        self._blocks = blocks

    def unpack(self, index: int) -> bytes:
        """A block behind a header of its stream is the beginning of a stream, which is all that is needed."""
        block = self._blocks[index]
        header = BEGINS[0] + block.flags + struct.pack("<I", zlib.crc32(block.flags))
        packed = self.image.read(block.offset, block.length, "a block")
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY).decompress(header + packed, block.size + 1)
        except (lzma.LZMAError, EOFError) as err:
            raise ValueError(str(err)) from None


def _blocks(image: Image) -> list[_Block]:
    """All blocks that have any content; none if the file's end is not that of an xz file."""
    found: list[_Block] = []
    end = image.size
    try:
        while end > 0:
            end, blocks = _stream(image, end)
            found[:0] = blocks
    except ValueError:
        return []
    return found


def _stream(image: Image, end: int) -> tuple[int, list[_Block]]:
    """Where the stream that ends at ``end`` begins, and its blocks. Raises ``ValueError``."""
    tail = image.read(max(end - _PADDING, 0), min(end, _PADDING), "padding")
    if not any(tail) and end > _PADDING:
        raise ValueError("nothing but padding")
    end -= (len(tail) - len(tail.rstrip(b"\0"))) // 4 * 4
    if end == 0:
        return 0, []
    if end < _HEADER + _FOOTER.size:
        raise ValueError("no room for a stream")
    crc, backward, flags, magic = _FOOTER.unpack(image.read(end - _FOOTER.size, _FOOTER.size, "the footer"))
    if magic != b"YZ" or zlib.crc32(struct.pack("<I", backward) + flags) != crc:
        raise ValueError("no footer")
    size = (backward + 1) * 4
    start = end - _FOOTER.size - size
    if start < _HEADER or size > _LONGEST:
        raise ValueError("the index is too long")
    rows = list(_index(image.read(start, size, "the index")))
    offset = start - sum(-(-length // 4) * 4 for length, _ in rows)
    if offset < _HEADER or image.read(offset - _HEADER, 6, "the header") != BEGINS[0]:
        raise ValueError("no header")
    blocks, begin = [], offset - _HEADER
    for length, content in rows:
        padded = -(-length // 4) * 4
        if content:
            blocks.append(_Block(offset, padded, content, flags))
        offset += padded
    return begin, blocks


def _index(content: bytes) -> Iterator[tuple[int, int]]:
    """(size without padding, size unpacked) of each block."""
    if content[0] != 0 or zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
        raise ValueError("no index")
    count, place = _number(content, 1)
    if count > min(len(content) // 2, _MOST):
        raise ValueError("too many blocks")
    for _ in range(count):
        length, place = _number(content, place)
        size, place = _number(content, place)
        yield length, size


def _number(content: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where the next one begins."""
    value = 0
    for index in range(9):
        if place >= len(content):
            break
        byte = content[place]
        value |= (byte & 0x7F) << (7 * index)
        place += 1
        if not byte & 0x80:
            return value, place
    raise ValueError("a number does not end")
