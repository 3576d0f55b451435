# SPDX-License-Identifier: Apache-2.0
"""What drivers tell is checked before it is used: memory that no machine can have is the driver's fault."""

from __future__ import annotations

from collections.abc import Sequence

from libmicrovmi_py.declare import Protocol
from libmicrovmi_py.drivers.base import Driver, SupportsMemoryMap, SupportsRegions
from libmicrovmi_py.errors import InvalidArgumentError, IoError
from libmicrovmi_py.model import U64_MAX, MemoryRange


class _Range(Protocol):
    @property
    def start(self) -> int: ...

    @property
    def size(self) -> int: ...


def check_address(address: int) -> None:
    """Raise ``InvalidArgumentError`` unless a caller's address is within 64 bits."""
    if not 0 <= address <= U64_MAX:
        raise InvalidArgumentError(f"physical address {address:#x} is not within 64 bits")


def check_ranges(ranges: Sequence[_Range]) -> None:
    """Raise ``IoError`` unless they ascend, are apart, not empty, and end within 64 bits."""
    end = 0
    for index, item in enumerate(ranges):
        start, size = item.start, item.size
        if start < end or not 0 < size <= U64_MAX or start + size - 1 > U64_MAX:
            raise _wrong(index, start, size, end)
        end = start + size


def _wrong(index: int, start: int, size: int, end: int) -> IoError:
    what = f"begins before {end:#x}, where the one before it ends"
    if size < 1:
        what = "is empty"
    elif start < 0 or size > U64_MAX or start + size - 1 > U64_MAX:
        what = "is not within 64 bits"
    return IoError(f"the driver's memory map is wrong: range {index} at {start:#x} ({size:#x} bytes) {what}")


def memory_map(driver: Driver) -> Sequence[MemoryRange]:
    """The ranges that exist, ascending; a driver that tells none has all memory in one, up to its maximum address.

    Raises ``IoError`` for ranges that cannot be a machine's.
    """
    if isinstance(driver, SupportsMemoryMap):
        known = driver.memory_map()
        check_ranges(known)
        return known
    if isinstance(driver, SupportsRegions):
        return tuple(MemoryRange(region.start, region.size, region.kind) for region in driver.regions())
    return (MemoryRange(0, driver.max_addr),) if driver.max_addr else ()


def check_maximum(address: int) -> int:
    """``address``, a driver's maximum address. Raises ``IoError`` for one that is not within 64 bits."""
    if not 0 <= address <= U64_MAX:
        raise IoError(f"the driver's memory map is wrong: a maximum address of {address:#x} is not within 64 bits")
    return address


def check_count(done: int, asked: int, address: int) -> int:
    """``done``, what a driver says that it read of ``asked`` bytes. Raises ``IoError`` for a count that cannot be."""
    if not 0 <= done <= asked:
        raise IoError(f"the driver says that it read {done} of {asked} bytes", address=address, requested=asked)
    return done
