# SPDX-License-Identifier: Apache-2.0
"""Bitmaps of pages: bit N, counted from the least one of the first byte, is whether page N is there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING, Any, NamedTuple
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.transport.native import native

if TYPE_CHECKING:
    from array import array

_CHUNK = 120 << 10
"""Bytes that are read at once: a multiple of 8, and less than what Python asks of the system anew each time."""
_MOST = 1 << 27
"""So many runs a bitmap may have."""
_AT_ONCE = 4 * _CHUNK
"""So many runs a piece has at the most, and so many may wait to be taken."""

_kept: list[tuple[Any, tuple[Any, ...]]] = []
"""The room that was used last, if nobody uses it: new memory takes time."""


class Runs(NamedTuple):
    """Runs of pages: their first pages, one past their last ones, and how many pages there are before each of them."""

    starts: array[int]
    ends: array[int]
    before: array[int]
    pages: int


def found(image: Image, offset: int, bits: int) -> Runs:
    """The runs in a bitmap of ``bits`` bits in the file, ascending; none follows the one before without a gap."""
    size, position, runs = -(-bits // 8), 0, (words("Q"), words("Q"), words("Q"))
    image.check(offset, size, "the bitmap of pages")
    look, (state, parts) = native().lib.mvi_bitmap_runs, _room()
    state.count = state.ones = 0
    while position < size:
        chunk, before = image.read(offset + position, min(_CHUNK, size - position), "the bitmap of pages"), state.ones
        look(chunk, len(chunk), 8 * position, bits, state)
        position += len(chunk)
        if state.count > _AT_ONCE:
            _hand_over(image, runs, state, parts)
        if position < size and state.ones == before:
            position = max(position, image.next_data(offset + position) - offset)
    _take(runs, state, parts)
    _kept[:] = [(state, parts)]
    return Runs(*runs, int(state.ones))


def _take(runs: tuple[array[int], ...], state: Any, parts: tuple[Any, ...]) -> None:
    """Add the runs that were found to those of the pieces before."""
    for part, place in zip(runs, parts, strict=True):
        part.frombytes(native().ffi.buffer(place, 8 * state.count))


def _hand_over(image: Image, runs: tuple[array[int], ...], state: Any, parts: tuple[Any, ...]) -> None:
    """The same to make room; the last run may go on, and stays."""
    _take(runs, state, parts)
    for part, place in zip(runs, parts, strict=True):
        place[0] = part.pop()
    state.count = 1
    if len(runs[0]) > _MOST:
        raise image.damaged("its bitmap of pages has more runs than any machine's memory")


def _room() -> tuple[Any, tuple[Any, ...]]:
    """Room for runs, of which most bitmaps touch little: what a piece has at the most, behind what is not taken yet."""
    with contextlib.suppress(IndexError):
        return _kept.pop()
    ffi, room = native().ffi, 2 * _AT_ONCE + 2
    numbers = ffi.new_allocator(should_clear_after_alloc=False)("uint64_t[]", 3 * room)
    parts = numbers, numbers + room, numbers + 2 * room
    state = ffi.new("struct mvi_bit_runs *", (*parts, 0, room, 0))
    return state, parts


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
