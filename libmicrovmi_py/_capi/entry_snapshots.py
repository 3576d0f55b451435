# SPDX-License-Identifier: Apache-2.0
"""The Python bodies for snapshots, as ``entry.py``."""

from __future__ import annotations

from _libmicrovmi import ffi

from libmicrovmi_py._capi import convert, handles
from libmicrovmi_py._capi.boundary import on_machine
from libmicrovmi_py.declare import Any
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.transport.fds import StandardStreamsHeld


@on_machine
def mvi_py_snapshot(machine: Microvmi, context: int, options: Any) -> None:
    def report(done: int, total: int) -> bool:
        return bool(options.progress(options.opaque, done, total))

    snapshot = machine.snapshot(
        pause_only=bool(options.flags & 1),
        max_bytes=options.max_bytes,
        threads=options.threads,
        timeout=options.timeout_ms / 1000 if options.timeout_ms else None,
        progress=report if options.progress != ffi.NULL else None,
    )
    handles.add(context, snapshot)


@on_machine
def mvi_py_snapshot_info(machine: Microvmi, info: Any) -> None:
    known = machine.snapshot_info
    info.method = known.method
    info.stood_ns = round(known.stood * 1e9)
    info.taken_at, info.data_bytes = known.taken_at, known.data_bytes
    info.struct_size = min(info.struct_size, ffi.sizeof("struct microvmi_snapshot_info"))


@on_machine
def mvi_py_diff(machine: Microvmi, newer: int, going_on: Any, ranges: Any, capacity: int, count: Any) -> None:
    with StandardStreamsHeld():
        from libmicrovmi_py.memory import difference  # most never compare
    other = handles.enter(newer)
    try:
        found = difference.some(
            machine.physical, other.machine.physical, going_on[0], min(capacity, difference.MOST_AT_ONCE)
        )
        other.publish()
    finally:
        other.leave()
    count[0] = convert.fill_ranges(ranges, capacity, found.ranges)
    going_on[0] = found.going_on
    if found.error is not None:
        raise found.error
