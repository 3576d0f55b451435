# SPDX-License-Identifier: Apache-2.0
"""The modes of paging by name. The rules of the tables are not here."""

from __future__ import annotations

import enum

from libmicrovmi_py.arch.x86.registers import CR0_PG, CR4_LA57, CR4_PAE, EFER_LMA, X86Registers


class PagingMode(enum.Enum):
    """How a vCPU makes physical addresses of its virtual ones."""

    OFF = enum.auto()
    """They are the same."""
    LEGACY = enum.auto()
    """Two levels of entries of 32 bits."""
    PAE = enum.auto()
    """Three levels of entries of 64 bits."""
    FOUR_LEVELS = enum.auto()
    """Long mode."""
    FIVE_LEVELS = enum.auto()
    """Long mode with virtual addresses of 57 bits."""


def paging_mode(registers: X86Registers) -> PagingMode:
    """The mode that a vCPU with these registers is in."""
    if not registers.cr0 & CR0_PG:
        return PagingMode.OFF
    if registers.efer & EFER_LMA:
        return PagingMode.FIVE_LEVELS if registers.cr4 & CR4_LA57 else PagingMode.FOUR_LEVELS
    return PagingMode.PAE if registers.cr4 & CR4_PAE else PagingMode.LEGACY
