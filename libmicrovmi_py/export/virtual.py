# SPDX-License-Identifier: Apache-2.0
"""Where a Linux kernel has the machine's memory in its own address space: its text, and all memory in one mapping.

Both are looked up in the kernel's page tables before anything is told of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple, Protocol
from libmicrovmi_py.model import PAGE_SIZE, U64_MAX, Architecture

if TYPE_CHECKING:
    from libmicrovmi_py.machine.microvmi import Microvmi
    from libmicrovmi_py.memory.virtual import AddressSpace

NOWHERE = 1 << 63
"""Added to a physical address it is a virtual one that no processor takes."""

_LOOKS = 16
"""At so many pages of a range it is looked whether the kernel has it where it should be."""
_X86_BASES = (0xFFFF_8880_0000_0000, 0xFF11_0000_0000_0000)
"""Where an x86 kernel that does not tell maps memory: with page tables of four levels, and of five."""
_AARCH64_BITS = (48, 39, 52, 47, 42, 36)
"""How many bits addresses of an AArch64 kernel have, the usual ones first."""


class _Symbols(Protocol):
    def get(self, name: str, /) -> int | None: ...


class GuestKernel(Protocol):
    """What of a Linux kernel gets into a core; ``libmicrovmi_py.linux`` finds it."""

    @property
    def machine(self) -> Microvmi:
        """Whose kernel it is."""

    @property
    def vmcoreinfo(self) -> bytes | None:
        """The text of its note."""

    @property
    def symbols(self) -> _Symbols:
        """Addresses by name."""

    @property
    def space(self) -> AddressSpace:
        """What its page tables map."""

    @property
    def phys_base(self) -> int:
        """Where an x86 kernel lies; of an AArch64 machine, where its memory begins in the kernel's eyes."""

    @property
    def release(self) -> str:
        """What ``uname -r`` says."""

    @property
    def banner(self) -> str:
        """Its version in one line, as it logs it."""


class Text(NamedTuple):
    """The kernel as it is linked: first virtual and physical address, bytes."""

    virtual: int
    address: int
    size: int


def text_of(kernel: GuestKernel, ranges: Sequence[tuple[int, int]]) -> Text | None:
    """The kernel from its first to its last byte; ``None`` unless that is one piece of memory in one of ``ranges``."""
    first, last = kernel.symbols.get("_text"), kernel.symbols.get("_end")
    if first is None or last is None or first >= last:
        return None
    begin, end = (kernel.space.translate(address).physical_address for address in (first, last - 1))
    if begin is None or end is None or end - begin != last - 1 - first:
        return None
    inside = any(start <= begin and end < until for start, until in ranges)
    return Text(first, begin, last - first) if inside else None


def direct_map(kernel: GuestKernel, ranges: Sequence[tuple[int, int]]) -> dict[int, int]:
    """The virtual addresses of those ranges, by their starts, that are in the kernel's mapping of all memory."""
    for shift in _shifts(kernel):
        places = {start: (start + shift & U64_MAX, end - start) for start, end in ranges}
        found = {
            start: place for start, (place, size) in places.items() if _is_mapped(kernel.space, start, place, size)
        }
        if found:
            return found
    return {}


def _shifts(kernel: GuestKernel) -> Iterator[int]:
    """What may have to be added to a physical address for that virtual one, whatever goes beyond 64 bits.

    An AArch64 kernel that was built for addresses of 52 bits and has 48, or that moves its mapping, tells another
    beginning of memory instead.
    """
    if kernel.machine.driver.architecture is Architecture.AARCH64:
        yield from ((1 << 64) - (1 << bits) - kernel.phys_base for bits in _AARCH64_BITS)
        return
    variable = kernel.symbols.get("page_offset_base")
    if variable is not None:
        told = bytearray(8)
        if kernel.space.read_virtual_into(variable, told) == len(told):
            yield int.from_bytes(told, "little")
    yield from _X86_BASES


def _is_mapped(space: AddressSpace, start: int, place: int, size: int) -> bool:
    """Whether some pages of a range are at a virtual address, and none elsewhere: not all need to be mapped."""
    if place + size > 1 << 64:
        return False
    pages = {size * at // _LOOKS // PAGE_SIZE * PAGE_SIZE for at in range(_LOOKS)}
    found = {(start + page, space.translate(place + page).physical_address) for page in pages}
    told = {(page, address) for page, address in found if address is not None}
    return bool(told) and all(page == address for page, address in told)
