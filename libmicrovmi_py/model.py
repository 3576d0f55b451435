# SPDX-License-Identifier: Apache-2.0
"""The words every layer uses: driver types, memory ranges, registers."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

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


def end_of_ram(ranges: Iterable[MemoryRange]) -> int:
    """The maximum address: one past the last byte of main memory, 0 without any."""
    return max((item.end for item in ranges if item.kind is MemoryKind.RAM), default=0)


@dataclass(slots=True)
class SegmentReg:
    """A segment register: base address, limit in bytes, selector."""

    base: int = 0
    limit: int = 0
    selector: int = 0


@dataclass(slots=True)
class SystemTableReg:
    """A descriptor table register: base address, limit in bytes."""

    base: int = 0
    limit: int = 0


@dataclass(slots=True)
class X86Registers:
    """The registers of one x86 vCPU, members and order as in the C header. What the hypervisor does not tell is 0."""

    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rsp: int = 0
    rbp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0
    rflags: int = 0
    cr0: int = 0
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    sysenter_cs: int = 0
    sysenter_esp: int = 0
    sysenter_eip: int = 0
    msr_efer: int = 0
    msr_star: int = 0
    msr_lstar: int = 0
    efer: int = 0
    apic_base: int = 0
    cs: SegmentReg = field(default_factory=SegmentReg)
    ds: SegmentReg = field(default_factory=SegmentReg)
    es: SegmentReg = field(default_factory=SegmentReg)
    fs: SegmentReg = field(default_factory=SegmentReg)
    gs: SegmentReg = field(default_factory=SegmentReg)
    ss: SegmentReg = field(default_factory=SegmentReg)
    tr: SegmentReg = field(default_factory=SegmentReg)
    ldt: SegmentReg = field(default_factory=SegmentReg)
    idt: SystemTableReg = field(default_factory=SystemTableReg)
    gdt: SystemTableReg = field(default_factory=SystemTableReg)


Registers = X86Registers
"""The registers of one vCPU: a union over architectures, of which x86 is the first."""

X86_GENERAL = tuple(f.name for f in fields(X86Registers))[:30]
X86_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
X86_TABLES = ("idt", "gdt")
