# SPDX-License-Identifier: Apache-2.0
"""Bitmaps of pages: bit N, counted from the least one of the first byte, is whether page N is there."""

from __future__ import annotations

from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.transport.native import native

if TYPE_CHECKING:
    from array import array

_CHUNK = 120 << 10
"""Bytes that are read at once: a multiple of 8, and less than what Python asks of the system anew each time."""
_FEWEST, _MOST = 1 << 10, 1 << 27
"""So many runs there is room for at first, and how many a bitmap may have."""


class Runs(NamedTuple):
    """Runs of pages: their first pages, one past their last ones, and how many pages there are before each of them."""

    starts: array[int]
    ends: array[int]
    before: array[int]
    pages: int


def found(image: Image, offset: int, bits: int) -> Runs:
    """The runs in a bitmap of ``bits`` bits in the file, ascending; none follows the one before without a gap."""
    size = -(-bits // 8)
    image.check(offset, size, "the bitmap of pages")
    runs, position, (ffi, lib) = (words("Q"), words("Q"), words("Q")), 0, native()
    state = ffi.new("struct mvi_bit_runs *")
    while position < size:
        chunk = image.read(offset + position, min(_CHUNK, size - position), "the bitmap of pages")
        begin = 0
        while begin < len(chunk):
            if state.room - state.count < _FEWEST:
                _make_room(image, runs, state.count + max(_FEWEST, min(7 * state.count, _MOST)))
            state.starts, state.ends, state.before = kept = [ffi.from_buffer("uint64_t[]", part) for part in runs]
            state.room, first = len(runs[0]), 8 * (position + begin)
            begin += lib.mvi_bitmap_runs(
                ffi.from_buffer("uint8_t[]", chunk) + begin, len(chunk) - begin, first, bits, state
            )
            del kept
        position = max(position + len(chunk), image.next_data(offset + position + len(chunk)) - offset)
    for part in runs:
        del part[state.count :]
    return Runs(*runs, state.ones)


def _make_room(image: Image, runs: tuple[array[int], ...], room: int) -> None:
    if room > _MOST:
        raise image.damaged("its bitmap of pages has more runs than any machine's memory")
    for part in runs:
        part.frombytes(bytes(8 * (room - len(part))))


def within(runs: Runs, span: tuple[int, int]) -> Runs:
    """What of these runs is from one page to before another."""
    kept = words("Q"), words("Q"), words("Q")
    pages = 0
    for first, end in zip(runs.starts, runs.ends, strict=True):
        first, end = max(first, span[0]), min(end, span[1])
        if first < end:
            for part, value in zip(kept, (first, end, pages), strict=True):
                part.append(value)
            pages += end - first
    return Runs(*kept, pages)


def runs(image: Image, offset: int, bits: int) -> Iterator[tuple[int, int]]:
    """(first, one past the last) of the runs of pages in a bitmap, as :func:`found`."""
    starts, ends, _, _ = found(image, offset, bits)
    return zip(starts, ends, strict=True)
