# SPDX-License-Identifier: Apache-2.0
"""The kernel's own page tables, by what its note says of them."""

from __future__ import annotations

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.linux.vmcoreinfo import VmcoreInfo
from libmicrovmi_py.model import U64_MAX, Architecture
from libmicrovmi_py.paging import Paging

if TYPE_CHECKING:
    from libmicrovmi_py.machine.microvmi import Microvmi
    from libmicrovmi_py.memory.virtual import AddressSpace

X86_IMAGE = 0xFFFF_FFFF_8000_0000
"""Where an x86 kernel's image is mapped: physical address ``phys_base``."""

_GRANULES = {4096: (0, 2), 16384: (2, 1), 65536: (1, 3)}
"""By bytes of a page: the fields TG0 and TG1 of TCR_EL1."""

NO_LOWER_HALF = 1 << 7
"""EPD0 of TCR_EL1."""


def kernel_space(machine: Microvmi, note: VmcoreInfo) -> AddressSpace:
    """The address space of ``swapper_pg_dir``. Raises ``NotSupportedError`` if the note is of a kernel that is gone."""
    virtual = note.symbol("swapper_pg_dir")
    if virtual is None:
        raise NotSupportedError("the kernel's note does not tell where its page tables are")
    if machine.driver.architecture is Architecture.X86:
        space = _x86(machine, note, virtual)
    else:
        space = _aarch64(machine, note, virtual)
    base = space.tables.upper_base or space.tables.base
    if space.translate(virtual).physical_address != base:
        raise NotSupportedError(f"the kernel {note.release or 'of a note in memory'} is no longer there")
    return space


def _x86(machine: Microvmi, note: VmcoreInfo, virtual: int) -> AddressSpace:
    phys_base = note.number("phys_base") or 0
    levels = Paging.X86_5_LEVELS if note.number("pgtable_l5_enabled") else Paging.X86_4_LEVELS
    return machine.address_space(_physical(virtual - X86_IMAGE + phys_base), paging=levels)


def _aarch64(machine: Microvmi, note: VmcoreInfo, virtual: int) -> AddressSpace:
    offset, bits = note.number("kimage_voffset"), note.number("VA_BITS")
    size = note.number("TCR_EL1_T1SZ")
    if offset is None or (bits is None and size is None):
        raise NotSupportedError("the kernel's note does not tell where its image is")
    if size is None:
        size = 64 - (bits or 48)
    control = translation_control(note.page_size, size) | NO_LOWER_HALF
    return machine.address_space(0, paging=Paging.AARCH64, upper_base=_physical(virtual - offset), control=control)


def translation_control(page: int, size: int) -> int:
    """TCR_EL1 for pages of so many bytes and halves of 2 to the power of 64 - ``size`` bytes each."""
    lower, upper = _GRANULES.get(page, _GRANULES[4096])
    size &= 63
    return size | lower << 14 | size << 16 | upper << 30 | 5 << 32


def _physical(address: int) -> int:
    """Raises ``NotSupportedError`` for a number that is no page's address."""
    if not 0 <= address <= U64_MAX >> 8 or address % 4096:
        raise NotSupportedError(f"the kernel's note tells page tables at {address & U64_MAX:#x}, where none can be")
    return address
