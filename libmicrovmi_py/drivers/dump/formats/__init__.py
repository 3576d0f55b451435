# SPDX-License-Identifier: Apache-2.0
"""Formats of dump files: a module each with a function ``read``, and a line in ``known.FORMATS``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.image import FlatImage, Image
from libmicrovmi_py.drivers.dump.known import FORMATS, KNOWN, Known
from libmicrovmi_py.errors import InvalidArgumentError

Read = Callable[[Image], Contents]
"""It raises an ``IoError`` for a file that is cut short or lies, a ``DriverUnavailableError`` for one that this version
cannot read."""


def recognised(path: str, name: str | None, *, mapped: bool = True) -> tuple[Image, Read]:
    """Open a file (see ``Image.open``), and what reads it: as that format, or as that which its first bytes tell."""
    if name is not None and name not in FORMATS:
        raise InvalidArgumentError(f"format={name}: use {', '.join(sorted(FORMATS))}, or leave it out")
    image = Image.open(path, mapped=mapped)
    if name != "raw" and _start(image).startswith(FlatImage.MAGIC):
        image = FlatImage(image)
    return image, _reader(name if name is not None else _format_of(image))


def _reader(name: str) -> Read:
    """What a module of that name has; the others are not read."""
    module = f"{__name__}.{name}"
    __import__(module)
    read: Read = sys.modules[module].read
    return read


def _format_of(image: Image) -> str:
    start = _start(image)
    found = next(name for name, magic in FORMATS.items() if start.startswith(magic))
    if not FORMATS[found] and isinstance(image, FlatImage):
        raise image.refused("a flattened file of an unknown format", "see what it holds: makedumpfile -R")
    known = next((item for item in KNOWN if _is_at(image, item)), None) if not FORMATS[found] else None
    if known is not None:
        raise image.refused(known.what, known.way_out)
    return found


def _start(image: Image) -> bytes:
    return image.read(0, min(16, image.size), "its start")


def _is_at(image: Image, known: Known) -> bool:
    size, place = len(known.magic), known.offset if known.offset >= 0 else image.size + known.offset
    return 0 <= place <= image.size - size and image.read(place, size, "its start") == known.magic
