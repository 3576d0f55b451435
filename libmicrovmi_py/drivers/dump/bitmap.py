# SPDX-License-Identifier: Apache-2.0
"""Bitmaps of pages: bit N, counted from the least one of the first byte, is whether page N is there."""

from __future__ import annotations

from collections.abc import Iterator

from libmicrovmi_py.drivers.dump.image import Image

_CHUNK = 64 << 10


def runs(image: Image, offset: int, bits: int) -> Iterator[tuple[int, int]]:
    """(first, one past the last) of the runs of pages in a bitmap of ``bits`` bits in the file, ascending."""
    size = -(-bits // 8)
    image.check(offset, size, "the bitmap of pages")
    begin = end = position = 0
    while position < size:
        chunk = image.read(offset + position, min(_CHUNK, size - position), "the bitmap of pages")
        for first, last in _runs_of(chunk, position * 8, bits):
            if first != end:
                if begin < end:
                    yield begin, end
                begin = first
            end = last
        position = max(position + len(chunk), image.next_data(offset + position + len(chunk)) - offset)
    if begin < end:
        yield begin, end


def _runs_of(chunk: bytes, base: int, bits: int) -> Iterator[tuple[int, int]]:
    """The runs within a chunk whose first bit is ``base``: as a text of 0s and 1s, which ``re`` searches in C."""
    if chunk.count(0) == len(chunk):
        return
    digits = f"{int.from_bytes(chunk, 'little'):0{8 * len(chunk)}b}"[::-1][: bits - base]
    end = 0
    while (first := digits.find("1", end)) >= 0:
        end = digits.find("0", first)
        end = end if end >= 0 else len(digits)
        yield base + first, base + end
