# SPDX-License-Identifier: Apache-2.0
"""bzip2: read at random. A block begins at any bit with a number that is found; opening unpacks each once for its size.

A stream is ``BZh`` and a digit, blocks, each of a number of 48 bits, its checksum and what is packed, and at the end
another number, the checksum of all blocks, and zeros up to a whole byte. A file has one stream or several.
"""

from __future__ import annotations

import bz2
from collections.abc import Iterator

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump import unpacked
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.packed import LARGEST_PIECE, Packed, packed_data
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.transport.native import give_way

BEGINS = (
    *(b"BZh11AY&SY", b"BZh21AY&SY", b"BZh31AY&SY", b"BZh41AY&SY", b"BZh51AY&SY"),
    *(b"BZh61AY&SY", b"BZh71AY&SY", b"BZh81AY&SY", b"BZh91AY&SY"),
)

_BLOCK, _END = 0x314159265359, 0x177245385090
_HEADER, _NUMBER, _CHECKSUM = 32, 48, 32
"""Bits of a stream's header, of the numbers that blocks begin with, and of a checksum."""
_IN = 1 << 20
_LONGEST = 8 * (2 << 20)
"""Bits of a block: 900 KB of noise become a little more."""
_MOST = 1 << 22


def probe(image: Image) -> Probe:
    """By the signatures of the file and of its first block."""
    return Probe(Sure.CERTAIN, "a bzip2 file")


def unwrap(image: Image) -> Image:
    """What is inside; of a file that is damaged, or whose blocks are not where they seem to be, as a whole."""
    try:
        return _Blocks(image)
    except ValueError:
        return unpacked.whole(image, unpacked.streams(image, bz2.BZ2Decompressor, OSError), "bzip2")


class _Mark(NamedTuple):
    """A bit of the file where a number stands, and whether it is that of a block."""

    bit: int
    block: bool


class _Blocks(Packed):
    """Raises ``ValueError`` for a file that is not blocks from its first bit to its last."""

    def __init__(self, image: Image) -> None:
        self._begins, self._ends, starts = words("Q"), words("Q"), [0]
        for begin, end in _spans(image):
            if len(starts) > _MOST:
                raise ValueError("too many blocks")
            starts.append(starts[-1] + len(_content(image, begin, end)))
            unpacked.check_proportion(image, starts[-1])
            self._begins.append(begin)
            self._ends.append(end)
            give_way()
        if starts[-1] == 0:
            raise ValueError("there is nothing in it")
        super().__init__(image, words("Q", starts))

    def unpack(self, index: int) -> bytes:
        """It stands alone."""
        return _content(self.image, self._begins[index], self._ends[index])


def _content(image: Image, begin: int, end: int) -> bytes:
    """A block between two bits of the file, as the only one of a stream, which has the same checksum then."""
    count = end - begin
    if not _NUMBER + _CHECKSUM < count <= _LONGEST:
        raise ValueError(f"a block has {count} bits")
    first = begin // 8
    data = image.read(first, -(-end // 8) - first, "a block")
    bits = int.from_bytes(data, "big") >> (-end % 8) & (1 << count) - 1
    checksum = bits >> (count - _NUMBER - _CHECKSUM) & (1 << _CHECKSUM) - 1
    count += _NUMBER + _CHECKSUM
    stream = ((bits << _NUMBER | _END) << _CHECKSUM | checksum) << -count % 8
    unpacker = bz2.BZ2Decompressor()
    try:
        content = unpacker.decompress(BEGINS[-1][:4] + stream.to_bytes(-(-count // 8), "big"), LARGEST_PIECE)
    except OSError as err:
        raise ValueError(str(err)) from None
    if not unpacker.eof:
        raise ValueError("a block does not end where it should")
    return content


def _spans(image: Image) -> Iterator[tuple[int, int]]:
    """The bits where a block begins and ends. Raises ``ValueError``, also behind them."""
    expected, begin = _HEADER, 0
    for mark in _marks(image):
        if expected and mark.bit != expected:
            raise ValueError("no block follows the header of a stream")
        if begin:
            yield begin, mark.bit
        begin, expected = (mark.bit, 0) if mark.block else (0, _next_stream(image, mark.bit))
        if expected < 0:
            return
    raise ValueError("it ends in the middle of a stream")


def _next_stream(image: Image, bit: int) -> int:
    """Where the first number of the stream stands that follows the end at ``bit``; -1 if none follows."""
    position = unpacked.behind_zeros(image, -(-(bit + _NUMBER + _CHECKSUM) // 8))
    if position == image.size:
        return -1
    if not image.has(position, 4) or not image.read(position, 4, "a header").startswith(b"BZh"):
        raise ValueError("something else follows")
    return 8 * position + _HEADER


def _marks(image: Image) -> Iterator[_Mark]:
    """All numbers in the file, in order. Raises ``ValueError`` in a hole of the file that has no end."""
    for position in range(0, image.size, _IN):
        data = packed_data(image, position, _IN + 7)  # one that begins at a bit of the last byte goes on
        yield from sorted(mark for shift in range(8) for mark in _found(data, position, shift))


def _found(data: bytes, position: int, shift: int) -> Iterator[_Mark]:
    """Those that begin ``shift`` bits behind a byte: 40 bits in whole bytes are looked for, then the others."""
    for number in (_BLOCK, _END):
        middle = (number >> shift & (1 << 40) - 1 if shift else number >> 8).to_bytes(5, "big")
        at = data.find(middle, 1 if shift else 0)
        while at >= 0:
            first = at - 1 if shift else at
            bits = int.from_bytes(data[first : first + 7].ljust(7, b"\0"), "big")
            if first < _IN and bits >> (8 - shift) & (1 << _NUMBER) - 1 == number:
                yield _Mark(8 * (position + first) + shift, number == _BLOCK)
            at = data.find(middle, at + 1)
