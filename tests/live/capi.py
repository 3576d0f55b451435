# SPDX-License-Identifier: Apache-2.0
"""The C library as these tests call it: the generated ctypes module, with results instead of pointers."""

from __future__ import annotations

import ctypes
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

from .oracle import Range, Value

KINDS = {1: "ram", 2: "rom", 3: "device"}
FILLER = 0xA5
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
TABLES = ("idt", "gdt")


class OpenError(Exception):
    """``microvmi_open`` returned NULL; ``code`` is the library's number for why."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Read(NamedTuple):
    """What a read gave: its result, the valid prefix, whether the buffer after it is as it was, the error code."""

    ok: bool
    content: bytes
    rest_untouched: bool
    code: int


class Machine:
    """A context of the C library; ``with`` destroys it."""

    def __init__(self, stubs: ModuleType, library: Any, uri: str) -> None:
        self.stubs = stubs
        self.library = library
        error = ctypes.POINTER(ctypes.c_char)()
        self.context = library.microvmi_open(uri.encode(), ctypes.byref(error))
        if not self.context:
            text = (ctypes.cast(error, ctypes.c_char_p).value or b"").decode()
            code = library.microvmi_last_error_code()
            library.rs_cstring_free(error)
            raise OpenError(text, code)

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.library.microvmi_destroy(self.context)

    @property
    def code(self) -> int:
        """Why the last call of this thread failed."""
        return int(self.library.microvmi_last_error_code())

    @property
    def error(self) -> str:
        """The text to :attr:`code`."""
        text: bytes = self.library.microvmi_last_error()
        return text.decode()

    def read(self, address: int, size: int, *, padded: bool = False) -> Read:
        """Read at an address, plain or padded."""
        buffer = (ctypes.c_uint8 * size).from_buffer_copy(bytes([FILLER]) * size)
        count = ctypes.c_uint64(FILLER)
        name = "microvmi_read_physical_padded" if padded else "microvmi_read_physical"
        ok = getattr(self.library, name)(self.context, address, buffer, size, ctypes.byref(count))
        content = bytes(buffer)
        rest = content[count.value :]
        return Read(ok, content[: count.value], rest.count(FILLER) == len(rest), self.code)

    def write(self, address: int, data: bytes) -> bool:
        """Write at an address."""
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        return bool(self.library.microvmi_write_physical(self.context, address, buffer, len(data)))

    def pause(self) -> bool:
        return bool(self.library.microvmi_pause(self.context))

    def resume(self) -> bool:
        return bool(self.library.microvmi_resume(self.context))

    def max_address(self) -> int:
        """The maximum address; -1 if the call failed."""
        address = ctypes.c_uint64()
        ok = self.library.microvmi_get_max_physical_addr(self.context, ctypes.byref(address))
        return address.value if ok else -1

    def vcpu_count(self) -> int:
        """The number of vCPUs; -1 if the call failed."""
        count = ctypes.c_uint16()
        return count.value if self.library.microvmi_get_vcpu_count(self.context, ctypes.byref(count)) else -1

    def memory_map(self) -> list[Range]:
        """The memory map: first how many ranges there are, then all of them."""
        count, call = ctypes.c_size_t(), self.library.microvmi_get_memory_map
        assert call(self.context, None, 0, ctypes.byref(count)), self.error
        ranges = (self.stubs.microvmi_memory_range * count.value)()
        assert call(self.context, ranges, len(ranges), ctypes.byref(count)), self.error
        return [Range(item.start, item.size, KINDS[item.kind]) for item in ranges[: count.value]]

    def registers(self, vcpu: int) -> dict[str, Value]:
        """The registers of a vCPU by name; a segment is (base, limit, selector), a table (base, limit)."""
        registers = self.stubs.Registers()
        assert self.library.microvmi_read_registers(self.context, vcpu, ctypes.byref(registers)), self.error
        assert registers.tag == self.stubs.Registers_Tag.X86
        return _values(registers.x86)


def _values(x86: Any) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, *_ in x86._fields_:
        value = getattr(x86, name)
        if name in SEGMENTS:
            value = (value.base, value.limit, value.selector)
        elif name in TABLES:
            value = (value.base, value.limit)
        values[name] = value
    return values
