# SPDX-License-Identifier: Apache-2.0
"""EWF of version 2, the evidence files of EnCase 7 and later (Ex01, Ex02, ...): chunks that are packed one by one.

https://github.com/libyal/libewf, "Expert Witness Compression Format 2": a header, then sections. Each ends with its
descriptor of 64 bytes, which tells where that of the section before it is: they are read from the end of the file.
What the sizes are stands in texts that are packed as well. Offsets are those of the segment's file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.packed import LARGEST_PIECE, Packed
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.segments import segments

BEGINS = (b"EVF2\x0d\x0a\x81\x00",)

_HEADER = struct.Struct("<8xB1xHI16x")
_SECTION = struct.Struct("<2I2Q36xI")
_TABLE_HEADER = struct.Struct("<QI20x")
_ENTRY = struct.Struct("<Q2I")
_DEVICE, _CASE, _TABLE, _NEXT = 1, 2, 4, 0xD
_ENCRYPTED = 2
_COMPRESSED, _CHECKED, _PATTERN = 1, 2, 4
_ZLIB = 1
"""The method; that of bzip2 is in the description, and no program writes it."""
_MOST_SECTIONS, _MOST_CHUNKS = 1 << 16, 1 << 26
_LONGEST_TEXT = 1 << 20
_WAY_OUT = "convert it to raw: ewfexport"


def probe(image: Image) -> Probe:
    """By its signature; the first segment is the one to name."""
    if image.size < _HEADER.size:
        return Probe(Sure.CERTAIN, "an EWF image (Ex01) without its header", "copy it again")
    version, method, number = _HEADER.unpack_from(image.start)
    if (version, method) != (2, _ZLIB):
        return Probe(Sure.CERTAIN, f"an EWF image (Ex01) of version {version} and method {method}", _WAY_OUT)
    if number != 1:
        return Probe(Sure.CERTAIN, "a later segment of an EWF image", "name the first one (.Ex01)")
    return Probe(Sure.CERTAIN, "an EWF image (Ex01)")


def unwrap(image: Image) -> Image:
    """The media inside."""
    return _Chunks(image)


class _Section(NamedTuple):
    kind: int
    start: int
    size: int


class _Chunks(Packed):
    """Chunks by their numbers: the segment, where they are there, their size in it, and how they are packed."""

    def __init__(self, image: Image) -> None:
        self._segments: list[Image] = []
        self._of, self._offsets, self._sizes, self._flags = words("I"), words("Q"), words("I"), words("B")
        told: dict[str, str] = {}
        for segment in segments(image, _number, _goes_on):
            self._segments.append(segment)
            for section in _sections(segment):
                if section.kind in (_DEVICE, _CASE) and segment is image:
                    told |= _text(segment, section)
                elif section.kind == _TABLE:
                    self._read_table(segment, section)
        super().__init__(image, words("Q", self._starts_of(image, told)))

    def _read_table(self, segment: Image, section: _Section) -> None:
        header = segment.read(section.start, _TABLE_HEADER.size, "a table")
        first, count = _TABLE_HEADER.unpack(header)
        if first != len(self._offsets) or not 0 < count <= (section.size - _TABLE_HEADER.size) // _ENTRY.size:
            segment.amiss(f"a table has {count} chunks from chunk {first} on, behind {len(self._offsets)}")
            return
        if len(self._offsets) + count > _MOST_CHUNKS:
            raise segment.refused(f"an EWF image of more than {_MOST_CHUNKS} chunks", _WAY_OUT)
        content = segment.read(section.start + _TABLE_HEADER.size, _ENTRY.size * count, "a table")
        for offset, size, flags in _ENTRY.iter_unpack(content):
            self._offsets.append(offset)
            self._sizes.append(size)
            self._flags.append(flags & 0xFF)
        self._of.extend([len(self._segments) - 1] * count)

    def _starts_of(self, image: Image, told: Mapping[str, str]) -> list[int]:
        sectors, sector, per_chunk = (_told(image, told, name) for name in ("ts", "bp", "sb"))
        chunk, size = per_chunk * sector, sectors * sector
        if not 0 < chunk <= LARGEST_PIECE or not 0 < size < 1 << 63:
            raise image.damaged(f"chunks of {per_chunk} sectors of {sector} bytes, {sectors} sectors in all, cannot be")
        count, wanted = len(self._offsets), -(-size // chunk)
        if count < wanted:
            image.amiss(f"there are {count} chunks of {wanted}")
        size = min(size, count * chunk)
        if not size:
            raise image.damaged("there is nothing in it")
        return [*range(0, size, chunk), size]

    def unpack(self, index: int) -> bytes:
        """A stream, eight bytes again and again, or the bytes and their checksum."""
        offset, length, flags = self._offsets[index], self._sizes[index], self._flags[index]
        size = self.starts[index + 1] - self.starts[index]
        if flags & _COMPRESSED and flags & _PATTERN:
            return (offset.to_bytes(8, "little") * (size // 8 + 1))[:size]
        if length > 2 * LARGEST_PIECE:
            raise ValueError(f"it has {length:#x} bytes")
        packed = self._segments[self._of[index]].read(offset, length, "a chunk")
        if flags & _COMPRESSED:
            return _unpacked(packed, self.starts[1])[:size]
        if flags & _CHECKED and zlib.adler32(packed[:-4]) != int.from_bytes(packed[-4:], "little"):
            raise ValueError("its checksum is another")
        return packed[:size]


def _text(segment: Image, section: _Section) -> Mapping[str, str]:
    """What a text says: its third line has names, its fourth their values."""
    if section.size > _LONGEST_TEXT:
        raise segment.damaged(f"a text has {section.size:#x} bytes")
    packed = segment.read(section.start, section.size, "a text")
    try:
        lines = _unpacked(packed, _LONGEST_TEXT).decode("utf-16").split("\n")
    except ValueError as err:
        raise segment.damaged(f"what it tells of itself cannot be unpacked: {err}") from None
    return dict(zip(lines[2].split("\t"), lines[3].split("\t"), strict=False)) if len(lines) > 3 else {}


def _unpacked(packed: bytes, most: int) -> bytes:
    """What a stream of zlib holds: ``most`` bytes at the most. Raises ``ValueError``."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, most + 1)
    except zlib.error as err:
        raise ValueError(str(err)) from None
    if len(content) > most or not stream.eof:
        raise ValueError("it does not end where it should")
    return content


def _told(image: Image, told: Mapping[str, str], name: str) -> int:
    """A number out of the texts. Raises ``IoError`` if it is none."""
    value = told.get(name, "")
    if not value.isascii() or not value.isdigit() or len(value) > 19:
        raise image.damaged(f"it does not tell its size: {name} is {value[:40]!r}")
    return int(value)


def _number(segment: Image) -> int:
    number: int = _HEADER.unpack(segment.read(0, _HEADER.size, "the header"))[2]
    return number


def _goes_on(segment: Image) -> bool:
    return next(_backwards(segment)).kind == _NEXT


def _sections(segment: Image) -> list[_Section]:
    return list(_backwards(segment))[::-1]


def _backwards(segment: Image) -> Iterator[_Section]:
    """All sections from the last to the first."""
    position = segment.size - _SECTION.size
    for _ in range(_MOST_SECTIONS):
        content = segment.read(position, _SECTION.size, "the descriptor of a section")
        kind, flags, before, size, checksum = _SECTION.unpack(content)
        if zlib.adler32(content[:-4]) != checksum:
            raise segment.damaged(f"no descriptor of a section is at {position:#x}")
        if flags & _ENCRYPTED:
            raise segment.refused("an encrypted EWF image (Ex01)", "export it without encryption")
        start = before + _SECTION.size if before else _HEADER.size
        if start + size > position:
            raise segment.damaged(f"the section that ends at {position:#x} would begin at {start:#x}")
        yield _Section(kind, start, size)
        if not before:
            return
        position = before
    raise segment.damaged(f"it has more than {_MOST_SECTIONS} sections")
