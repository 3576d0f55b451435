# SPDX-License-Identifier: Apache-2.0
"""Layers of volatility over a machine: what is mapped is read by one call, without its own walk over page tables.

What cannot be read so (a page that is not mapped, one that Linux keeps but denies to everybody) is volatility's: it
walks, pads and complains as ever.
"""

from __future__ import annotations

from typing import Any

from volatility3.framework import exceptions
from volatility3.framework.layers import intel, physical

from libmicrovmi_py.errors import MicrovmiError
from libmicrovmi_py.model import U64_MAX
from libmicrovmi_py.paging import Paging
from libmicrovmi_py.tools.volatility.machines import machine_of, space_of

_PAGE = 4096


class MachineLayer(physical.FileLayer):
    """The machine's physical memory; what does not exist is zeros, as in a raw dump of it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.machine = machine_of(self.location)
        self._read = self.machine.physical.read
        self._end = self.maximum_address + 1

    def read(self, offset: int, length: int, pad: bool = False) -> bytes:
        """As every layer has it."""
        if offset >= 0 and 0 < length <= self._end - offset:
            try:
                return self._read(offset, length)
            except MicrovmiError:
                pass
        return bytes(super().read(offset, length, pad))


class GuestLayer(intel.LinuxIntel32e):
    """The virtual memory of a Linux kernel, or of one of its processes, on x86 with four levels of page tables."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        memory = self._context.layers[self._base_layer]
        self._space = space_of(memory.location, self._page_map_offset)
        self._read = self._space.read_virtual
        self._upper = 1 << self._maxvirtaddr - 1
        self._cut_off = -1 << self._maxvirtaddr & U64_MAX

    def _signed(self, offset: int) -> int:
        """An address as the processor has it: volatility cuts off what is above the bits that it knows."""
        return offset | self._cut_off if offset & self._upper else offset

    def read(self, offset: int, length: int, pad: bool = False) -> bytes:
        """As every layer has it."""
        try:
            return bytes(self._read(self._signed(offset), length))
        except MicrovmiError:
            return bytes(super().read(offset, length, pad))

    def is_valid(self, offset: int, length: int = 1) -> bool:
        """As every layer has it."""
        if 0 < length <= _PAGE:
            try:
                self._read(self._signed(offset), length)
            except MicrovmiError:
                pass
            else:
                return True
        return bool(super().is_valid(offset, length))


class _TranslatedLayer(GuestLayer):
    """Page tables that volatility cannot walk: we do."""

    def _translate(self, offset: int) -> tuple[int, int, str]:
        """The physical address, the bytes of the piece that it lies in, the layer below."""
        physical_address = self._space.translate(self._signed(offset)).physical_address
        if physical_address is None:
            raise exceptions.PagedInvalidAddressException(self.name, offset, 12, 0, "the page is not mapped")
        return physical_address, _PAGE, self._base_layer


class FiveLevelsLayer(_TranslatedLayer):
    """The same on x86 with five levels."""

    _maxvirtaddr = 57


class Aarch64Layer(_TranslatedLayer):
    """The same on AArch64, whose bit 55 says which half an address is of. Plugins ask for an Intel layer by name."""

    _maxvirtaddr = 56


LAYERS = {
    Paging.X86_4_LEVELS: GuestLayer,
    Paging.X86_5_LEVELS: FiveLevelsLayer,
    Paging.AARCH64: Aarch64Layer,
}
"""By the page tables of the kernel."""
