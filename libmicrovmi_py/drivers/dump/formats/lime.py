# SPDX-License-Identifier: Apache-2.0
"""LiME: ranges one after the other, each with a header of magic, version, first and last address.

https://github.com/504ensicsLabs/LiME (the format "lime", version 1; all little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.layout import Extent, once
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.model import PHYSICAL_BITS

BEGINS = (b"EMiL",)

_HEADER = struct.Struct("<4sIQQ8x")


def probe(image: Image) -> Probe:
    """By the magic of its first range."""
    return Probe(Sure.CERTAIN, "a LiME image")


def _ranges(image: Image) -> Iterator[Extent]:
    position = 0
    while position < image.size:
        if position and not image.has(position, _HEADER.size):
            image.amiss(f"the header of a range would lie at {position:#x} of a file of {image.size:#x}")
            return
        magic, version, first, last = _HEADER.unpack(image.read(position, _HEADER.size, "the header of a range"))
        if magic != BEGINS[0] and position:
            image.amiss(f"there is no LiME range at {position:#x}, {image.size - position} bytes before the end")
            return
        if magic != BEGINS[0]:
            raise image.damaged("there is no LiME range at 0x0")
        if version != 1:
            raise image.refused(f"a LiME image of version {version}", "convert it to version 1: avml-convert")
        if not first <= last < 1 << PHYSICAL_BITS:
            raise image.damaged(f"the range at {position:#x} goes from {first:#x} to {last:#x}")
        position += _HEADER.size
        yield Extent(first, image.clipped(position, last + 1 - first, f"memory from {first:#x} on"), position)
        position += last + 1 - first


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    extents: list[Extent] = []
    for extent in _ranges(image):
        extents.append(extent)
        if len(extents) > MAX_PIECES:
            raise image.refused(f"a LiME image of more than {MAX_PIECES} ranges", "convert it to raw")
    try:
        return Contents(once(extents), producer="LiME")
    except ValueError as err:
        raise image.damaged(str(err)) from None
