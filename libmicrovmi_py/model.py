# SPDX-License-Identifier: Apache-2.0
"""The words every layer uses: driver types, architectures, memory ranges."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from libmicrovmi_py.declare import Protocol, dataclass
from libmicrovmi_py.errors import InvalidArgumentError

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
    SNAPSHOT = 7


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


def check_vcpu(vcpu: int, count: int) -> None:
    """Raise ``InvalidArgumentError`` unless there is a vCPU of that number among ``count``."""
    if not 0 <= vcpu < count:
        raise InvalidArgumentError(f"no vCPU {vcpu}: the machine has {count}, counted from 0")


def asked_vcpus(vcpus: Sequence[int] | None, count: int) -> Sequence[int]:
    """The vCPUs that are asked for, of ``count``: all for ``None``. Raises as :func:`check_vcpu`."""
    for vcpu in vcpus or ():
        check_vcpu(vcpu, count)
    return range(count) if vcpus is None else vcpus


class _HasArchitecture(Protocol):
    @property
    def architecture(self) -> Architecture: ...


def check_architecture(registers: _HasArchitecture, expected: Architecture) -> None:
    """Raise ``InvalidArgumentError`` unless registers are those of a machine's architecture."""
    if registers.architecture is not expected:
        given = registers.architecture.name
        raise InvalidArgumentError(f"registers of architecture {given}: the machine's is {expected.name}")
