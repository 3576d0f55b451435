# SPDX-License-Identifier: Apache-2.0
"""LiME: ranges one after the other, each with a header of magic, version, first and last address.

https://github.com/504ensicsLabs/LiME (the format "lime", version 1; all little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.known import FORMATS
from libmicrovmi_py.drivers.dump.layout import Extent, joined
from libmicrovmi_py.model import PHYSICAL_BITS

_MAGIC = FORMATS["lime"]
_HEADER = struct.Struct("<4sIQQ8x")


def _ranges(image: Image) -> Iterator[Extent]:
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
        yield Extent(first, last + 1 - first, position)
        position += last + 1 - first


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    extents: list[Extent] = []
    for extent in _ranges(image):
        extents.append(extent)
        if len(extents) > MAX_PIECES:
            raise image.refused(f"a LiME image of more than {MAX_PIECES} ranges", "convert it to raw")
    extents.sort()
    for one, other in pairwise(extents):
        if one.end > other.start:
            raise image.damaged(f"memory at {other.start:#x} is there twice")
    return Contents(joined(extents))
