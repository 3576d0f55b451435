# SPDX-License-Identifier: Apache-2.0
"""The pointers into guest memory that C callers hold; each keeps its mapping, whatever becomes of its context."""

from __future__ import annotations

import threading

from _libmicrovmi import ffi

from libmicrovmi_py.declare import Any
from libmicrovmi_py.errors import InvalidArgumentError

_lock = threading.Lock()
_held: dict[int, list[Any]] = {}


def add(view: memoryview) -> Any:
    """Hold ``view`` until :func:`remove`; the address of its first byte."""
    pointer = ffi.from_buffer("const uint8_t[]", view)
    with _lock:
        _held.setdefault(int(ffi.cast("uintptr_t", pointer)), []).append(pointer)
    return ffi.cast("const uint8_t *", pointer)


def remove(pointer: Any) -> None:
    """Give up one hold on the address."""
    address = int(ffi.cast("uintptr_t", pointer))
    with _lock:
        holds = _held.get(address)
        if not holds:
            raise InvalidArgumentError(f"{address:#x} is no pointer of microvmi_map_physical(), or was given back")
        holds.pop()
        if not holds:
            del _held[address]
