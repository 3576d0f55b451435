# SPDX-License-Identifier: Apache-2.0
"""C values to Python values and back."""

from __future__ import annotations

from typing import Any

from _libmicrovmi import ffi, lib

from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.model import X86_GENERAL, X86_SEGMENTS, X86_TABLES, DriverType, X86Registers
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
