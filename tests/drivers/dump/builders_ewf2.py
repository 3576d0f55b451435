# SPDX-License-Identifier: Apache-2.0
"""Evidence files of version 2 (Ex01), written from libewf's "Expert Witness Compression Format 2"."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping

DEVICE, CASE, SECTORS, TABLE, NEXT, DONE = 1, 2, 3, 4, 0xD, 0xF
_SECTOR = 512


class Segment:
    """A file that grows a section at a time."""

    def __init__(self, number: int) -> None:
        self.content = b"EVF2\x0d\x0a\x81\x00" + struct.pack("<2BHI16s", 2, 1, 1, number, bytes(range(16)))
        self._before = 0

    def add(self, kind: int, data: bytes, flags: int = 0) -> None:
        """A section with these data, made up to 16 bytes, and its descriptor."""
        padding = -len(data) % 16
        data += bytes(padding)
        digest = hashlib.md5(data).digest()
        head = struct.pack("<2I2Q2I16s12x", kind, flags | 1, self._before, len(data), 64, padding, digest)
        self.content += data
        self._before = len(self.content)
        self.content += head + struct.pack("<I", zlib.adler32(head))


def text(names: Mapping[str, str]) -> bytes:
    """Names and values, not packed yet."""
    rows = ["1", "main", "\t".join(names), "\t".join(names.values()), ""]
    return "\n".join(rows).encode("utf-16")


def chunk(content: bytes) -> tuple[bytes, int]:
    """How a chunk is stored, and its flags: as it is with a checksum, or packed if that is shorter."""
    packed = zlib.compress(content)
    if len(packed) < len(content):
        return packed, 1
    return content + struct.pack("<I", zlib.adler32(content)), 2


def ewf2(memory: bytes, *, sectors: int = 64, files: int = 1, flags: int = 0) -> list[bytes]:
    """The segments of an image. Chunks of one byte again and again are patterns; ``flags`` are of every section."""
    size = sectors * _SECTOR
    chunks = [memory[at : at + size] for at in range(0, len(memory), size)]
    share, made = -(-len(chunks) // files), []
    told = {"ts": str(len(memory) // _SECTOR), "bp": str(_SECTOR), "ph": "1"}
    case = {"nm": "memory", "tb": str(len(chunks)), "cp": "1", "sb": str(sectors)}
    for number in range(files):
        segment = Segment(number + 1)
        for kind, names in ((DEVICE, told), (CASE, case)):
            segment.add(kind, zlib.compress(text(names)), flags)
        first, rows, data = number * share, b"", b""
        for item in chunks[first : first + share]:
            if len(set(item[:8])) == 1 and item == item[:1] * size:
                rows += item[:8] + struct.pack("<2I", 0, 5)
                continue
            stored, kind = chunk(item)
            rows += struct.pack("<Q2I", len(segment.content) + len(data), len(stored), kind)
            data += stored + bytes(-len(stored) % 16)
        head = struct.pack("<QI4x", first, len(rows) // 16)
        segment.add(SECTORS, data, flags)
        segment.add(
            TABLE,
            head + struct.pack("<I12x", zlib.adler32(head)) + rows + struct.pack("<I12x", zlib.adler32(rows)),
            flags,
        )
        segment.add(NEXT if number + 1 < files else DONE, b"", flags)
        made.append(segment.content)
    return made
