# SPDX-License-Identifier: Apache-2.0
"""What stands between every call from C and Python: nothing raised gets past it, and every failure sets the error."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from typing import Any

from _libmicrovmi import ffi, lib

from libmicrovmi_py._capi import handles
from libmicrovmi_py.errors import IoError, MicrovmiError, logger, told

_log = logger(__name__)

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)


def exported(function: Callable[..., None]) -> Callable[..., None]:
    """Make ``function`` the body of the C function of the same name: 1 if it returns, 0 and an error if it raises."""

    @functools.wraps(function)
    def call(*arguments: Any) -> int:
        try:
            function(*arguments)
        except BaseException as err:
            _report(err)
            return 0
        return 1

    ffi.def_extern(name=function.__name__, onerror=_not_even_called)(call)
    return function


def on_machine(function: Callable[..., None]) -> Callable[..., None]:
    """As :func:`exported`, for functions whose first argument is a context; the body gets its machine."""

    @functools.wraps(function)
    def call(context: int, *arguments: Any) -> None:
        with handles.using(context) as machine:
            function(machine, *arguments)

    return exported(call)


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
