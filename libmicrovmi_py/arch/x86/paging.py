# SPDX-License-Identifier: Apache-2.0
"""Which page tables the registers of an x86 vCPU stand for, and the two tables of a process under KPTI.

The rules by which tables are read are not here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from libmicrovmi_py.arch.x86.registers import CR0_PG, CR4_LA57, CR4_PAE, CR4_PSE, EFER_LMA, EFER_NXE
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.model import PAGE_SIZE
from libmicrovmi_py.paging import PageTables, Paging, PagingControl

_LEADS_TO = 0x000F_FFFF_FFFF_F001
"""Of an entry of 8 bytes: whether it is present, and where it leads."""

_LARGE, _NOTED = 0x80, 0x60
"""Bits of an entry: it is of a large page; the processor saw the page accessed, and written."""

_NARROW = 1 << 32
_WIDE = ("rip", "rsp", "cr3", "gdt_base", "idt_base")
"""What is beyond that in long mode only."""


def paging_mode(registers: Mapping[str, int]) -> Paging:
    """The mode that a vCPU with these registers, by name, is in; CR0 and CR4 are known.

    EFER is not known of every vCPU. Then long mode is told by a descriptor table, a stack or code where no other mode
    can have them.
    """
    efer, cr4 = registers.get("efer"), registers["cr4"]
    if not registers["cr0"] & CR0_PG:
        return Paging.OFF
    if efer is None and cr4 & CR4_PAE:
        is_long = any(registers.get(name, 0) >= _NARROW for name in _WIDE)
    else:
        is_long = bool((efer or 0) & EFER_LMA)
    if is_long:
        return Paging.X86_5_LEVELS if cr4 & CR4_LA57 else Paging.X86_4_LEVELS
    return Paging.X86_PAE if cr4 & CR4_PAE else Paging.X86_32


def page_tables(registers: Mapping[str, int]) -> PageTables:
    """The tables that a vCPU with these registers, by name, uses.

    Raises ``NotSupportedError`` if the registers do not tell; a CR0 of 0 is none that a processor has.
    """
    if not registers.get("cr0") or not registers.keys() >= {"cr3", "cr4"}:
        raise NotSupportedError("the machine does not tell CR0, CR3 and CR4 of this vCPU: name the base of the tables")
    mode, efer = paging_mode(registers), registers.get("efer")
    if mode is Paging.OFF:
        return PageTables(mode)
    control = 0
    if mode is Paging.X86_32 and not registers["cr4"] & CR4_PSE:
        control |= PagingControl.NO_LARGE_PAGES
    if mode is not Paging.X86_32 and efer is not None and not efer & EFER_NXE:
        control |= PagingControl.NO_EXECUTE_DISABLE
    return PageTables(mode, registers["cr3"], control=control)


def twin_tables(tables: PageTables, read: Callable[[int, int], bytes]) -> PageTables:
    """Of the two tables of a process under KPTI the other one, which lies beside it: bit 12 of the base tells which.

    ``read`` gives so many bytes of a physical address. What is there has to look like such a pair: both lead to the
    same user space, and one of them to little of the kernel. Raises ``NotSupportedError`` where that is not so.
    """
    count = {Paging.X86_PAE: 4, Paging.X86_4_LEVELS: 512, Paging.X86_5_LEVELS: 512}.get(tables.paging)
    if count is None:
        raise NotSupportedError(f"page tables of mode {tables.paging.name} have no twin")
    kernel, user = (_entries(read, (tables.base & ~PAGE_SIZE | bit) & _LEADS_TO & ~1, count) for bit in (0, PAGE_SIZE))
    if not _are_twins(kernel, user):
        raise NotSupportedError(
            f"the page table beside {tables.base:#x} is not its twin: no KPTI, or not as Linux has it"
        )
    return tables._replace(base=tables.base ^ PAGE_SIZE)


def tables_below(table: bytes) -> list[int]:
    """The tables that the entries of one of the second level lead to, of 64-bit entries."""
    entries = struct.unpack(f"<{len(table) // 8}Q", table)
    return [entry & _LEADS_TO & ~1 for entry in entries if entry & (1 | _LARGE) == 1]


def changed_code(before: bytes, after: bytes) -> bool:
    """Whether entries of a table differ that may be of code, or lead to some: before, or after."""
    pairs = zip(struct.iter_unpack("<Q", before), struct.iter_unpack("<Q", after), strict=True)
    return any(_may_be_code(old) or _may_be_code(new) for (old,), (new,) in pairs if (old ^ new) & ~_NOTED)


def _may_be_code(entry: int) -> bool:
    return entry & 1 == 1 and not entry >> 63


def _entries(read: Callable[[int, int], bytes], address: int, count: int) -> list[int]:
    """What the entries of a table say, 0 for one that is not present."""
    found = struct.unpack(f"<{count}Q", read(address, 8 * count))
    return [entry & _LEADS_TO if entry & 1 else 0 for entry in found]


def _are_twins(kernel: list[int], user: list[int]) -> bool:
    """Half of four levels, and three quarters of PAE, are user space."""
    split = 3 if len(kernel) == 4 else len(kernel) // 2
    above = [(own, other) for own, other in zip(kernel[split:], user[split:], strict=True) if own or other]
    way_in = [pair for pair in above if pair[1]]
    return (
        kernel[:split] == user[:split]
        and bool(way_in)
        and all(own for own, _ in way_in)
        and (len(way_in) < len(above) or any(own != other for own, other in way_in))
    )
