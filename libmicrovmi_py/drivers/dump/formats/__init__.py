# SPDX-License-Identifier: Apache-2.0
"""Formats of dump files: one module each, which ends in ``FORMAT = Format(...)``; nothing else names it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from libmicrovmi_py.drivers.dump.contents import Format
from libmicrovmi_py.drivers.dump.image import FlatImage, Image
from libmicrovmi_py.drivers.dump.known import KNOWN, Known
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.transport.processes import names_in

_found: dict[str, Format] = {}


def formats() -> Mapping[str, Format]:
    """All formats by name; those with the longest first bytes come first. Looked up once they are all there."""
    if not _found:
        _found.update(_look_up())
    return _found


def _look_up() -> dict[str, Format]:
    names_in(__path__[0])  # what cannot be listed would count as empty below
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    found: list[Format] = [module.FORMAT for module in modules]
    return {item.name: item for item in sorted(found, key=lambda item: (-len(item.magic), item.name))}


def recognised(path: str, name: str | None, *, mapped: bool = True) -> tuple[Image, Format]:
    """Open a file (see ``Image.open``), and its format: the one of that name, or that which its first bytes tell."""
    if name is not None and name not in formats():
        raise InvalidArgumentError(f"format={name}: use {', '.join(sorted(formats()))}, or leave it out")
    image = Image.open(path, mapped=mapped)
    if name != "raw" and _start(image).startswith(FlatImage.MAGIC):
        image = FlatImage(image)
    return image, formats()[name] if name is not None else _format_of(image)


def _format_of(image: Image) -> Format:
    start = _start(image)
    found = next(item for item in formats().values() if start.startswith(item.magic))
    if not found.magic and isinstance(image, FlatImage):
        raise image.refused("a flattened file of an unknown format", "see what it holds: makedumpfile -R")
    known = next((item for item in KNOWN if _is_at(image, item)), None) if not found.magic else None
    if known is not None:
        raise image.refused(known.what, known.way_out)
    return found


def _start(image: Image) -> bytes:
    return image.read(0, min(16, image.size), "its start")


def _is_at(image: Image, known: Known) -> bool:
    size, place = len(known.magic), known.offset if known.offset >= 0 else image.size + known.offset
    return 0 <= place <= image.size - size and image.read(place, size, "its start") == known.magic
