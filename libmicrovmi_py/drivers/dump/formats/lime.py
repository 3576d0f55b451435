# SPDX-License-Identifier: Apache-2.0
"""LiME: ranges one after the other, each with a header of magic, version, first and last address.

https://github.com/504ensicsLabs/LiME (the format "lime", version 1; all little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from libmicrovmi_py.drivers.dump.contents import Contents, Format
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.layout import Piece, joined
from libmicrovmi_py.model import PHYSICAL_BITS

_MAGIC = b"EMiL"
_HEADER = struct.Struct("<4sIQQ8x")


def _ranges(image: Image) -> Iterator[Piece]:
    position = 0
    while position < image.size:
        magic, version, first, last = _HEADER.unpack(image.read(position, _HEADER.size, "the header of a range"))
        if magic != _MAGIC:
            raise image.damaged(f"there is no LiME range at {position:#x}")
        if version != 1:
            raise image.refused(f"a LiME image of version {version}", "convert it to version 1: avml-convert")
        if not first <= last < 1 << PHYSICAL_BITS:
            raise image.damaged(f"the range at {position:#x} goes from {first:#x} to {last:#x}")
        position += _HEADER.size
        image.check(position, last + 1 - first, f"memory from {first:#x} on")
        yield Piece(first, last + 1 - first, position)
        position += last + 1 - first


def _read(image: Image) -> Contents:
    pieces: list[Piece] = []
    for piece in _ranges(image):
        pieces.append(piece)
        if len(pieces) > MAX_PIECES:
            raise image.refused(f"a LiME image of more than {MAX_PIECES} ranges", "convert it to raw")
    pieces.sort()
    for one, other in pairwise(pieces):
        if one.end > other.start:
            raise image.damaged(f"memory at {other.start:#x} is there twice")
    return Contents(joined(pieces))


FORMAT = Format("lime", _MAGIC, _read)
