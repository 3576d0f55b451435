# SPDX-License-Identifier: Apache-2.0
"""Libraries of hypervisors: loaded when a machine is opened that needs them, and called through cffi."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from libmicrovmi_py.declare import Any, NamedTuple
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.transport.fds import StandardStreamsHeld


class Foreign(NamedTuple):
    """cffi's two objects for a library: ``ffi`` for types, ``lib`` for functions, which run without Python's lock."""

    ffi: Any
    lib: Any


@functools.cache
def load(names: Sequence[str], declarations: str) -> Foreign:
    """Load the first library of ``names`` (a tuple of file names or paths) that is there.

    ``declarations`` are those of the functions and types that are used, as cffi's ``cdef`` takes them. Raises
    ``DriverUnavailableError`` with the loader's reason. A library stays loaded.
    """
    with StandardStreamsHeld():  # the loader opens files, and so do imports
        return _declare(_loaded(names)[0], declarations)  # a library that is not there costs no parsing


def _loaded(names: Sequence[str]) -> tuple[str, Any]:
    """The first of these libraries that is there, and cffi's bare object for it."""
    import _cffi_backend

    reasons = []
    for name in names:
        try:
            return name, _cffi_backend.load_library(name)
        except (OSError, ValueError) as err:  # a name that is no UTF-8 is a ValueError
            reasons.append(str(err).removeprefix(f"cannot load library '{name}': "))
    raise DriverUnavailableError(f"cannot load {names[0]}: {reasons[0]}; install it, or add its folder to the loader's")


@functools.cache
def addresses(names: Sequence[str], functions: Sequence[str]) -> tuple[int, ...]:
    """Where these functions of the first library of ``names`` are, for C to call: no declaration is parsed for that.

    Raises as :func:`load`, and ``DriverUnavailableError`` for a library that has not all of them.
    """
    with StandardStreamsHeld():
        name, library = _loaded(names)
        import _cffi_backend

    kind = _cffi_backend.new_function_type((), _cffi_backend.new_void_type())
    number = _cffi_backend.new_primitive_type("uintptr_t")
    try:
        found = tuple(int(_cffi_backend.cast(number, library.load_function(kind, item))) for item in functions)
    except AttributeError as err:
        raise DriverUnavailableError(f"{name} has not all that is needed: {err}; install a newer one") from err
    _kept.append(library)  # which is unloaded when nobody has it
    return found


_kept: list[Any] = []


def _declare(name: str, declarations: str) -> Foreign:
    with _without_subprocess():
        from cffi import FFI

        ffi = FFI()
        ffi.cdef(declarations)
    return Foreign(ffi, ffi.dlopen(name))


@contextmanager
def _without_subprocess() -> Iterator[None]:
    """The parser that cffi uses imports ``subprocess``, for something that is not asked of it.

    That would import ``signal``, which in an embedded Python takes SIGINT from the host. A Python that is the host has
    it already.
    """
    if "signal" in sys.modules or "subprocess" in sys.modules:
        yield
        return
    stand_in = ModuleType("subprocess")
    vars(stand_in)["check_output"] = None
    sys.modules["subprocess"] = stand_in
    try:
        yield
    finally:
        del sys.modules["subprocess"]
