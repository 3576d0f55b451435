# SPDX-License-Identifier: Apache-2.0
"""The Python body of ``microvmi_dump``, as ``entry.py``."""

from __future__ import annotations

import os

from _libmicrovmi import ffi

from libmicrovmi_py._capi.boundary import on_machine
from libmicrovmi_py.declare import Any
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.transport.fds import StandardStreamsHeld

_LIVE, _SNAPSHOT, _REPLACE, _RESUME = 1, 2, 4, 8


@on_machine
def mvi_py_dump(machine: Microvmi, path: Any, options: Any, info: Any) -> None:
    with StandardStreamsHeld():
        from libmicrovmi_py.export.dump import Wanted, dump  # most never write a file
        from libmicrovmi_py.export.partial import Words
        from libmicrovmi_py.export.view import View
        from libmicrovmi_py.export.writing import FORMATS

    def report(done: int, total: int) -> bool:
        return bool(options.progress(options.opaque, done, total))

    words = Words(*(f"MICROVMI_DUMP_{name}" for name in ("REPLACE", "RESUME", "LIVE", "SNAPSHOT")))
    done = dump(
        machine,
        os.fsdecode(ffi.string(path)),
        Wanted(
            FORMATS[options.format - 1] if options.format else "",
            View.LIVE if options.flags & _LIVE else View.SNAPSHOT if options.flags & _SNAPSHOT else None,
            resume=bool(options.flags & _RESUME),
            replace=bool(options.flags & _REPLACE),
            words=words,
        ),
        timeout=options.timeout_ms / 1000 if options.timeout_ms else None,
        progress=report if options.progress != ffi.NULL else None,
    )
    info.moment, info.file_bytes, info.data_bytes = done.moment, done.written.size, done.written.data
