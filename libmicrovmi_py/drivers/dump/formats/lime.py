# SPDX-License-Identifier: Apache-2.0
"""LiME: ranges one after the other, each with a header of magic, version, first and last address.

https://github.com/504ensicsLabs/LiME (the format "lime", version 1; all little-endian).
"""

from __future__ import annotations

from collections.abc import Iterator

from libmicrovmi_py.drivers.dump import ranges
from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.layout import Extent
from libmicrovmi_py.drivers.dump.probing import Probe, Sure

BEGINS = (b"EMiL",)

_KIND = ranges.Kind(BEGINS[0], 1, "a LiME", "convert it to version 1: avml-convert")


def probe(image: Image) -> Probe:
    """By the magic of its first range."""
    return Probe(Sure.CERTAIN, "a LiME image")


def _ranges(image: Image) -> Iterator[Extent]:
    position = 0
    while position < image.size:
        span = ranges.header(image, position, _KIND)
        if span is None:
            return
        first, end = span
        position += ranges.HEADER_SIZE
        yield Extent(first, image.clipped(position, end - first, f"memory from {first:#x} on"), position)
        position += end - first


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    return Contents(ranges.sorted_ranges(image, _KIND, _ranges(image)), producer="LiME")
