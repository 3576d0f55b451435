# SPDX-License-Identifier: Apache-2.0
"""Memory by address, the same for all drivers.

Stateless: nothing here has a cursor, so any number of threads may read at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.base import Driver, SupportsFrames, SupportsRegions
from libmicrovmi_py.errors import InvalidArgumentError, NotSupportedError, not_mapped
from libmicrovmi_py.memory.batch import Result, checked
from libmicrovmi_py.memory.cache import PageCache
from libmicrovmi_py.memory.checks import check_address, check_maximum, memory_map
from libmicrovmi_py.memory.direct import DirectMemory, Table
from libmicrovmi_py.memory.frames import FrameMemory
from libmicrovmi_py.model import MemoryRange
from libmicrovmi_py.transport.native import native

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class PhysicalMemory:
    """A driver's memory by guest-physical address, in bytes. Addresses are 0 to 2**64 - 1, sizes any.

    For a driver that tells regions C does the work, without Python's lock. ``frames`` is that of a driver of frames.
    ``closed``: the machine was closed, which those look at who may outlive it.
    """

    def __init__(self, driver: Driver, kept: int = 0) -> None:
        """``kept``: up to so many bytes of pages are kept from the start, as by :meth:`keep_pages`."""
        cache = PageCache(kept) if kept else None
        self._driver = driver
        self._follower: Callable[[], None] | None = None
        self._direct = DirectMemory(driver) if isinstance(driver, SupportsRegions) else None
        self.closed = False
        self.frames: FrameMemory | None = None
        self._access: DirectMemory | FrameMemory
        if self._direct is not None:
            self._access = self._direct
            if cache is not None:
                self._direct.use_cache(cache)
        elif isinstance(driver, SupportsFrames):
            self._access = self.frames = FrameMemory(driver, driver, cache)
        else:
            raise InvalidArgumentError(f"driver {driver.name} has neither regions() nor read_frame()")

    @property
    def read_within(self) -> Callable[[int, memoryview], None]:
        """As :meth:`read_exactly_into`, for what one frame holds, of at least a byte at an address within 64 bits."""
        return self.frames.read_within if self.frames is not None else self.read_exactly_into

    @property
    def direct(self) -> DirectMemory | None:
        """Direct access in C, for a driver that tells regions; ``None`` for the others."""
        return self._direct

    @property
    def is_mapped(self) -> bool:
        """Whether any of the memory is mapped into this process."""
        regions = self._driver.regions() if isinstance(self._driver, SupportsRegions) else ()
        return any(region.source.reach().view is not None for region in regions)

    def ranges(self) -> Sequence[MemoryRange]:
        """The ranges that may be read, ascending: those of the regions, or of the map that a driver of frames has."""
        if isinstance(self._driver, SupportsRegions):
            return [MemoryRange(region.start, region.size, region.kind) for region in self._driver.regions()]
        return memory_map(self._driver)

    def table(self) -> Table | None:
        """What C can read by itself at present; ``None`` as long as a driver of regions has to be asked."""
        return self._access.present() if isinstance(self._access, DirectMemory) else self._access.table()

    def flush_translations(self) -> None:
        """Forget all translations that C remembers."""
        if (table := self.table()) is not None:
            native().lib.mvi_table_flush(table.pointer)

    def keep_pages(self, size: int) -> None:
        """Keep pages that were read, up to ``size`` bytes of them, for a machine that does not run; 0 forgets them."""
        self._access.use_cache(PageCache(size) if size else None)
        if self._follower is not None:
            self._follower()
        if self.frames is not None:
            self.frames.forget_others()

    def follow(self, follower: Callable[[], None] | None) -> None:
        """Call ``follower`` from now on as pages begin or cease to be kept, before the machine runs; ``None``: no one.

        Whoever reads through :meth:`table` on his own has to take the new one then.
        """
        self._follower = follower

    def view(self, address: int, size: int) -> memoryview:
        """The bytes themselves, read-only; ``NotMappedError``, ``NotSupportedError`` where they are not mapped here."""
        if self._direct is None:
            raise NotSupportedError(f"the {self._driver.name} driver cannot map memory: read it instead")
        return self._direct.view(address, size)

    @property
    def max_addr(self) -> int:
        """One past the last byte of RAM. Raises ``IoError`` for a driver that tells what cannot be."""
        return check_maximum(self._driver.max_addr)

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes; ``NotMappedError`` whose ``completed`` is the valid prefix unless all exist."""
        check_address(address)
        if size < 0:
            raise ValueError(f"a read of {size} bytes")
        if self._direct is not None:
            return self._direct.read(address, size)
        content = bytearray(size)
        self.read_exactly_into(address, memoryview(content))
        return bytes(content)

    def read_into(self, address: int, buffer: memoryview) -> int:
        """Fill ``buffer`` (bytes, one dimension) up to the first byte that does not exist.

        Returns the length of that valid prefix; the rest of the buffer is as it was. Raises an ``AccessError`` whose
        ``completed`` is the valid prefix for everything but memory that does not exist.
        """
        check_address(address)
        return self._access.read_into(address, buffer)

    def read_padded_into(self, address: int, buffer: memoryview) -> None:
        """Fill ``buffer``; bytes that do not exist are zeros. Raises as :meth:`read_into`."""
        check_address(address)
        self._access.read_padded_into(address, buffer)

    def write_from(self, address: int, data: memoryview) -> None:
        """Write ``data``, all or nothing: the whole range is checked first.

        Raises ``NotMappedError`` or ``ReadOnlyError``, and any ``AccessError`` whose ``completed`` tells how much
        was written when a hypervisor fails in the middle.
        """
        check_address(address)
        self._access.write_from(address, data)

    def find(self, address: int, hole: bool) -> int:
        """The first byte at or after ``address`` that may hold something; with ``hole``, that does not.

        The maximum address if there is none.
        """
        return self._access.find(min(max(address, 0), self.max_addr), hole)

    def read_exactly_into(self, address: int, buffer: memoryview) -> None:
        """Fill ``buffer`` or raise ``NotMappedError`` whose ``completed`` is the valid prefix."""
        check_address(address)
        done, size = self._access.read_into(address, buffer), len(buffer)
        if done < size:
            raise not_mapped(address, size, done)

    def read_batch(self, requests: Iterable[tuple[int, WriteableBuffer]]) -> list[Result]:
        """Many reads in as few trips as can be, each with a result of its own.

        Raises ``InvalidArgumentError`` for an address that is not within 64 bits; nothing is read then.
        """
        if self._direct is not None:
            return self._direct.read_batch(requests)
        return self._access.read_batch(checked(requests))
