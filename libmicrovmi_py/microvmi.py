# SPDX-License-Identifier: Apache-2.0
"""The whole object: the driver, its driver type, the plain memory and the padded memory."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from libmicrovmi_py import release
from libmicrovmi_py.control import Control
from libmicrovmi_py.drivers.base import Driver, SupportsMemoryMap, SupportsRegions
from libmicrovmi_py.drivers.registry import open_driver
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.memory import Memory, PaddedMemory, PhysicalMemory
from libmicrovmi_py.memory.batch import Result
from libmicrovmi_py.memory.checks import check_ranges
from libmicrovmi_py.model import DriverType, MemoryKind, MemoryRange
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.runstate import RunBooks

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

CACHE_SIZE = 16 << 20
"""Bytes of pages kept of a paused machine unless the parameter ``cache`` says otherwise."""

LARGEST_CACHE = 1 << 40
"""What address space is asked for at the most; memory is taken as pages are kept."""


class Microvmi(Control):
    """An open virtual machine.

    ``Microvmi("debian")`` tries every driver; ``Microvmi("debian", driver="qemu", timeout=2)`` names one and hands it
    parameters; ``Microvmi.open("vmi://qemu/?vm_name=debian")`` does it by text. Use it as a context manager, or call
    :meth:`close`. All methods may be called from any thread.

    ``memory`` and ``padded_memory`` are files (``io.RawIOBase``) with a cursor each; ``driver`` is the driver itself.
    """

    def __init__(self, vm_name: str | None = None, *, driver: str | None = None, **parameters: object) -> None:
        values = {key: None if value is None else str(value) for key, value in parameters.items()}
        params = Parameters({"vm_name": vm_name, **values}, driver=driver)
        self._attach(open_driver(params), _cache_size(params))

    @classmethod
    def open(cls, uri: str) -> Microvmi:
        """Open ``vmi://DRIVER/?key=value&...``, or a path to a memory image."""
        return cls.from_parameters(Parameters.from_uri(uri))

    @classmethod
    def from_parameters(cls, params: Parameters) -> Microvmi:
        """Open what parsed parameters name."""
        return cls.from_driver(open_driver(params), cache=_cache_size(params))

    @classmethod
    def from_driver(cls, driver: Driver, *, cache: int = CACHE_SIZE) -> Microvmi:
        """Put the whole on top of an open driver, and own it from now on.

        While this object keeps the machine paused, and always if its memory never changes, up to ``cache`` bytes of
        pages that were read are kept, 0 for none.
        """
        machine = cls.__new__(cls)
        machine._attach(driver, cache)
        return machine

    def _attach(self, driver: Driver, cache: int) -> None:
        try:
            self._put_together(driver, cache)
        except BaseException:
            driver.close()
            raise

    def _put_together(self, driver: Driver, cache: int) -> None:
        self._take_control(driver, PhysicalMemory(driver), cache)
        self.driver_type: DriverType = driver.type
        if driver.static:
            self._keep_pages(cache)
        self.memory = Memory(driver, self._physical)
        self.padded_memory = PaddedMemory(driver, self._physical)
        self._physical.table()  # what the driver tells of its memory is checked now, not at the first read

    @property
    def physical(self) -> PhysicalMemory:
        """Memory by address."""
        return self._physical

    # -------------------------------------------------------------------------------------------- memory by address

    @property
    def max_addr(self) -> int:
        """The maximum address: one past the last byte of RAM."""
        self._check_open()
        return self._physical.max_addr

    def read_physical(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``; ``NotMappedError`` (with ``completed``) unless all exist."""
        content = bytearray(size)
        self.read_physical_exactly_into(address, content)
        return bytes(content)

    def read_physical_exactly_into(self, address: int, buffer: WriteableBuffer) -> None:
        """Fill ``buffer``; ``NotMappedError`` (with ``completed``, the valid prefix) unless all of it exists."""
        self._check_open()
        self._physical.read_exactly_into(address, memoryview(buffer).cast("B"))

    def read_physical_into(self, address: int, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` up to the first byte that does not exist and return that length, 0 included."""
        self._check_open()
        return self._physical.read_into(address, memoryview(buffer).cast("B"))

    def read_physical_padded_into(self, address: int, buffer: WriteableBuffer) -> None:
        """Fill ``buffer``; what does not exist is zeros."""
        self._check_open()
        self._physical.read_padded_into(address, memoryview(buffer).cast("B"))

    def read_physical_batch(self, requests: Sequence[tuple[int, WriteableBuffer]]) -> list[Result]:
        """Fill many (address, buffer) pairs in as few trips as can be.

        A result each: ``done``, the length of the valid prefix, and ``error``, ``None`` if that is all.
        """
        self._check_open()
        return self._physical.read_batch([(address, memoryview(buffer).cast("B")) for address, buffer in requests])

    def map_physical(self, address: int, size: int) -> memoryview:
        """The guest's memory itself, read-only, without a copy; it stays valid as long as anybody holds it.

        Raises ``NotSupportedError`` where memory is not mapped into this process, ``NotMappedError`` unless the range
        (of at least one byte) exists in one piece.
        """
        self._check_open()
        if size < 1:
            raise InvalidArgumentError(f"size is {size}: at least 1 byte can be mapped")
        return self._physical.view(address, size)

    def write_physical(self, address: int, data: ReadableBuffer) -> None:
        """Write ``data`` at ``address``, all or nothing."""
        self._check_open()
        self._physical.write_from(address, memoryview(data).cast("B"))

    # -------------------------------------------------------------------------------------------- about the machine

    def memory_map(self) -> Sequence[MemoryRange]:
        """The ranges that exist, in ascending order; a driver that knows none has all RAM in one.

        Pages that were kept of the machine while it is paused are read anew afterwards. Raises ``IoError`` for ranges
        that cannot be a machine's.
        """
        self._check_open()
        if (run := self._run) is not None:
            run.refresh()
        driver = self.driver
        if isinstance(driver, SupportsMemoryMap):
            known = driver.memory_map()
            check_ranges(known)
            return known
        if isinstance(driver, SupportsRegions):
            return tuple(MemoryRange(region.start, region.size, region.kind) for region in driver.regions())
        return (MemoryRange(0, driver.max_addr, MemoryKind.RAM),) if driver.max_addr else ()

    def close(self) -> None:
        """Undo intercepts and a pause of this object, and release everything. Closing again does nothing.

        Raises the ``MicrovmiError`` of what could not be undone, after everything was released.
        """
        with self._closing:
            if self._closed:
                return
            self._closed = True
            try:
                self._undo(RunBooks.close)
            finally:
                release.discard(self)
                self.memory.close()
                self.padded_memory.close()
                self.driver.close()
                vars(self).pop("table_changed", None)
                self._run = None  # it knows this object: nothing is to wait for the collector of cycles

    def __enter__(self) -> Microvmi:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Microvmi {self.driver.name}, {'closed' if self._closed else hex(self.driver.max_addr)}>"


def _cache_size(params: Parameters) -> int:
    size = params.integer("cache", CACHE_SIZE)
    if not 0 <= size <= LARGEST_CACHE:
        raise InvalidArgumentError(f"cache={size}: not a number of bytes up to {LARGEST_CACHE}")
    return size
