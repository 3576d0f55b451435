# SPDX-License-Identifier: Apache-2.0
"""The C functions of ``direct.h`` and ``objects.c``: the library's own if it embeds us, else our module's."""

from __future__ import annotations

import functools
from collections.abc import Callable

from libmicrovmi_py.declare import Any, NamedTuple
from libmicrovmi_py.transport.fds import StandardStreamsHeld


class Native(NamedTuple):
    """cffi's two objects for a module: ``ffi`` for types, ``lib`` for functions."""

    ffi: Any
    lib: Any


class Functions(NamedTuple):
    """What makes Python's objects in C.

    Tables, streams and spaces are handed over as addresses, and held by the caller.
    """

    take_bytes: Callable[[int, int], bytes | int]
    read_bytes: Callable[[int, int, int], bytes | tuple[int, int]]
    read_virtual: Callable[[int, int, int, int], bytes | tuple[Any, ...]]
    fill_virtual: Callable[[int, int, bool, int, Any], int | tuple[Any, ...]]
    read_batch: Callable[..., list[int | tuple[int, int]] | int]


@functools.cache
def native() -> Native:
    """Looked up at the first use, as building the module takes other parts of this package."""
    with StandardStreamsHeld():
        try:
            from _libmicrovmi import ffi, lib
        except ImportError:
            try:
                from libmicrovmi_py._direct import ffi, lib
            except ImportError as err:
                raise ImportError(f"libmicrovmi_py is not built ({err}): run make lib, or pip install .") from err
    return Native(ffi, lib)


@functools.cache
def functions() -> Functions:
    """The functions of ``objects.c``, which are no foreign functions and need no buffer of Python's."""
    made: dict[str, Any] = {}
    if not native().lib.mvi_object_functions(id(made)):
        raise MemoryError("no memory for the functions that read")
    return Functions(**made)


def give_way() -> None:
    """Between two pieces of long work: let a call from C that waits for Python's lock have it now.

    Python itself would hand it over after five milliseconds.
    """
    lib = native().lib
    if lib.mvi_turns_wanted:
        lib.mvi_turns_give()
