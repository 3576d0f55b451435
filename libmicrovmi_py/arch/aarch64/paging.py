# SPDX-License-Identifier: Apache-2.0
"""Which page tables the registers of an AArch64 vCPU stand for. The rules by which tables are read are not here."""

from __future__ import annotations

from collections.abc import Mapping

from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.paging import PageTables, Paging

SCTLR_M = 1 << 0
"""Translation is on, for the kernel and programs."""

_PHYSICAL_BITS = (32, 36, 40, 42, 44, 48, 52)
"""By the lowest four bits of ID_AA64MMFR0_EL1."""


def page_tables(registers: Mapping[str, int]) -> PageTables:
    """The tables that a vCPU with these registers, by name, uses at EL1 and EL0.

    Raises ``NotSupportedError`` if the registers do not tell; SCTLR_EL1 has bits that are always set.
    """
    if not registers.get("sctlr_el1") or not registers.keys() >= {"ttbr0_el1", "ttbr1_el1", "tcr_el1"}:
        raise NotSupportedError(
            "the machine does not tell SCTLR_EL1, TCR_EL1, TTBR0_EL1 and TTBR1_EL1 of this vCPU: "
            "name the bases of the tables"
        )
    if not registers["sctlr_el1"] & SCTLR_M:
        return PageTables(Paging.OFF)
    bases = registers["ttbr0_el1"], registers["ttbr1_el1"]
    bits = _physical_bits(registers.get("id_aa64mmfr0_el1", 0))
    return PageTables(Paging.AARCH64, *bases, registers["tcr_el1"], bits)


def _physical_bits(features: int) -> int:
    """How many bits a physical address has; 0 if the features are not told."""
    return _PHYSICAL_BITS[min(features & 15, len(_PHYSICAL_BITS) - 1)] if features else 0
