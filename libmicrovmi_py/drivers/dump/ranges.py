# SPDX-License-Identifier: Apache-2.0
"""Ranges of memory one after the other, each behind a header of magic, version, first and last address.

LiME's layout, which AVML has as well; all numbers are little-endian. https://github.com/504ensicsLabs/LiME.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.layout import Extent, Span, once
from libmicrovmi_py.model import PHYSICAL_BITS

_HEADER = struct.Struct("<4sIQQ8x")

HEADER_SIZE = _HEADER.size
"""Bytes in front of each range."""


class Kind(NamedTuple):
    """A format of that layout. ``name`` is with its article; ``way_out`` is what to do with another ``version``."""

    magic: bytes
    version: int
    name: str
    way_out: str


def header(image: Image, position: int, kind: Kind) -> Span | None:
    """The addresses of the range there, ``None`` if the rest of the file is no use.

    Raises ``IoError`` for what is no such file, but with ``partial`` behind its first range, and for addresses that
    cannot be; ``DriverUnavailableError`` for another version.
    """
    name = kind.name.split()[-1]
    if position and not image.has(position, HEADER_SIZE):
        image.amiss(f"the header of a range would lie at {position:#x} of a file of {image.size:#x}")
        return None
    magic, version, first, last = _HEADER.unpack(image.read(position, HEADER_SIZE, "the header of a range"))
    if magic != kind.magic and position:
        image.amiss(f"there is no {name} range at {position:#x}, {image.size - position} bytes before the end")
        return None
    if magic != kind.magic:
        raise image.damaged(f"there is no {name} range at 0x0")
    if version != kind.version:
        raise image.refused(f"{kind.name} image of version {version}", kind.way_out)
    if not first <= last < 1 << PHYSICAL_BITS:
        raise image.damaged(f"the range at {position:#x} goes from {first:#x} to {last:#x}")
    return first, last + 1


def sorted_ranges(image: Image, kind: Kind, extents: Iterable[Extent]) -> list[Extent]:
    """The same memory sorted. Raises ``IoError`` for memory that is there twice, and refuses too many ranges."""
    found: list[Extent] = []
    for extent in extents:
        if len(found) == MAX_PIECES:
            raise image.refused(f"{kind.name} image of more than {MAX_PIECES} ranges", "convert it to raw")
        found.append(extent)
    try:
        return once(found)
    except ValueError as err:
        raise image.damaged(str(err)) from None
