# SPDX-License-Identifier: Apache-2.0
"""The Python bodies of the functions in ``_native/callbacks.h``, under the same names."""

from __future__ import annotations

from typing import Any

from _libmicrovmi import ffi, lib

from libmicrovmi_py import environment
from libmicrovmi_py._capi import convert, handles, log, mapped
from libmicrovmi_py._capi.boundary import exported, on_machine
from libmicrovmi_py.drivers.registry import open_driver
from libmicrovmi_py.errors import AccessError, TimeoutExpiredError
from libmicrovmi_py.events import ALL_VCPUS
from libmicrovmi_py.memory.io import Memory, PaddedMemory
from libmicrovmi_py.microvmi import Microvmi
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.release import EXIT_LIMIT, release_all
from libmicrovmi_py.transport.shape import integer

environment.decide(lib.mvi_environment_counts())


def _add(context: int, machine: Microvmi) -> None:
    handles.add(context, machine)
    lib.mvi_context_describe(ffi.cast("void *", context), machine.driver_type, machine.driver.name.encode())


@exported
def mvi_py_open_uri(context: int, uri: Any) -> None:
    _add(context, Microvmi.from_parameters(Parameters.from_uri(convert.text(uri, "uri") or "")))


@exported
def mvi_py_open_params(context: int, driver_type: Any, params: Any) -> None:
    driver = open_driver(convert.parameters(params), convert.driver_type(driver_type))
    _add(context, Microvmi.from_driver(driver))


@exported
def mvi_py_close(context: int) -> None:
    handles.remove(context).close()


@on_machine
def mvi_py_pause(machine: Microvmi) -> None:
    machine.pause()


@on_machine
def mvi_py_resume(machine: Microvmi) -> None:
    machine.resume()


@on_machine
def mvi_py_read(machine: Microvmi, padded: bool, address: int, buffer: Any, size: int, done: Any) -> None:
    view = convert.buffer(buffer, size)
    try:
        if padded:
            machine.read_physical_padded_into(address, view)
        else:
            machine.read_physical_exactly_into(address, view)
    except AccessError as err:
        done[0] = err.completed
        raise
    done[0] = size


@on_machine
def mvi_py_read_batch(machine: Microvmi, requests: Any, count: int) -> None:
    rows = requests[0:count]
    results = machine.read_physical_batch(
        [(row.physical_address, convert.buffer(row.buffer, row.size)) for row in rows]
    )
    for row, (done, error) in zip(rows, results, strict=True):
        row.bytes_read, row.error = done, error.code if error else 0
    for _, error in results:
        if error is not None:
            raise error


@on_machine
def mvi_py_map(machine: Microvmi, address: int, size: int, pointer: Any) -> None:
    pointer[0] = mapped.add(machine.map_physical(address, size))


@exported
def mvi_py_unmap(pointer: Any) -> None:
    mapped.remove(pointer)


@on_machine
def mvi_py_write(machine: Microvmi, address: int, data: Any, size: int) -> None:
    machine.write_physical(address, convert.buffer(data, size))


def _stream(machine: Microvmi, padded: bool) -> Memory | PaddedMemory:
    return machine.padded_memory if padded else machine.memory


@on_machine
def mvi_py_stream_seek(machine: Microvmi, padded: bool, offset: int, whence: int, position: Any) -> None:
    position[0] = _stream(machine, padded).seek(offset, whence)


@on_machine
def mvi_py_stream_read(machine: Microvmi, padded: bool, buffer: Any, size: int, done: Any) -> None:
    try:
        done[0] = _stream(machine, padded).readinto(convert.buffer(buffer, size))
    except AccessError as err:
        done[0] = err.completed
        raise


@on_machine
def mvi_py_stream_write(machine: Microvmi, data: Any, size: int, done: Any) -> None:
    try:
        done[0] = machine.memory.write(convert.buffer(data, size))
    except AccessError as err:
        done[0] = err.completed
        raise


@on_machine
def mvi_py_max_address(machine: Microvmi, address: Any) -> None:
    address[0] = machine.max_addr


@on_machine
def mvi_py_memory_map(machine: Microvmi, ranges: Any, capacity: int, count: Any) -> None:
    known = machine.memory_map()
    for index, item in enumerate(known[:capacity]):
        ranges[index] = {"start": item.start, "size": item.size, "kind": item.kind, "reserved": (0, 0, 0)}
    count[0] = len(known)


@on_machine
def mvi_py_vcpu_count(machine: Microvmi, count: Any) -> None:
    count[0] = integer(machine.vcpu_count(), "the number of vCPUs", 0, ALL_VCPUS)


@on_machine
def mvi_py_read_registers(machine: Microvmi, vcpu: int, registers: Any) -> None:
    convert.fill_registers(registers, machine.read_registers(vcpu))


@on_machine
def mvi_py_write_registers(machine: Microvmi, vcpu: int, registers: Any) -> None:
    machine.write_registers(convert.registers(registers), vcpu)


@on_machine
def mvi_py_get_page_access(machine: Microvmi, address: int, access: Any) -> None:
    access[0] = machine.get_page_access(address)


@on_machine
def mvi_py_set_page_access(machine: Microvmi, address: int, access: int) -> None:
    machine.set_page_access(address, convert.page_access(access))


@on_machine
def mvi_py_toggle_intercept(machine: Microvmi, vcpu: int, intercept: Any, enabled: bool) -> None:
    machine.toggle_intercept(convert.intercept(intercept), enabled, vcpu=vcpu)


@on_machine
def mvi_py_listen(machine: Microvmi, timeout_ms: int, event: Any) -> None:
    found = machine.listen(timeout_ms / 1000)
    if found is None:
        raise TimeoutExpiredError(f"no event within {timeout_ms} ms")
    convert.fill_event(event, found)


@on_machine
def mvi_py_reply_event(machine: Microvmi, identifier: int, action: int, registers: Any) -> None:
    machine.reply_event(identifier, convert.reply(action, registers))


@exported
def mvi_py_log(text: Any) -> None:
    log.configure(ffi.string(text).decode("utf-8", "replace"))


@exported
def mvi_py_exit() -> None:
    release_all(EXIT_LIMIT)


@exported
def mvi_py_release_all(timeout_ms: int) -> None:
    release_all(timeout_ms / 1000)
