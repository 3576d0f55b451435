# SPDX-License-Identifier: Apache-2.0
"""The words every layer uses: driver types, architectures, memory ranges."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from libmicrovmi_py.declare import Protocol, dataclass

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

U64_MAX = (1 << 64) - 1

PHYSICAL_BITS = 52
"""The widest guest-physical address of any x86 or aarch64 machine, in bits."""


class DriverType(enum.IntEnum):
    """What a machine is reached through; the numbers of ``enum DriverType`` in the C header."""

    KVM = 0
    MEMFLOW = 1
    VIRTUALBOX = 2
    XEN = 3
    QEMU = 4
    DUMP = 5
    PLUGIN = 6


class Architecture(enum.IntEnum):
    """What processors a machine has; the numbers of ``enum Registers_Tag`` in the C header."""

    X86 = 0
    AARCH64 = 1


class MemoryKind(enum.IntEnum):
    """What a range of memory is; the numbers of ``enum microvmi_memory_kind`` in the C header."""

    RAM = 1
    ROM = 2
    DEVICE = 3


@dataclass(frozen=True, slots=True)
class MemoryRange:
    """A range of guest-physical memory that exists: first byte, size in bytes, kind."""

    start: int
    size: int
    kind: MemoryKind = MemoryKind.RAM

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.start + self.size


class _HasKind(Protocol):
    @property
    def end(self) -> int: ...

    @property
    def kind(self) -> MemoryKind: ...


def end_of_ram(ranges: Iterable[_HasKind]) -> int:
    """The maximum address: one past the last byte of main memory, 0 without any."""
    return max((item.end for item in ranges if item.kind is MemoryKind.RAM), default=0)
