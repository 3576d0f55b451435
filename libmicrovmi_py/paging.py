# SPDX-License-Identifier: Apache-2.0
"""The words of virtual memory: modes of paging, page tables, translations. The rules of the tables stand in C alone."""

from __future__ import annotations

import enum

from libmicrovmi_py.declare import NamedTuple


class Paging(enum.IntEnum):
    """How virtual addresses become physical ones; the numbers of ``enum microvmi_paging`` in the C header."""

    OFF = 0
    """They are the same."""
    X86_32 = 1
    """Two levels of entries of 32 bits."""
    X86_PAE = 2
    """Three levels of entries of 64 bits."""
    X86_4_LEVELS = 3
    """Long mode."""
    X86_5_LEVELS = 4
    """Long mode with virtual addresses of 57 bits."""
    AARCH64 = 5
    """As TCR_EL1 says."""


class PagingControl(enum.IntFlag):
    """What an x86 processor does not have, or is switched off; ``enum microvmi_paging_control`` in the C header."""

    NO_LARGE_PAGES = 1
    """CR4.PSE is off: in 32-bit mode there are no pages of 4 MiB."""
    NO_EXECUTE_DISABLE = 2
    """EFER.NXE is off: bit 63 of an entry is reserved."""
    NO_GIGABYTE_PAGES = 4
    """The processor has no pages of 1 GiB."""


class PageRights(enum.IntFlag):
    """What page tables allow, all levels together; ``enum microvmi_page_rights`` in the C header."""

    KERNEL_READ = 1
    KERNEL_WRITE = 2
    KERNEL_EXECUTE = 4
    USER_READ = 16
    USER_WRITE = 32
    USER_EXECUTE = 64


class TranslationFailure(enum.IntEnum):
    """Why a virtual address has no physical one; ``enum microvmi_translation_failure`` in the C header."""

    OK = 0
    NOT_PRESENT = 1
    """The entry says so."""
    RESERVED_BITS = 2
    """The entry is none that a processor takes here."""
    TABLE_NOT_MEMORY = 3
    """The entry lies where the machine has no memory."""
    NOT_CANONICAL = 4
    """No tables have such an address."""


class PageTables(NamedTuple):
    """Where the tables of an address space are, and how they are to be read: ``struct microvmi_address_space``.

    ``base``: x86: CR3; AArch64: TTBR0_EL1. ``upper_base``: AArch64: TTBR1_EL1. ``control``: x86: bits of
    :class:`PagingControl`; AArch64: TCR_EL1. ``physical_bits`` is how many bits a physical address has, 0: not known.
    """

    paging: Paging
    base: int = 0
    upper_base: int = 0
    control: int = 0
    physical_bits: int = 0


class Translation(NamedTuple):
    """What became of a virtual address.

    ``physical_address`` is ``None`` on failure. ``page_size`` is in bytes; on failure it is what the entry that is
    missing would cover, 0 for an address that is not canonical. ``level`` is of the entry that ended the walk, 1 for
    that of the smallest pages, 0 without any; ``entry`` is its value, 0 if it could not be read, ``entry_address`` its
    physical address, ``None`` without any.
    """

    failure: TranslationFailure
    physical_address: int | None
    page_size: int
    rights: PageRights
    level: int
    entry: int
    entry_address: int | None


class VirtualRange(NamedTuple):
    """Virtual addresses that are mapped: pages of one size that are neighbours in both spaces. Sizes are bytes."""

    start: int
    size: int
    physical_address: int
    rights: PageRights
    page_size: int

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.start + self.size
