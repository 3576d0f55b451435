# SPDX-License-Identifier: Apache-2.0
"""lzop, as ``virsh save`` and ``virsh dump`` use it: blocks that tell their sizes and stand alone, read at random.

All numbers are big-endian: a header with flags, then for each block its size, that in the file, and checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump import codecs
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.packed import LARGEST_PIECE, Packed
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.probing import Probe, Sure

BEGINS = (b"\x89LZO\x00\x0d\x0a\x1a\x0a",)

_LATER = 0x0940
"""The version since which a header has more."""
_FILTER, _EXTRA = 0x800, 0x40
_OF_CONTENT, _OF_PACKED = (0x1, 0x100), (0x2, 0x200)
"""Checksums of a block: of what it is unpacked, and of what is in the file if that is shorter."""
_METHODS = (1, 2, 3)
_MOST = 1 << 22
_WAY_OUT = "unpack it first: lzop -d"


def probe(image: Image) -> Probe:
    """By its signature."""
    return Probe(Sure.CERTAIN, "an lzop file")


def unwrap(image: Image) -> Image:
    """What is inside."""
    return _Blocks(image)


class _Block(NamedTuple):
    """Where a block is, its size in the file, and unpacked."""

    offset: int
    length: int
    size: int


class _Blocks(Packed):
    def __init__(self, image: Image) -> None:
        self._blocks = list(_found(image))
        if not self._blocks:
            raise image.damaged("there is nothing in it")
        starts = [0]
        for block in self._blocks:
            starts.append(starts[-1] + block.size)
        super().__init__(image, words("Q", starts))
        self._unpack = codecs.lzo()

    def unpack(self, index: int) -> bytes:
        """It stands alone."""
        block = self._blocks[index]
        packed = self.image.read(block.offset, block.length, "a block")
        return packed if block.length == block.size else self._unpack(packed, block.size)


def _found(image: Image) -> Iterator[_Block]:
    position, flags = _header(image)
    content, packed = (4 * sum(bool(flags & bit) for bit in bits) for bits in (_OF_CONTENT, _OF_PACKED))
    for _ in range(_MOST):
        head = image.read(position, image.clipped(position, 4, "a block"), "a block")
        if len(head) < 4 or head == bytes(4):
            return
        if image.clipped(position, 8, "a block") < 8:
            return
        size, length = struct.unpack(">2I", image.read(position, 8, "a block"))
        if not 0 < length <= size <= LARGEST_PIECE:
            image.amiss(f"a block at {position:#x} has {length:#x} bytes, and {size:#x} unpacked")
            return
        position += 8 + content + (packed if length < size else 0)
        if image.clipped(position, length, "a block") < length:
            return
        yield _Block(position, length, size)
        position += length
    raise image.refused(f"an lzop file of more than {_MOST} blocks", _WAY_OUT)


def _header(image: Image) -> tuple[int, int]:
    """Where the blocks begin, and the flags."""
    (version,) = struct.unpack(">H", image.read(9, 2, "the header"))
    later = version >= _LATER
    position = 15 if later else 13
    method = image.read(position, 1, "the header")[0]
    if method not in _METHODS:
        raise image.refused(f"an lzop file of method {method}", _WAY_OUT)
    position += 2 if later else 1
    (flags,) = struct.unpack(">I", image.read(position, 4, "the header"))
    position += 4 + (4 if flags & _FILTER else 0) + (12 if later else 8)
    position += 1 + image.read(position, 1, "the header")[0] + 4
    if flags & _FILTER:
        raise image.refused("an lzop file with a filter", _WAY_OUT)
    if flags & _EXTRA:
        position += 8 + struct.unpack(">I", image.read(position, 4, "the header"))[0]
    return position, flags
