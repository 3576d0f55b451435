# SPDX-License-Identifier: Apache-2.0
"""C values to Python values and back."""

from __future__ import annotations

from typing import Any

from _libmicrovmi import ffi, lib

from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.events import Event, EventKind, Intercept, PageAccess, Reply, ReplyAction
from libmicrovmi_py.model import (
    X86_GENERAL,
    X86_SEGMENTS,
    X86_TABLES,
    DriverType,
    SegmentReg,
    SystemTableReg,
    X86Registers,
)
from libmicrovmi_py.params import Parameters


def text(pointer: Any, name: str) -> str | None:
    """A C string as text, ``None`` for NULL; ``name`` is for the error if it is not UTF-8."""
    if pointer == ffi.NULL:
        return None
    try:
        return ffi.string(pointer).decode("utf-8")  # type: ignore[no-any-return]
    except UnicodeDecodeError as err:
        raise InvalidArgumentError(f"{name} is not UTF-8: {err.reason} at byte {err.start}") from None


def buffer(pointer: Any, size: int) -> memoryview:
    """``size`` bytes of the caller's memory, without a copy."""
    return memoryview(ffi.buffer(pointer, size)) if size else memoryview(bytearray())


def driver_type(pointer: Any) -> DriverType | None:
    """A driver type behind a pointer, ``None`` for NULL."""
    if pointer == ffi.NULL:
        return None
    try:
        return DriverType(pointer[0])
    except ValueError:
        raise InvalidArgumentError(f"there is no driver type {pointer[0]}") from None


def parameters(pointer: Any) -> Parameters:
    """A ``DriverInitParamsFFI`` as parameters; members of an unknown tag are left out."""
    if pointer == ffi.NULL:
        return Parameters()
    values = {
        "vm_name": text(pointer.common.vm_name, "vm_name"),
        "memflow_connector_name": text(pointer.memflow.connector_name, "connector_name"),
    }
    if pointer.kvm.tag == lib.UnixSocket:
        values["kvm_unix_socket"] = text(pointer.kvm.unix_socket.path, "path")
    connector = pointer.memflow.connector_args
    if connector.tag == lib.Default and connector.default_.args_arr != ffi.NULL:
        items = ffi.unpack(connector.default_.args_arr, connector.default_.args_arr_len)
        values["memflow_connector_args"] = ",".join(text(item, "args_arr") or "" for item in items)
    return Parameters(values)


def fill_registers(target: Any, registers: X86Registers) -> None:
    """Store registers in a ``struct Registers``."""
    target.tag = lib.X86
    for name in X86_GENERAL:
        setattr(target.x86, name, getattr(registers, name))
    for name in X86_SEGMENTS:
        segment, source = getattr(target.x86, name), getattr(registers, name)
        segment.base, segment.limit, segment.selector = source.base, source.limit, source.selector
    for name in X86_TABLES:
        table, source = getattr(target.x86, name), getattr(registers, name)
        table.base, table.limit = source.base, source.limit


def registers(source: Any) -> X86Registers:
    """A ``struct Registers`` of the tag X86 as registers."""
    x86 = source.x86
    values: dict[str, Any] = {name: getattr(x86, name) for name in X86_GENERAL}
    for name in X86_SEGMENTS:
        segment = getattr(x86, name)
        values[name] = SegmentReg(segment.base, segment.limit, segment.selector)
    for name in X86_TABLES:
        table = getattr(x86, name)
        values[name] = SystemTableReg(table.base, table.limit)
    return X86Registers(**values)


def page_access(bits: int) -> PageAccess:
    """Bits of ``enum microvmi_page_access``; others are an ``InvalidArgumentError``."""
    if bits > PageAccess.ALL:
        raise InvalidArgumentError(f"access is {bits:#x}: not made of read (1), write (2) and execute (4)")
    return PageAccess(bits)


def intercept(pointer: Any) -> Intercept:
    """A ``struct microvmi_intercept``."""
    try:
        kind = EventKind(pointer.kind)
    except ValueError:
        raise InvalidArgumentError(f"there is no kind of event {pointer.kind}") from None
    return Intercept(kind, pointer.number, pointer.address)


def fill_event(target: Any, event: Event) -> None:
    """Store an event in a ``struct microvmi_event``, which may be larger than ours."""
    values = {name: int(getattr(event, name)) for name in Event.__slots__}
    for name, value in values.items():
        setattr(target, name, value)
    target.struct_size = min(target.struct_size, ffi.sizeof("struct microvmi_event"))


def reply(action: int, source: Any) -> Reply:
    """An action and a ``struct Registers``, or NULL."""
    try:
        return Reply(ReplyAction(action), None if source == ffi.NULL else registers(source))
    except ValueError:
        raise InvalidArgumentError(f"there is no reply action {action}") from None
