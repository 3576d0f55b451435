# SPDX-License-Identifier: Apache-2.0
"""What stands between every call from C and Python: nothing raised gets past it, and every failure sets the error."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from _libmicrovmi import ffi, lib

from libmicrovmi_py._capi import handles
from libmicrovmi_py.declare import Any
from libmicrovmi_py.errors import IoError, MicrovmiError, VmGoneError, logger, told

_log = logger(__name__)

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)


def exported(function: Callable[..., None]) -> Callable[..., None]:
    """Make ``function`` the body of the C function of the same name: 1 if it returns, 0 and an error if it raises."""

    def call(*arguments: Any) -> int:
        try:
            function(*arguments)
        except BaseException as err:
            return failed(err)
        return 1

    _bind(function.__name__, call)
    return function


def on_machine(function: Callable[..., None]) -> Callable[..., None]:
    """As :func:`exported`, for functions whose first argument is a context; the body gets its machine."""

    def call(context: int, *arguments: Any) -> int:
        handle = None
        try:
            handle = handles.enter(context)
            function(handle.machine, *arguments)
            handle.publish()
        except BaseException as err:
            return failed(err, handle)
        finally:
            if handle is not None:
                handle.leave()
        return 1

    _bind(function.__name__, call)
    return function


def whole(function: Callable[..., int]) -> Callable[..., int]:
    """Make ``function`` itself the body: it returns 1, or what :func:`failed` does of whatever it would raise."""
    _bind(function.__name__, function)
    return function


def _bind(name: str, body: Callable[..., int]) -> None:
    ffi.def_extern(name=name, onerror=_not_even_called)(body)


def failed(err: BaseException, handle: handles.Handle | None = None) -> int:
    """Turn an exception into the thread's error; of a machine that was migrated away C may read nothing any more."""
    if handle is not None and isinstance(err, VmGoneError):
        try:
            handle.publish()
        except BaseException as another:
            err = another
    _report(err)
    return 0


def _not_even_called(kind: type[BaseException], err: BaseException | None, traceback: object) -> None:
    """What went wrong outside of :func:`exported`, for lack of memory for example; cffi would print it."""
    _report(err or kind())


def _report(err: BaseException) -> None:
    """Turn an exception into the calling thread's error."""
    code, text = MicrovmiError.code, f"{type(err).__name__}: {told(err)}"
    if isinstance(err, MicrovmiError):
        code, text = err.code, told(err)
    elif isinstance(err, OSError) and err.errno in _SHORTAGES:
        code, text = IoError.code, f"the process has run out of something: {told(err)}"
    elif isinstance(err, KeyboardInterrupt):
        text = "interrupted"
        if "_signal" in sys.modules:  # a host that is a Python; an embedded one handles no signals
            lib.mvi_hand_on_interrupt()
    else:
        _log.debug("unexpected error", exc_info=err)
    lib.mvi_set_error(code, text.encode("utf-8", "backslashreplace"))
