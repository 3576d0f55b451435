# SPDX-License-Identifier: Apache-2.0
"""lz4: a file whose blocks stand alone is read at random, as ``lz4`` writes it; one of linked blocks is unpacked whole.

https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md; blocks tell no size, so that opening unpacks each once.
"""

from __future__ import annotations

from collections.abc import Iterator

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump import codecs, unpacked
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.packed import Packed
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.transport.native import give_way

BEGINS = (b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18")

_STORED = 1 << 31
_LEGACY_SIZE = 8 << 20
_MOST = 1 << 22


def probe(image: Image) -> Probe:
    """By its signature."""
    return Probe(Sure.CERTAIN, "an lz4 file")


def unwrap(image: Image) -> Image:
    """What is inside."""
    if image.start.startswith(BEGINS[0]) and image.size > 6 and not image.start[4] & 0x20:
        return unpacked.whole(image, codecs.lz4_stream(unpacked.blocks(image)), "lz4")
    return _Blocks(image)


class _Block(NamedTuple):
    """Where a block is, its size in the file, whether it is stored as it is, and the most bytes that it becomes."""

    offset: int
    length: int
    stored: bool
    most: int


class _Blocks(Packed):
    def __init__(self, image: Image) -> None:
        self._blocks: list[_Block] = []
        starts = [0]
        for block in _found(image):
            try:
                starts.append(starts[-1] + len(_content(image, block)))
            except ValueError as err:
                image.amiss(f"{err}, after {starts[-1]} bytes unpacked")
                break
            self._blocks.append(block)
            give_way()
        if starts[-1] == 0:
            raise image.damaged("there is nothing in it")
        super().__init__(image, words("Q", starts))

    def unpack(self, index: int) -> bytes:
        """It stands alone."""
        return _content(self.image, self._blocks[index])


def _content(image: Image, block: _Block) -> bytes:
    packed = image.read(block.offset, block.length, "a block")
    content = packed if block.stored else codecs.lz4_block(packed, block.most)
    if not content:
        raise ValueError("a block is empty")
    return content


def _found(image: Image) -> Iterator[_Block]:
    """The blocks of all frames."""
    position, count = 0, 0
    while position < image.size:
        magic = image.read(position, min(4, image.size - position), "a frame")
        if magic == BEGINS[1]:
            blocks = _legacy(image, position + 4)
        elif magic == BEGINS[0]:
            blocks = _frame(image, position)
        elif len(magic) == 4 and int.from_bytes(magic, "little") & ~0xF == 0x184D2A50 and image.has(position, 8):
            position += 8 + int.from_bytes(image.read(position + 4, 4, "a frame"), "little")
            continue
        else:
            image.opening.say(f"{image.path}: {image.size - position} bytes behind the last frame are passed over")
            return
        while True:
            block, position = next(blocks)
            if block is None:
                break
            count += 1
            if count > _MOST:
                raise image.refused(f"an lz4 file of more than {_MOST} blocks", "unpack it first: unlz4")
            yield block


_Step = tuple[_Block | None, int]
"""A block and where the next one begins, or no more and where the frame ends."""


def _frame(image: Image, position: int) -> Iterator[_Step]:
    flags, sizes = image.read(position + 4, 2, "the header of a frame")
    if flags >> 6 != 1 or not 4 <= sizes >> 4 & 7 <= 7 or flags & 1 or not flags & 0x20:
        raise image.refused("an lz4 file with a frame of another kind", "unpack it first: unlz4")
    most = 1 << (8 + 2 * (sizes >> 4 & 7))
    position += 7 + (8 if flags & 8 else 0)
    while True:
        size = _size(image, position)
        if size is None:
            yield None, image.size
        if not size:
            yield None, position + 4 + (4 if flags & 4 else 0)
            return
        length = size & ~_STORED
        behind = position + 4 + length + (4 if flags & 0x10 else 0)
        if length > most:
            raise image.damaged(f"a block at {position:#x} has {length:#x} bytes, which is more than {most:#x}")
        yield from _checked(image, _Block(position + 4, length, bool(size & _STORED), most), behind)
        position = behind


def _legacy(image: Image, position: int) -> Iterator[_Step]:
    while position < image.size:
        size = _size(image, position)
        if size is None or size > 2 * _LEGACY_SIZE:  # another frame's magic
            break
        behind = position + 4 + size
        yield from _checked(image, _Block(position + 4, size, False, _LEGACY_SIZE), behind)
        position = behind
    yield None, position


def _size(image: Image, position: int) -> int | None:
    """The word before a block, ``None`` if the file ends before it."""
    if not image.has(position, 4):
        image.amiss(f"a block would lie at {position:#x} of a file of {image.size:#x}")
        return None
    return int.from_bytes(image.read(position, 4, "the size of a block"), "little")


def _checked(image: Image, block: _Block, behind: int) -> Iterator[_Step]:
    if image.clipped(block.offset, block.length, "a block") == block.length:
        yield block, behind
    else:
        yield None, image.size
