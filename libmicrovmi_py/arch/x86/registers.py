# SPDX-License-Identifier: Apache-2.0
"""The registers of an x86 vCPU, their names by role, and bits of them that one must know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from libmicrovmi_py.declare import ClassVar, dataclass, field
from libmicrovmi_py.model import Architecture

CR0_PE = 1 << 0
CR0_TS = 1 << 3
CR0_PG = 1 << 31
CR4_TSD = 1 << 2
CR4_PSE = 1 << 4
CR4_PAE = 1 << 5
CR4_LA57 = 1 << 12
EFER_LMA = 1 << 10
EFER_NXE = 1 << 11
RFLAGS_VM = 1 << 17
"""Protection on, task switched, paging on; no time stamp for programs, large pages, long entries, five levels; long
mode is active, execution can be forbidden; virtual-8086 mode."""


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

    architecture: ClassVar[Architecture] = Architecture.X86

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

    @classmethod
    def of_values(cls, values: Mapping[str, int]) -> X86Registers:
        """Those of a state by the names of ``STATE``; what is not in it is 0."""
        get = dict(values).get
        numbers = [get(_RENAMED.get(name, name), 0) for name in (*GENERAL, *SYSTEM)]
        parts: list[SegmentReg | SystemTableReg] = [
            SegmentReg(get(f"{name}_base", 0), get(f"{name}_limit", 0), get(f"{name}_selector", 0)) for name in SEGMENTS
        ]
        parts += [SystemTableReg(get(f"{name}_base", 0), get(f"{name}_limit", 0)) for name in TABLES]
        return cls(*numbers, *parts)  # type: ignore[arg-type]

    def pairs(self) -> Iterator[tuple[str, int]]:
        """Every member by the name that it has in ``STATE``, with its value; two of them are EFER."""
        for name in (*GENERAL, *SYSTEM):
            yield _RENAMED.get(name, name), getattr(self, name)
        for name in (*SEGMENTS, *TABLES):
            part = getattr(self, name)
            for member in part.__match_args__:
                yield f"{name}_{member}", getattr(part, member)


def _from(first: str, last: str) -> tuple[str, ...]:
    """The names of the members from one to another."""
    names = X86Registers.__match_args__
    return names[names.index(first) : names.index(last) + 1]


GENERAL = _from("rax", "rflags")
"""The general registers, the instruction pointer and the flags."""

SYSTEM = _from("cr0", "apic_base")
"""Control registers and model-specific ones."""

CODE_AND_DATA = _from("cs", "ss")
"""The segments that programs load."""

SEGMENTS = (*CODE_AND_DATA, *_from("tr", "ldt"))
"""All segments: those, and the two that only a kernel loads."""

TABLES = _from("idt", "gdt")
"""The tables of descriptors that have no selector."""

NUMBERED = tuple(name for name in GENERAL if name[1:].isdigit())
"""The general registers that have no other name than their number, 8 to 15."""

ENCODED = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *NUMBERED)
"""The general registers in the order in which instructions number them."""

CONTROL = tuple(name for name in SYSTEM if name.startswith("cr"))
"""The control registers."""

INTERCEPTED_CONTROL = (0, 3, 4)
"""The control registers, by number, at whose writes a guest can be stopped."""

DEBUG = ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")
"""The debug registers."""

MSRS = (
    *("efer", "star", "lstar", "cstar", "fmask", "kernel_gs_base"),
    *("sysenter_cs", "sysenter_esp", "sysenter_eip", "tsc_aux", "apic_base"),
)
"""Model-specific registers; the bases of FS and GS are those of the segments."""

STATE = (
    *(*GENERAL, *CONTROL, "cr8", *DEBUG, "xcr0", *MSRS),
    *(f"{name}_{part}" for name in SEGMENTS for part in ("base", "limit", "selector", "attributes")),
    *(f"{name}_{part}" for name in ("gdt", "idt") for part in ("base", "limit")),
)
"""All registers of a vCPU's state, in the order of their numbers in the C header.

The attributes of a segment are bits of its descriptor: type 0-3, S 4, DPL 5-6, P 7, AVL 8, L 9, D/B 10, G 11; one that
cannot be used is not present.
"""

WIDTHS = {
    **{f"{name}_limit": 32 for name in SEGMENTS},
    **{f"{name}_selector": 16 for name in SEGMENTS},
    **{f"{name}_attributes": 12 for name in SEGMENTS},
    **{f"{name}_limit": 16 for name in TABLES},
    "cr8": 4,
    "tsc_aux": 32,
}
"""The bits of those that have fewer than 64."""

_RENAMED = {"msr_efer": "efer", "msr_star": "star", "msr_lstar": "lstar"}
"""Members of ``X86Registers`` that have another name in ``STATE``."""
