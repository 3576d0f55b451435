# SPDX-License-Identifier: Apache-2.0
"""The Python bodies of the functions in ``_native/callbacks.h``, under the same names."""

from __future__ import annotations

from _libmicrovmi import ffi, lib

from libmicrovmi_py import environment
from libmicrovmi_py._capi import convert, handles, mapped
from libmicrovmi_py._capi import entry_dump as entry_dump  # its functions are there from the start as well
from libmicrovmi_py._capi import entry_image as entry_image  # so are these
from libmicrovmi_py._capi import entry_snapshots as entry_snapshots  # so are these
from libmicrovmi_py._capi import entry_virtual as entry_virtual
from libmicrovmi_py._capi.boundary import exported, failed, on_machine, whole
from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.registry import open_driver
from libmicrovmi_py.errors import AccessError, MicrovmiError, NotMappedError, TimeoutExpiredError, not_mapped
from libmicrovmi_py.events import ALL_VCPUS
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.machine.release import EXIT_LIMIT, release_all
from libmicrovmi_py.memory.io import Memory, PaddedMemory
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.shape import integer

_ASK_PYTHON = -1

environment.decide(lib.mvi_environment_counts())


@exported
def mvi_py_open_uri(context: int, uri: Any) -> None:
    handles.add(context, Microvmi.from_parameters(Parameters.from_uri(convert.text(uri, "uri") or "")))


@exported
def mvi_py_open_params(context: int, driver_type: Any, params: Any) -> None:
    driver = open_driver(convert.parameters(params), convert.driver_type(driver_type))
    handles.add(context, Microvmi.from_driver(driver))


@exported
def mvi_py_list_vms(driver: Any, machines: Any, capacity: int, count: Any) -> None:
    from libmicrovmi_py._capi import listing  # of whom opens a machine, nobody needs it

    count[0] = listing.fill_all(convert.text(driver, "driver"), machines, capacity)


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
def mvi_py_read(machine: Microvmi, padded: bool, address: int, buffer: Any, size: int, ready: int, done: Any) -> None:
    view = convert.buffer(buffer, size)
    try:
        if padded:
            machine.physical.read_padded_into(address + ready, view[ready:])
        elif ready:
            _read_on(machine, address, view, ready)
        else:
            machine.physical.read_exactly_into(address, view)
    except AccessError as err:
        done[0] = ready + err.completed
        raise


def _read_on(machine: Microvmi, address: int, view: memoryview, ready: int) -> None:
    """Read what follows the part that is there already; a hole is told as one of the whole."""
    done = machine.physical.read_into(address + ready, view[ready:])
    if ready + done < len(view):
        error = not_mapped(address, len(view), ready + done)
        error.completed = done
        raise error


@whole
def mvi_py_read_within(context: int, address: int, buffer: Any, size: int) -> int:
    """One layer, and nothing that such a read does not need: it takes as long as what is around it."""
    handle = None
    try:
        handle = handles.enter(context)
        handle.read_within(address, memoryview(ffi.buffer(buffer, size)))
        if handle.follows:
            handle.publish()
    except BaseException as err:
        return failed(err, handle) - (err.completed if isinstance(err, AccessError) else 0)
    finally:
        if handle is not None:
            handle.leave()
    return 1


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
def mvi_py_read_rest(machine: Microvmi, requests: Any, count: int) -> None:
    rows = [row for row in requests[0:count] if row.error == _ASK_PYTHON]
    errors = [_read_rest(machine, row) for row in rows]
    for error in errors:
        if error is not None:
            raise error


def _read_rest(machine: Microvmi, row: Any) -> MicrovmiError | None:
    ready = row.bytes_read
    try:
        _read_on(machine, row.physical_address, convert.buffer(row.buffer, row.size), ready)
    except MicrovmiError as err:
        row.bytes_read = ready + (err.completed if isinstance(err, AccessError) else 0)
        row.error = err.code
        return err
    row.bytes_read, row.error = row.size, 0
    return None


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
def mvi_py_stream_read(
    machine: Microvmi, padded: bool, buffer: Any, size: int, ready: int, position: int, done: Any
) -> None:
    stream, view = _stream(machine, padded), convert.buffer(buffer, size)
    try:
        done[0] = ready + stream.read_on(position, view[ready:]) if ready else stream.readinto(view)
    except AccessError as err:
        done[0] = ready + err.completed
        if not (ready and isinstance(err, NotMappedError)):
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
    count[0] = convert.fill_ranges(ranges, capacity, machine.memory_map())


@on_machine
def mvi_py_abilities(machine: Microvmi, abilities: Any) -> None:
    convert.fill_abilities(abilities, machine.abilities)


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
def mvi_py_read_vcpu_states(machine: Microvmi, states: Any, capacity: int, count: Any) -> None:
    from libmicrovmi_py._capi import vcpu_states  # of whom reads memory only, nobody needs it

    found = machine.read_states()
    vcpu_states.fill_all(states, found[:capacity])
    count[0] = len(found)


@on_machine
def mvi_py_read_vcpu_state(machine: Microvmi, vcpu: int, state: Any) -> None:
    from libmicrovmi_py._capi import vcpu_states

    vcpu_states.fill(state, vcpu, machine.read_state(vcpu))


@on_machine
def mvi_py_write_vcpu_state(machine: Microvmi, vcpu: int, state: Any) -> None:
    from libmicrovmi_py._capi import vcpu_states

    machine.write_state(vcpu_states.values(state), vcpu)


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
        raise TimeoutExpiredError("no event came in time")
    convert.fill_event(event, found)


@on_machine
def mvi_py_reply_event(machine: Microvmi, identifier: int, action: int, registers: Any) -> None:
    machine.reply_event(identifier, convert.reply(action, registers))


@exported
def mvi_py_log(text: Any) -> None:
    from libmicrovmi_py._capi import log  # with what it needs it is as large as half of the rest

    log.configure(ffi.string(text).decode("utf-8", "replace"))


@exported
def mvi_py_exit() -> None:
    release_all(EXIT_LIMIT)


@exported
def mvi_py_release_all(timeout_ms: int) -> None:
    release_all(timeout_ms / 1000)
