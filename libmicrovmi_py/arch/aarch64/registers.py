# SPDX-License-Identifier: Apache-2.0
"""The registers of an AArch64 vCPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from libmicrovmi_py.declare import ClassVar, dataclass
from libmicrovmi_py.model import Architecture


@dataclass(slots=True)
class Aarch64Registers:
    """The registers of one AArch64 vCPU, members and order as in the C header, 64 bits each.

    ``pstate`` is laid out as SPSR_EL1 is. What the hypervisor does not tell is 0.
    """

    architecture: ClassVar[Architecture] = Architecture.AARCH64

    x0: int = 0
    x1: int = 0
    x2: int = 0
    x3: int = 0
    x4: int = 0
    x5: int = 0
    x6: int = 0
    x7: int = 0
    x8: int = 0
    x9: int = 0
    x10: int = 0
    x11: int = 0
    x12: int = 0
    x13: int = 0
    x14: int = 0
    x15: int = 0
    x16: int = 0
    x17: int = 0
    x18: int = 0
    x19: int = 0
    x20: int = 0
    x21: int = 0
    x22: int = 0
    x23: int = 0
    x24: int = 0
    x25: int = 0
    x26: int = 0
    x27: int = 0
    x28: int = 0
    x29: int = 0
    x30: int = 0
    pc: int = 0
    pstate: int = 0
    sp_el0: int = 0
    sp_el1: int = 0
    ttbr0_el1: int = 0
    ttbr1_el1: int = 0
    tcr_el1: int = 0
    sctlr_el1: int = 0
    mair_el1: int = 0
    vbar_el1: int = 0
    esr_el1: int = 0
    far_el1: int = 0
    elr_el1: int = 0
    spsr_el1: int = 0
    tpidr_el0: int = 0
    tpidr_el1: int = 0
    contextidr_el1: int = 0
    midr_el1: int = 0
    id_aa64mmfr0_el1: int = 0

    @classmethod
    def of_values(cls, values: Mapping[str, int]) -> Aarch64Registers:
        """Those of a state by the names of ``STATE``; what is not in it is 0."""
        return cls(**{name: values.get(name, 0) for name in cls.__match_args__})

    def pairs(self) -> Iterator[tuple[str, int]]:
        """Every member by its name, with its value."""
        for name in self.__match_args__:
            yield name, getattr(self, name)


STATE = (
    *Aarch64Registers.__match_args__,
    *("actlr_el1", "afsr0_el1", "afsr1_el1", "amair_el1", "cntkctl_el1", "cpacr_el1", "mdscr_el1", "mpidr_el1"),
    *("par_el1", "tpidrro_el0", "fpcr", "fpsr"),
    *("id_aa64mmfr1_el1", "id_aa64mmfr2_el1", "id_aa64pfr0_el1", "id_aa64pfr1_el1"),
    *("sp_el2", "elr_el2", "spsr_el2", "esr_el2", "far_el2", "hcr_el2", "sctlr_el2", "mair_el2", "tcr_el2"),
    *("ttbr0_el2", "vbar_el2", "vtcr_el2", "vttbr_el2", "tpidr_el2"),
)
"""All registers of a vCPU's state, in the order of their numbers in the C header; the first are the frozen ones."""


def stack_of(pstate: int) -> int:
    """The exception level whose stack pointer a vCPU uses at present."""
    return pstate >> 2 & 3 if pstate & 1 else 0
