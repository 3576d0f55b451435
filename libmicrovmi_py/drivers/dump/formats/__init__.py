# SPDX-License-Identifier: Apache-2.0
"""Formats of dump files: one module each, which ends in ``FORMAT = Format(...)``; nothing else names it."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Mapping

from libmicrovmi_py.drivers.dump.contents import Format
from libmicrovmi_py.drivers.dump.image import FlatImage, Image
from libmicrovmi_py.errors import InvalidArgumentError

_OTHERS = {
    b"PAGEDUMP": "a 32-bit Windows crash dump",
    b"AVML": "a compressed AVML image",
    b"LibvirtQemud": "a saved machine of libvirt, made without --memory-only",
    b"QEVM": "a saved machine of QEMU",
    b"DISKDUMP": "a diskdump",
}
"""What is known by its first bytes and not read, so that nobody takes it for a raw image."""


_found: dict[str, Format] = {}


def formats() -> Mapping[str, Format]:
    """All formats by name; those with the longest first bytes come first. Looked up once they are all there."""
    if not _found:
        _found.update(_look_up())
    return _found


def _look_up() -> dict[str, Format]:
    os.listdir(__path__[0])  # what cannot be listed would count as empty below
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    found: list[Format] = [module.FORMAT for module in modules]
    return {item.name: item for item in sorted(found, key=lambda item: (-len(item.magic), item.name))}


def recognised(path: str, name: str | None) -> tuple[Image, Format]:
    """Open a file, and its format: the one of that name, or else the one that its first bytes tell."""
    if name is not None and name not in formats():
        raise InvalidArgumentError(f"format={name}: use {', '.join(sorted(formats()))}, or leave it out")
    image = Image.open(path)
    if name != "raw" and _start(image).startswith(FlatImage.MAGIC):
        image = FlatImage(image)
    return image, formats()[name] if name is not None else _format_of(image)


def _format_of(image: Image) -> Format:
    start = _start(image)
    for magic, text in _OTHERS.items():
        if start.startswith(magic):
            raise image.refused(text)
    found = next(item for item in formats().values() if start.startswith(item.magic))
    if isinstance(image, FlatImage) and not found.magic:
        raise image.refused("a flattened file of an unknown format")
    return found


def _start(image: Image) -> bytes:
    return image.read(0, min(16, image.size), "its start")
