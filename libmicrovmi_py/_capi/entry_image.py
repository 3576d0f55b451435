# SPDX-License-Identifier: Apache-2.0
"""The Python body for images of memory, as ``entry.py``."""

from __future__ import annotations

from _libmicrovmi import ffi

from libmicrovmi_py._capi.boundary import on_machine
from libmicrovmi_py.declare import Any
from libmicrovmi_py.errors import escaped, shortened
from libmicrovmi_py.machine.microvmi import Microvmi

_NOT_TOLD = (1 << 64) - 1
_TEXTS = ("format", "producer", "machine")
_LISTS = ("wrappers", "files", "missing", "remarks")


@on_machine
def mvi_py_image_info(machine: Microvmi, info: Any) -> None:
    known = machine.image_info
    info.access, info.pages_present, info.pages_absent = known.access, known.present, known.absent
    info.pages_zero = _NOT_TOLD if known.zero is None else known.zero
    for name in _TEXTS:
        _fill(info, name, escaped(getattr(known, name)))
    for name in _LISTS:
        lines = getattr(known, name)
        setattr(info, f"{name}_count", len(lines))
        _fill(info, name, "\n".join(map(escaped, lines)))


def _fill(info: Any, name: str, text: str) -> None:
    """As much of a text as the member holds; a zero byte is there already."""
    room = ffi.buffer(getattr(info, name))
    content = shortened(text, len(room) - 1).encode()
    room[: len(content)] = content
