# SPDX-License-Identifier: Apache-2.0
"""The guest's memory as a driver gets it: ``drivers/guestmemory.py``."""

from __future__ import annotations

from weakref import ref

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.drivers.guestmemory import NeedsMemory
from libmicrovmi_py.errors import was_closed
from libmicrovmi_py.memory.physical import PhysicalMemory
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from libmicrovmi_py.drivers.guestmemory import GuestSpace
    from libmicrovmi_py.model import MemoryRange
    from libmicrovmi_py.paging import PageRights, PageTables, Translation, VirtualRange

_END = 1 << 64


class _Space:
    """An address space of a machine that is being closed, too: what is listened to is taken back then."""

    def __init__(self, physical: PhysicalMemory, tables: PageTables) -> None:
        from libmicrovmi_py.memory.translation import Space
        from libmicrovmi_py.memory.virtual import virtual_memory

        self._physical = physical
        self._space = Space(tables)
        self._memory = virtual_memory(physical, self._space)
        self.read = self._memory.read

    def translate(self, address: int) -> Translation:
        """As ``GuestSpace.translate``."""
        from libmicrovmi_py.memory.translation import translation_of

        return translation_of(self._memory.translate(address))

    def mapped(self, check: Callable[[], None], having: PageRights, lacking: PageRights) -> Iterator[VirtualRange]:
        """As ``GuestSpace.mapped``."""
        from libmicrovmi_py.memory.mapped import Only, mapped

        return mapped(self._physical, self._space, 0, _END, check, Only(having, lacking))


class _Memory:
    """The driver does not keep the memory, which keeps the driver: both go as soon as nobody has the machine."""

    def __init__(self, physical: PhysicalMemory) -> None:
        self._physical = ref(physical)

    def read(self, address: int, size: int) -> bytes:
        """As ``GuestMemory.read``."""
        return self._there().read(address, size)

    def ranges(self) -> Sequence[MemoryRange]:
        """As ``GuestMemory.ranges``."""
        return self._there().ranges()

    def space(self, tables: PageTables) -> GuestSpace:
        """As ``GuestMemory.space``."""
        with StandardStreamsHeld():
            return _Space(self._there(), tables)

    def _there(self) -> PhysicalMemory:
        physical = self._physical()
        if physical is None:
            raise was_closed()
        return physical


def hand_over(physical: PhysicalMemory, driver: Driver) -> None:
    """Give a driver its guest's memory if it needs it."""
    if isinstance(driver, NeedsMemory):
        driver.take_memory(_Memory(physical))
