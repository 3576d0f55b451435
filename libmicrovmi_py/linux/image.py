# SPDX-License-Identifier: Apache-2.0
"""Where a kernel's image is mapped, and the kernel that a vCPU is in, for one that left no note."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.linux.spaces import NO_LOWER_HALF, X86_IMAGE
from libmicrovmi_py.paging import PageRights, Paging, VirtualRange

if TYPE_CHECKING:
    from libmicrovmi_py.machine.microvmi import Microvmi
    from libmicrovmi_py.memory.virtual import AddressSpace

_X86_MOST = 1 << 30
"""Bytes of addresses that an x86 kernel's image may be in."""

_LARGEST = 128 << 20
"""Bytes of an image that are looked at."""

_LEAST = 2 << 20
"""Bytes of a kernel's text; modules have less."""

_WIDEST_GAP = 16 << 20
"""Bytes between parts of an image: what only the start needed is given back."""

_MOST_RANGES = 1 << 16
"""Ranges of an address space that are looked at; an image has some dozens."""

_MOST_VCPUS = 16
_MOST_IMAGES = 8
"""Kernels that are looked at."""


class Image:
    """Where an image, or what may be one, is mapped: from ``start`` on, with gaps.

    An image stays where it is in physical memory as long as its kernel runs, whatever becomes of the page tables of the
    process in which it was seen. So it is read by the places that were told once.
    """

    def __init__(self, machine: Microvmi, space: AddressSpace, ranges: list[VirtualRange]) -> None:
        self._machine, self.space, self._ranges = machine, space, ranges
        self.start = ranges[0].start
        self.size = min(ranges[-1].end - self.start, _LARGEST)

    def content(self) -> bytearray:
        """What is in it, with zeros in gaps."""
        content = bytearray(self.size)
        view = memoryview(content)
        for item in self._ranges:
            at = item.start - self.start
            if at < self.size:
                self._machine.physical.read_padded_into(item.physical_address, view[at : at + item.size])
        return content

    def physical(self, address: int) -> int | None:
        """Where a virtual address of the image is."""
        item = self._range(address)
        return None if item is None else item.physical_address + address - item.start

    def is_text(self, address: int) -> bool:
        """Whether what is at an address can be executed."""
        item = self._range(address)
        return item is not None and bool(item.rights & PageRights.KERNEL_EXECUTE)

    def _range(self, address: int) -> VirtualRange | None:
        return next((item for item in self._ranges if item.start <= address < item.end), None)

    def places(self) -> tuple[int, int, int]:
        """What tells images apart: the same one is in every process."""
        return self.start, self.size, self._ranges[0].physical_address


def images(machine: Microvmi, space: AddressSpace) -> Iterator[Image]:
    """The images that are mapped: pages near each other, with as much that can be executed as a kernel has."""
    if space.tables.paging is Paging.AARCH64:
        start, end = (1 << 64) - (1 << 64 - (space.tables.control >> 16 & 63)) // 2, 1 << 64
    else:
        start, end = X86_IMAGE, X86_IMAGE + _X86_MOST
    for ranges in _pieces(islice(space.mapped(start, end), _MOST_RANGES)):
        if sum(item.size for item in ranges if item.rights & PageRights.KERNEL_EXECUTE) >= _LEAST:
            yield Image(machine, space, ranges)


def images_with(machine: Microvmi, space: AddressSpace, address: int | None) -> list[Image]:
    """Those that have an address in them; ``None``: all."""
    found = list(islice(images(machine, space), _MOST_IMAGES))
    return [item for item in found if address is None or item.start <= address < item.start + item.size]


def images_of_vcpus(machine: Microvmi) -> list[Image]:
    """The images that are mapped where the vCPUs are, the largest first, each once.

    A process, and its page tables, may be gone soon: all are looked for before the first is read. A kernel that
    isolates its page tables (KPTI) has little of its image in those of programs, and all of it in their twins. Raises
    ``NotSupportedError`` if registers are not told.
    """
    found: dict[tuple[int, int, int], Image] = {}
    for space in _spaces_of_vcpus(machine):
        for item in islice(images(machine, space), _MOST_IMAGES):
            found.setdefault(item.places(), item)
    return sorted(found.values(), key=lambda item: item.size, reverse=True)[:_MOST_IMAGES]


def _pieces(ranges: Iterable[VirtualRange]) -> Iterator[list[VirtualRange]]:
    """Ranges that are near each other, together."""
    piece: list[VirtualRange] = []
    for item in ranges:
        if piece and item.start - piece[-1].end > _WIDEST_GAP:
            yield piece
            piece = []
        piece.append(item)
    if piece:
        yield piece


def _spaces_of_vcpus(machine: Microvmi) -> Iterator[AddressSpace]:
    """The address spaces of the vCPUs, and their twins."""
    for vcpu in range(min(machine.vcpu_count(), _MOST_VCPUS)):
        space = machine.address_space(vcpu=vcpu)
        yield space
        try:
            yield space.twin()
        except NotSupportedError:
            continue


def with_tables_at(machine: Microvmi, image: Image, virtual: int) -> AddressSpace:
    """The address space in the mode of an image's whose tables are at an address in it."""
    base, tables = image.physical(virtual), image.space.tables
    if base is None:
        raise NotSupportedError(f"the kernel's page tables are not mapped at {virtual:#x}, where its symbols have them")
    if tables.paging is not Paging.AARCH64:
        return machine.address_space(base, paging=tables.paging, physical_bits=tables.physical_bits)
    control = tables.control | NO_LOWER_HALF
    return machine.address_space(0, paging=tables.paging, upper_base=base, control=control)
