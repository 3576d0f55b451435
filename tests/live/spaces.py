# SPDX-License-Identifier: Apache-2.0
"""Virtual memory as these tests ask the C library for it: the generated ctypes module, with results for pointers."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from . import oracle
from .capi import FILLER, Machine, Read

OFF, X86_32, X86_PAE, X86_4_LEVELS, X86_5_LEVELS, AARCH64 = range(6)
KERNEL_READ, KERNEL_WRITE, KERNEL_EXECUTE, USER_READ, USER_WRITE, USER_EXECUTE = 1, 2, 4, 16, 32, 64
NOT_PRESENT, RESERVED_BITS, TABLE_NOT_MEMORY, NOT_CANONICAL = 1, 2, 3, 4
NOT_MAPPED = 6
CAPACITY = 512
"""How many ranges one call gets room for."""


class Translation(NamedTuple):
    """What became of a virtual address; ``ok`` is what the call returned."""

    ok: bool
    physical: int
    size: int
    rights: int
    failure: int
    level: int


class Mapped(NamedTuple):
    """A range of virtual addresses that is mapped to physical ones."""

    start: int
    size: int
    physical: int
    rights: int
    page_size: int


def allowed(ranges: Iterable[Mapped]) -> list[oracle.Allowed]:
    """The ranges as QEMU lists rights: neighbours that programs, and writes, may use alike are one."""
    merged: list[oracle.Allowed] = []
    for item in ranges:
        user, writable = bool(item.rights & USER_READ), bool(item.rights & KERNEL_WRITE)
        start = item.start
        if merged and merged[-1][1:] == (start, user, writable):
            start = merged.pop().start
        merged.append(oracle.Allowed(start, item.start + item.size, user, writable))
    return merged


class Space:
    """An address space of a context of the C library; ``value`` is the structure."""

    def __init__(self, vm: Machine, **members: int) -> None:
        self._vm, self._library = vm, vm.library
        self.value = vm.stubs.microvmi_address_space(**members)
        self.value.struct_size = ctypes.sizeof(self.value)

    @classmethod
    def of_vcpu(cls, vm: Machine, vcpu: int = 0) -> Space:
        """What a vCPU works in."""
        space = cls(vm)
        assert vm.library.microvmi_get_address_space(vm.context, vcpu, ctypes.byref(space.value)), vm.error
        return space

    @property
    def paging(self) -> int:
        """Which of the modes."""
        return int(self.value.paging)

    @property
    def base(self) -> int:
        """Of the tables, as the registers have it."""
        return int(self.value.base)

    def twin(self) -> Space:
        """The other tables of a process."""
        twin = Space(self._vm)
        call = self._library.microvmi_get_twin_address_space
        assert call(self._vm.context, ctypes.byref(self.value), ctypes.byref(twin.value)), self._vm.error
        return twin

    def translate(self, address: int) -> Translation:
        """Translate an address."""
        told = self._vm.stubs.microvmi_translation(struct_size=ctypes.sizeof(self._vm.stubs.microvmi_translation))
        call = self._library.microvmi_translate_address
        ok = call(self._vm.context, ctypes.byref(self.value), address, ctypes.byref(told))
        assert ok or self._vm.code == NOT_MAPPED, self._vm.error
        return Translation(ok, told.physical_address, told.page_size, told.rights, told.failure, told.level)

    def read(self, address: int, size: int, *, padded: bool = False) -> Read:
        """Read at a virtual address, plain or padded."""
        buffer = (ctypes.c_uint8 * size).from_buffer_copy(bytes([FILLER]) * size)
        count = ctypes.c_uint64(FILLER)
        name = "microvmi_read_virtual_padded" if padded else "microvmi_read_virtual"
        call = getattr(self._library, name)
        ok = call(self._vm.context, ctypes.byref(self.value), address, buffer, size, ctypes.byref(count))
        content = bytes(buffer)
        rest = content[count.value :]
        code = self._vm.code
        return Read(ok, content[: count.value], rest.count(FILLER) == len(rest), code)

    def write(self, address: int, data: bytes) -> bool:
        """Write at a virtual address."""
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        call = self._library.microvmi_write_virtual
        return bool(call(self._vm.context, ctypes.byref(self.value), address, buffer, len(data)))

    def mapped(self) -> Iterator[Mapped]:
        """Everything that is mapped."""
        ranges = (self._vm.stubs.microvmi_virtual_range * CAPACITY)()
        start, count = ctypes.c_uint64(0), ctypes.c_size_t()
        call = self._library.microvmi_get_virtual_map
        where = ctypes.byref(self.value), ctypes.byref(start), ranges, CAPACITY, ctypes.byref(count)
        going_on = True
        while going_on:
            assert call(self._vm.context, *where), self._vm.error
            for item in ranges[: count.value]:
                yield Mapped(item.start, item.size, item.physical_address, item.rights, item.page_size)
            going_on = start.value != 0
