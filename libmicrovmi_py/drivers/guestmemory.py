# SPDX-License-Identifier: Apache-2.0
"""The guest's memory for a driver that has to look into it itself: what is above reads it, as it does for everybody."""

from __future__ import annotations

from libmicrovmi_py.declare import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from libmicrovmi_py.model import MemoryRange
    from libmicrovmi_py.paging import PageRights, PageTables, Translation, VirtualRange


class GuestSpace(Protocol):
    """The virtual memory that page tables map. All of it raises what reading memory raises."""

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes of a virtual address. Raises ``NotMappedError`` unless all are mapped."""

    def translate(self, address: int) -> Translation:
        """What becomes of a virtual address; one that is not mapped is no error."""

    def mapped(self, check: Callable[[], None], having: PageRights, lacking: PageRights) -> Iterator[VirtualRange]:
        """What is mapped with all these rights, and none of those, ascending.

        Tables are the guest's, and may be made to be walked for ever: ``check`` is called now and then, and may raise.
        """


class GuestMemory(Protocol):
    """The machine's memory. It is there until the driver is closed."""

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes of a physical address. Raises ``NotMappedError`` unless all exist."""

    def ranges(self) -> Sequence[MemoryRange]:
        """What exists, ascending."""

    def space(self, tables: PageTables) -> GuestSpace:
        """An address space. Raises ``InvalidArgumentError`` for what no processor has."""


@runtime_checkable
class NeedsMemory(Protocol):
    """A driver that is handed the memory, once, before anything else is asked of it."""

    def take_memory(self, memory: GuestMemory) -> None:
        """Keep it: nothing is read yet."""
