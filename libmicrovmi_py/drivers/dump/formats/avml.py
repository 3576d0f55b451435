# SPDX-License-Identifier: Apache-2.0
"""AVML with ``--compress``: ranges as LiME has them, called AVML, version 2, each of them packed in frames of snappy.

https://github.com/microsoft/avml, https://github.com/google/snappy (framing_format.txt). Behind the frames of a range,
of 64 KiB each and the last one what is left, is how many bytes they have; all numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.drivers.dump import codecs, ranges
from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.layout import Extent
from libmicrovmi_py.drivers.dump.packed import Packed
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.transport.native import give_way

if TYPE_CHECKING:
    from array import array

BEGINS = (b"AVML",)

_KIND = ranges.Kind(BEGINS[0], 2, "an AVML", "convert it to LiME: avml-convert")

_SIZE = struct.Struct("<Q")
_HEAD, _FRAME = 4, struct.Struct("<II")
_PACKED, _AS_IT_IS, _SKIPPED, _STREAM = 0x00, 0x01, range(0x80, 0xFF), 0xFF
_IDENTIFIER = b"sNaPpY"
_MOST = 64 << 10
"""Bytes of a frame, unpacked."""
_LONGEST = 5
"""Bytes of the number with which a packed frame begins."""
_MASK = 0xA282EAD8
"""Is added to a checksum after it was turned by 15 bits."""


def probe(image: Image) -> Probe:
    """By the magic of its first range."""
    return Probe(Sure.CERTAIN, "a compressed AVML image")


class _Frame(NamedTuple):
    """Where a frame is, its kind, its bytes behind the 4 of its head, its checksum, and its bytes unpacked."""

    offset: int
    kind: int
    length: int
    checksum: int
    size: int


class _Frames(Packed):
    """The memory of all ranges, one after the other; ``offsets`` are where its frames are in the file."""

    def __init__(self, image: Image, starts: array[int], offsets: array[int]) -> None:
        super().__init__(image, starts)
        self._offsets = offsets
        self._unpack = _snappy(image)
        self._checksum = _checksum(image)

    def unpack(self, index: int) -> bytes:
        """It stands alone."""
        frame = _frame(self.image, self._offsets[index])
        content = self.image.read(frame.offset + _FRAME.size, frame.length - 4, "a frame")
        if frame.kind == _PACKED:
            content = self._unpack(content, frame.size)
        if self._checksum is not None and self._checksum(content) != frame.checksum:
            raise ValueError("it has another checksum")
        return content


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    starts, offsets = words("Q", [0]), words("Q")
    extents = ranges.sorted_ranges(image, _KIND, _ranges(image, starts, offsets))
    return Contents(extents, image=_Frames(image, starts, offsets), producer="AVML")


def _ranges(image: Image, starts: array[int], offsets: array[int]) -> Iterator[Extent]:
    """Each range as far as it is there; its frames are added to the two tables."""
    position: int | None = 0
    while position is not None and position < image.size:
        span = ranges.header(image, position, _KIND)
        if span is None:
            return
        first, end = span
        begin = starts[-1]
        position = _index(image, position + ranges.HEADER_SIZE, end - first, starts, offsets)
        yield Extent(first, starts[-1] - begin, begin)


def _index(image: Image, begin: int, size: int, starts: array[int], offsets: array[int]) -> int | None:
    """Add the frames of a range of ``size`` bytes; where it ends, ``None`` if the rest of the file is no use."""
    position, end = begin, starts[-1] + size
    try:
        while starts[-1] < end:
            frame = _frame(image, position)
            if frame.size > end - starts[-1]:
                raise ValueError(f"it has {frame.size:#x} bytes, and {end - starts[-1]:#x} are missing")
            if frame.size:
                starts.append(starts[-1] + frame.size)
                offsets.append(position)
            position += _HEAD + frame.length
            if not len(offsets) & 0xFF:
                give_way()
    except ValueError as err:
        image.amiss(f"the frame at {position:#x} cannot be read: {err}")
        return None
    told = _SIZE.unpack(image.read(position, _SIZE.size, ""))[0] if image.has(position, _SIZE.size) else 0
    if told != position - begin:
        image.amiss(f"the frames at {begin:#x} have {position - begin:#x} bytes, and {told:#x} as the range says")
        return None
    return position + _SIZE.size


def _frame(image: Image, position: int) -> _Frame:
    """The frame there; its size is 0 if it has no memory. Raises ``ValueError`` for what is none, or not all there."""
    there = image.size - position
    if there < _HEAD:
        raise ValueError("the file ends there")
    head = image.read(position, min(there, _FRAME.size + _LONGEST), "a frame").ljust(_FRAME.size + _LONGEST, b"\0")
    kind_and_length, checksum = _FRAME.unpack_from(head)
    kind, length = kind_and_length & 0xFF, kind_and_length >> 8
    if length > there - _HEAD:
        raise ValueError(f"{length - there + _HEAD} bytes are missing")
    if (kind == _STREAM and head[_HEAD : _HEAD + length] == _IDENTIFIER) or kind in _SKIPPED:
        return _Frame(position, kind, length, 0, 0)
    if kind not in (_PACKED, _AS_IT_IS) or length < 4 + (kind == _PACKED):
        raise ValueError(f"its kind is {kind:#x}, its length {length:#x}")
    size = length - 4 if kind == _AS_IT_IS else _number(head[_FRAME.size :])
    if size > _MOST:
        raise ValueError(f"it has {size:#x} bytes unpacked")
    return _Frame(position, kind, length, checksum, size)


def _number(content: bytes) -> int:
    """The size with which a block of snappy begins: seven bits a byte, the least ones first."""
    value = 0
    for place, byte in enumerate(content):
        value |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            break
    return value


def _snappy(image: Image) -> codecs.Unpack:
    try:
        return codecs.snappy()
    except DriverUnavailableError as err:
        raise DriverUnavailableError(f"{image.path} is compressed with snappy: {err}") from err


def _checksum(image: Image) -> Callable[[bytes], int] | None:
    """What makes the checksum of a frame, ``None`` if the library for it is not there, which is said."""
    try:
        make = codecs.crc32c()
    except DriverUnavailableError as err:
        image.opening.say(f"checksums of {image.path} are not compared: {err}")
        return None
    return lambda content: _masked(make(content))


def _masked(checksum: int) -> int:
    return (((checksum >> 15 | checksum << 17) & 0xFFFFFFFF) + _MASK) & 0xFFFFFFFF
