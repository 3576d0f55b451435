# SPDX-License-Identifier: Apache-2.0
"""The C functions of ``_native/hot.h``: the library's own when it embeds us, else those of the module built with us."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple


class Native(NamedTuple):
    """cffi's two objects for a module: ``ffi`` for types, ``lib`` for functions."""

    ffi: Any
    lib: Any


@functools.cache
def native() -> Native:
    """Looked up at the first use, as building the module takes other parts of this package."""
    try:
        from _libmicrovmi import ffi, lib
    except ImportError:
        try:
            from libmicrovmi_py._hot import ffi, lib
        except ImportError as err:
            raise ImportError(f"libmicrovmi_py is not built ({err}): run make lib, or pip install .") from err
    return Native(ffi, lib)
