# SPDX-License-Identifier: Apache-2.0
"""EWF, the evidence files of EnCase and ewfacquire (E01, E02, ...): chunks that are compressed one by one.

https://github.com/libyal/libewf, "Expert Witness Compression Format": a header, then sections, each with a descriptor
of 76 bytes: type, offset of the next, size. Tables have the offsets of the chunks from a base on, with the highest bit
for those that are compressed. Offsets are those of the segment's file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.packed import LARGEST_PIECE, Packed
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.segments import segments

BEGINS = (b"EVF\x09\x0d\x0a\xff\x00",)

_HEADER = struct.Struct("<9xH2x")
_SECTION = struct.Struct("<16s2Q40xI")
_VOLUME = struct.Struct("<4x3IQ")
_TABLE = struct.Struct("<I4xQ8x")
_MOST_SECTIONS, _MOST_CHUNKS = 1 << 16, 1 << 26
_WAY_OUT = "convert it to raw: ewfexport"


def probe(image: Image) -> Probe:
    """By its signature; the first segment is the one to name."""
    if image.size >= _HEADER.size and _HEADER.unpack_from(image.start)[0] != 1:
        return Probe(Sure.CERTAIN, "a later segment of an EWF image", "name the first one (.E01)")
    return Probe(Sure.CERTAIN, "an EWF image (E01)")


def unwrap(image: Image) -> Image:
    """The media inside."""
    return _Chunks(image)


class _Section(NamedTuple):
    kind: bytes
    start: int
    end: int


class _Volume(NamedTuple):
    """Bytes of a chunk, and of all."""

    chunk: int
    size: int


class _Chunks(Packed):
    """Chunks by their numbers: the segment, where they begin and end there, and whether they are compressed."""

    def __init__(self, image: Image) -> None:
        self._segments: list[Image] = []
        self._of, self._offsets, self._ends, self._packed = words("I"), words("Q"), words("Q"), words("B")
        volume: _Volume | None = None
        for segment in segments(image, _number, _goes_on):
            self._segments.append(segment)
            volume = self._read_segment(segment, volume)
        if volume is None:
            raise image.damaged("there is no section that tells its size")
        super().__init__(image, words("Q", self._starts_of(image, volume)))

    def _read_segment(self, segment: Image, volume: _Volume | None) -> _Volume | None:
        end = 0
        for section in _sections(segment):
            if section.kind in (b"volume", b"disk") and volume is None:
                volume = _volume(segment, section)
            elif section.kind == b"sectors":
                end = section.end
            elif section.kind == b"table":
                self._read_table(segment, section, end or section.end)
        return volume

    def _read_table(self, segment: Image, section: _Section, end: int) -> None:
        count, base = _TABLE.unpack(segment.read(section.start, _TABLE.size, "a table"))
        if not 0 < count <= (section.end - section.start - _TABLE.size) // 4 or base > segment.size:
            segment.amiss(f"a table has {count} chunks from {base:#x} on")
            return
        if len(self._offsets) + count > _MOST_CHUNKS:
            raise segment.refused(f"an EWF image of more than {_MOST_CHUNKS} chunks", _WAY_OUT)
        content = segment.read(section.start + _TABLE.size, 4 * count, "a table")
        offsets = words("I", content)
        places = [base + (offset & 0x7FFFFFFF) for offset in offsets]
        self._packed.extend(offset >> 31 for offset in offsets)
        self._offsets.extend(places)
        self._ends.extend([*places[1:], end])
        self._of.extend([len(self._segments) - 1] * count)

    def _starts_of(self, image: Image, volume: _Volume) -> list[int]:
        count, wanted = len(self._offsets), -(-volume.size // volume.chunk)
        if count < wanted:
            image.amiss(f"there are {count} chunks of {wanted}")
        size = min(volume.size, count * volume.chunk)
        if not size:
            raise image.damaged("there is nothing in it")
        return [*range(0, size, volume.chunk), size]

    def unpack(self, index: int) -> bytes:
        """A stream of zlib, or the bytes and their checksum."""
        begin, end = self._offsets[index], self._ends[index]
        size = self.starts[index + 1] - self.starts[index]
        if not begin < end <= begin + 2 * LARGEST_PIECE:
            raise ValueError(f"it would lie at {begin:#x} to {end:#x}")
        packed = self._segments[self._of[index]].read(begin, end - begin, "a chunk")
        if self._packed[index]:
            try:
                return zlib.decompressobj().decompress(packed, size + 1)[:size]
            except zlib.error as err:
                raise ValueError(str(err)) from None
        if len(packed) < size + 4 or zlib.adler32(packed[:size]) != int.from_bytes(packed[size : size + 4], "little"):
            raise ValueError("its checksum is another")
        return packed[:size]


def _number(segment: Image) -> int:
    number: int = _HEADER.unpack(segment.read(0, _HEADER.size, "the header"))[0]
    return number


def _goes_on(segment: Image) -> bool:
    return [section.kind for section in _sections(segment)][-1:] == [b"next"]


def _sections(segment: Image) -> Iterator[_Section]:
    """All sections up to the last, which names itself as the next one."""
    position = _HEADER.size
    for _ in range(_MOST_SECTIONS):
        if segment.clipped(position, _SECTION.size, "the descriptor of a section") < _SECTION.size:
            return
        content = segment.read(position, _SECTION.size, "the descriptor of a section")
        kind, following, size, checksum = _SECTION.unpack(content)
        if zlib.adler32(content[:-4]) != checksum:
            segment.amiss(f"the descriptor of a section at {position:#x} has another checksum")
            return
        yield _Section(kind.rstrip(b"\0"), position + _SECTION.size, min(position + size, segment.size))
        if following <= position:
            return
        position = following
    raise segment.damaged(f"it has more than {_MOST_SECTIONS} sections")


def _volume(segment: Image, section: _Section) -> _Volume:
    if section.end - section.start < 1052:
        raise segment.refused("an EWF image of SMART (S01)", _WAY_OUT)
    _, sectors, sector, count = _VOLUME.unpack(segment.read(section.start, _VOLUME.size, "the volume"))
    if not 0 < sectors * sector <= LARGEST_PIECE or count * sector >= 1 << 63:
        raise segment.damaged(f"chunks of {sectors} sectors of {sector} bytes, {count} sectors in all, cannot be")
    return _Volume(sectors * sector, count * sector)
