# SPDX-License-Identifier: Apache-2.0
"""gzip, of one member or several: read at random, with the decompressor's windows as entry points."""

from __future__ import annotations

from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.inflate import GZIP, Inflated
from libmicrovmi_py.drivers.dump.probing import Probe, Sure

BEGINS = (b"\x1f\x8b\x08",)


def probe(image: Image) -> Probe:
    """By its signature, and the flags that there are."""
    sure = Sure.CERTAIN if image.size >= 18 and image.start[3] < 0x20 else Sure.POSSIBLE
    return Probe(sure, "a gzip file")


def unwrap(image: Image) -> Image:
    """What is inside."""
    return Inflated(image, 0, image.size, GZIP)
