# SPDX-License-Identifier: Apache-2.0
"""The machines that volatility reads, by URL: it knows files by their location only, and opens them again and again."""

from __future__ import annotations

from libmicrovmi_py.linux.spaces import NO_LOWER_HALF
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.paging import PageTables, Paging

_machines: dict[str, Microvmi] = {}
_tables: dict[str, PageTables] = {}


def share(machine: Microvmi) -> str:
    """The URL of a machine that somebody holds open already."""
    url = f"vmi:///?vm_name=opened-{id(machine):x}"
    _machines[url] = machine
    return url


def tell_tables(url: str, tables: PageTables) -> None:
    """Say which page tables the kernel of a machine has."""
    _tables[url] = tables


def space_of(url: str, base: int) -> AddressSpace:
    """The address space of page tables at ``base``: the kernel's own, or with its upper half where there are two."""
    machine, kernel = _machines[url], _tables[url]
    control = kernel.control if base == kernel.upper_base else kernel.control & ~NO_LOWER_HALF
    if kernel.paging is not Paging.AARCH64:
        return machine.address_space(base, paging=kernel.paging)
    lower = 0 if base == kernel.upper_base else base
    return machine.address_space(lower, paging=kernel.paging, upper_base=kernel.upper_base, control=control)


def is_open(url: str) -> bool:
    """Whether the machine of a URL was opened before."""
    return url in _machines


def machine_of(url: str) -> Microvmi:
    """The machine of a URL, opened when it is first asked for; it stays open until the program ends."""
    if url not in _machines:
        _machines[url] = Microvmi.open(url)
    return _machines[url]
