# SPDX-License-Identifier: Apache-2.0
"""What drivers tell is checked before it is used: memory that no machine can have is the driver's fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import U64_MAX


class _Range(Protocol):
    @property
    def start(self) -> int: ...

    @property
    def size(self) -> int: ...


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
