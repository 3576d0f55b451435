# SPDX-License-Identifier: Apache-2.0
"""The Python bodies for virtual memory, as ``entry.py``: what C does not do by itself."""

from __future__ import annotations

from _libmicrovmi import ffi

from libmicrovmi_py._capi import convert
from libmicrovmi_py._capi.boundary import on_machine
from libmicrovmi_py.declare import TYPE_CHECKING, Any
from libmicrovmi_py.errors import AccessError, NotMappedError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    from libmicrovmi_py.memory.virtual import VirtualMemory
    from libmicrovmi_py.paging import PageTables


def _tables(space: Any) -> PageTables:
    """A ``struct microvmi_address_space``, which C checked."""
    with StandardStreamsHeld():
        from libmicrovmi_py.paging import PageTables, Paging  # of whom reads physical memory only, nobody needs it
    return PageTables(Paging(space.paging), space.base, space.upper_base, space.control, space.physical_bits)


def _fill(space: Any, tables: PageTables) -> None:
    space.paging, space.base, space.upper_base, space.control, space.physical_bits = tables


def _memory(machine: Microvmi, space: Any) -> VirtualMemory:
    with StandardStreamsHeld():
        from libmicrovmi_py.memory import translation, virtual
    return virtual.virtual_memory(machine.physical, translation.prepared(_tables(space)))


@on_machine
def mvi_py_get_address_space(machine: Microvmi, vcpu: int, space: Any) -> None:
    with StandardStreamsHeld():
        from libmicrovmi_py.machine import spaces
    _fill(space, spaces.of_vcpu(machine, vcpu))


@on_machine
def mvi_py_get_twin_address_space(machine: Microvmi, space: Any, twin: Any) -> None:
    with StandardStreamsHeld():
        from libmicrovmi_py.memory import virtual
    _fill(twin, virtual.twin_tables(machine.physical, _tables(space)))


@on_machine
def mvi_py_translate(machine: Microvmi, space: Any, address: int, translation: Any) -> None:
    row = _memory(machine, space).translate(address)
    ffi.memmove(translation, row, ffi.sizeof("struct microvmi_translation"))
    if row.failure:
        from libmicrovmi_py.memory.translation import virtual_error

        raise virtual_error(NotMappedError.code, address, 1, 0, row)


@on_machine
def mvi_py_read_virtual(
    machine: Microvmi, padded: bool, space: Any, address: int, buffer: Any, size: int, ready: int, done: Any
) -> None:
    memory, view = _memory(machine, space), convert.buffer(buffer, size)
    try:
        if padded:
            memory.read_padded_into(address, view, ready)
        else:
            memory.read_exactly_into(address, view, ready)
    except AccessError as err:
        done[0] = err.completed
        raise


@on_machine
def mvi_py_write_virtual(machine: Microvmi, space: Any, address: int, data: Any, size: int) -> None:
    _memory(machine, space).write_from(address, convert.buffer(data, size))


@on_machine
def mvi_py_read_virtual_batch(machine: Microvmi, space: Any, requests: Any, count: int) -> None:
    rows = requests[0:count]
    results = _memory(machine, space).read_batch(
        [(row.virtual_address, convert.buffer(row.buffer, row.size)) for row in rows]
    )
    for row, (done, error) in zip(rows, results, strict=True):
        row.bytes_read, row.error = done, error.code if error else 0
    for _, error in results:
        if error is not None:
            raise error
