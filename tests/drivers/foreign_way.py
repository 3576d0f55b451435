# SPDX-License-Identifier: Apache-2.0
"""Reads that C does by the function of a hypervisor's library, beside the same reads by way of Python."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import AccessError
from libmicrovmi_py.memory import Memory, PaddedMemory, PhysicalMemory
from libmicrovmi_py.params import Parameters

UNTOUCHED = b"\xa5"


class ByPython(Driver):
    """A driver of ranges without its library's function: C reads nothing of it."""

    name = "by python"

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    @classmethod
    def open(cls, params: Parameters) -> Driver:
        raise AssertionError(params)

    @property
    def max_addr(self) -> int:
        found: int = self._driver.max_addr
        return found

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        self._driver.read_frame(frame, offset, buffer)

    def read_range(self, address: int, buffer: memoryview) -> int:
        done: int = self._driver.read_range(address, buffer)
        return done

    def close(self) -> None:
        pass


class Outcome(NamedTuple):
    """What came of a read; ``position`` is the cursor's afterwards, 0 for a read by address."""

    done: int
    code: int
    text: str
    content: bytes
    position: int = 0


def by_python(read: Callable[[memoryview], object], size: int) -> Outcome:
    """What a function of the Python classes does, told as the C functions tell it."""
    buffer = bytearray(UNTOUCHED * size)
    try:
        done = read(memoryview(buffer))
    except AccessError as err:
        return Outcome(err.completed, err.code, str(err), bytes(buffer))
    return Outcome(done if isinstance(done, int) else size, 0, "", bytes(buffer))


def of_driver(driver: Any, address: int, size: int, *, padded: bool) -> Outcome:
    """A read by address, without the library's function."""
    memory = PhysicalMemory(ByPython(driver))
    read = memory.read_padded_into if padded else memory.read_exactly_into
    return by_python(lambda buffer: read(address, buffer), size)


def of_stream(driver: Any, address: int, size: int, *, padded: bool) -> Outcome:
    """A read at the cursor of a stream, without the library's function."""
    stream = (PaddedMemory if padded else Memory)(ByPython(driver))
    stream.seek(address)
    return by_python(stream.readinto, size)._replace(position=stream.tell())


class Reader:
    """A context of the C library."""

    def __init__(self, stubs: ModuleType, lib: Any, context: int) -> None:
        self.lib, self.context, self._request = lib, context, stubs.microvmi_read_request

    def at(self, address: int, size: int, *, padded: bool = False) -> Outcome:
        """A read by address."""
        call = self.lib.microvmi_read_physical_padded if padded else self.lib.microvmi_read_physical
        return self._outcome(lambda buffer, done: call(self.context, address, buffer, size, done), size)

    def stream(self, address: int, size: int, *, padded: bool = False) -> Outcome:
        """A read at the cursor, which is moved to ``address`` before."""
        kind = "padded_" if padded else ""
        seek, read = (getattr(self.lib, f"microvmi_{kind}{name}") for name in ("seek", "read"))
        assert seek(self.context, address, 0, None)
        outcome = self._outcome(lambda buffer, done: read(self.context, buffer, size, done), size)
        position = ctypes.c_uint64()
        assert seek(self.context, 0, 1, ctypes.byref(position))
        return outcome._replace(position=position.value)

    def _outcome(self, call: Callable[[Any, Any], bool], size: int) -> Outcome:
        buffer, done = (ctypes.c_uint8 * size).from_buffer_copy(UNTOUCHED * size), ctypes.c_uint64(99)
        read = call(buffer, ctypes.byref(done))
        code = int(self.lib.microvmi_last_error_code())
        assert read == (code == 0)
        return Outcome(done.value, code, self.lib.microvmi_last_error().decode(), bytes(buffer))

    def batch(self, requests: list[tuple[int, int]]) -> tuple[bool, list[Outcome]]:
        """Many reads at once: whether all were whole, and each; the text is that of the call."""
        rows = (self._request * len(requests))()
        buffers = [(ctypes.c_uint8 * size).from_buffer_copy(UNTOUCHED * size) for _, size in requests]
        for row, (address, size), buffer in zip(rows, requests, buffers, strict=True):
            row.physical_address, row.size = address, size
            row.buffer = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_uint8))
        whole = self.lib.microvmi_read_physical_batch(self.context, rows, len(requests))
        text = self.lib.microvmi_last_error().decode()
        found = [
            Outcome(row.bytes_read, int(row.error), text, bytes(buffer))
            for row, buffer in zip(rows, buffers, strict=True)
        ]
        return whole, found


def python_of_all_reads(reader: Reader, address: int, size: int) -> set[str]:
    """The functions of our Python code that reads of each kind took."""
    return (
        python_functions(lambda: reader.at(address, size))
        | python_functions(lambda: reader.at(address, size, padded=True))
        | python_functions(lambda: reader.stream(address, size))
        | python_functions(lambda: reader.batch([(address, size)] * 3))
    )


def python_functions(action: Callable[[], object]) -> set[str]:
    """The functions of our Python code that this thread ran during ``action``."""
    found: set[str] = set()

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call" and "libmicrovmi" in frame.f_code.co_filename:
            found.add(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
    return found
