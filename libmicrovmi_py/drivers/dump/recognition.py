# SPDX-License-Identifier: Apache-2.0
"""Opens a dump's file, takes off what it is wrapped in, and finds the format that reads what is inside."""

from __future__ import annotations

import os
from collections.abc import Callable

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump import formats, probing, wrappers
from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.image import File, Image
from libmicrovmi_py.drivers.dump.opening import Opening
from libmicrovmi_py.errors import InvalidArgumentError

_FORMATS, _WRAPPERS = formats.__name__, wrappers.__name__
_RAW = "raw"
_DEEPEST = 4
"""So many wrappers may be around each other: more is a file that was made to keep somebody busy."""


class Recognised(NamedTuple):
    """The image inside all wrappers, the name of the format that it is, and what reads it.

    ``read`` raises an ``IoError`` for a file that is cut short or lies, a ``DriverUnavailableError`` for one that this
    version cannot read.
    """

    image: Image
    format: str
    read: Callable[[Image], Contents]


def recognised(path: str, name: str | None, opening: Opening) -> Recognised:
    """Open a file (see ``File.open``): as the format of that name, or as that which knows it best.

    ``format=raw`` takes any file as it is.
    """
    if name is not None and name not in (names := [item.name for item in probing.wanted(_FORMATS)]):
        raise InvalidArgumentError(f"format={name}: use {', '.join(names)}, or leave it out")
    if os.path.isdir(path) and (held := probing.held_by(_FORMATS, path)):
        name, path = name or held[0], held[1]
    image: Image = File.open(path, opening)
    if name != _RAW:
        image = _unwrapped(image)
    name = name or _format_of(image)
    return Recognised(image, name, probing.module(_FORMATS, name).read)


def _unwrapped(image: Image) -> Image:
    while True:
        found = probing.probed(_WRAPPERS, image)
        if found is None:
            return image
        if found.probe.way_out:
            raise image.refused(found.probe.what, found.probe.way_out)
        if len(image.opening.wrappers) == _DEEPEST:
            raise image.refused(f"{found.probe.what} within {_DEEPEST} others", "unpack it first")
        image.opening.wrappers.append(found.name)
        image = found.module.unwrap(image)


def _format_of(image: Image) -> str:
    found = probing.probed(_FORMATS, image)
    if found is None:
        _check_unknown(image)
        return _RAW
    if found.probe.way_out:
        raise image.refused(found.probe.what, found.probe.way_out)
    return found.name


def _check_unknown(image: Image) -> None:
    """Raise for a file that no format reads, and that begins with something known that is no memory."""
    from libmicrovmi_py.drivers.dump.known import KNOWN  # a long table, which only raw memory is compared with

    image.as_raw()
    for item in KNOWN:
        if image.start.startswith(item.magic, item.offset):
            raise image.refused(item.what, item.way_out)
