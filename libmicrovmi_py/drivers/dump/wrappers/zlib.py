# SPDX-License-Identifier: Apache-2.0
"""A stream of zlib, as LiME writes with ``compress=1``: read at random, with windows as entry points.

https://github.com/504ensicsLabs/LiME (src/deflate.c), RFC 1950.
"""

from __future__ import annotations

import zlib

from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.inflate import ZLIB, Inflated
from libmicrovmi_py.drivers.dump.probing import Probe, Sure

BEGINS = (b"\x38\x8d", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""The first is LiME's, of a window of 2 KiB; the others are what programs write, of one of 32 KiB."""


def probe(image: Image) -> Probe | None:
    """By two bytes, which other files have by chance: so what comes next has to be deflated data."""
    try:
        content = zlib.decompressobj(ZLIB).decompress(image.start, 1 << 16)
    except zlib.error:
        return None
    return Probe(Sure.LIKELY, "a zlib stream") if content else None


def unwrap(image: Image) -> Image:
    """What is inside."""
    return Inflated(image, 0, image.size, ZLIB)
