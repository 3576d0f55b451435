# SPDX-License-Identifier: Apache-2.0
"""Which page tables an address space of a machine has: those that are named, or those of a vCPU."""

from __future__ import annotations

from libmicrovmi_py.arch.aarch64.paging import page_tables as aarch64_page_tables
from libmicrovmi_py.arch.x86.paging import page_tables as x86_page_tables
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import InvalidArgumentError, NotSupportedError
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.paging import PageTables, Paging

if TYPE_CHECKING:
    from libmicrovmi_py.machine.microvmi import Microvmi

__all__ = ["AddressSpace", "of_vcpu", "page_tables"]


def page_tables(
    machine: Microvmi,
    base: int | None,
    vcpu: int | None,
    *,
    paging: int | None = None,
    upper_base: int = 0,
    control: int = 0,
    physical_bits: int = 0,
) -> PageTables:
    """As :meth:`Microvmi.address_space` has it; of a mode that is not told, the usual one of the architecture."""
    if vcpu is None and base is None:
        raise InvalidArgumentError("name the base of the page tables, or a vCPU")
    if vcpu is None and base is not None:
        if paging is None:
            paging = Paging.X86_4_LEVELS if machine.driver.architecture is Architecture.X86 else Paging.AARCH64
        return PageTables(_paging(paging), base, upper_base, control, physical_bits)
    if paging is not None or control or physical_bits:
        raise InvalidArgumentError("a vCPU tells the mode by its registers: name the one or the other")
    tables = of_vcpu(machine, vcpu or 0)
    return tables if base is None else tables._replace(base=base, upper_base=upper_base or tables.upper_base)


def _paging(number: int) -> Paging:
    try:
        return Paging(number)
    except ValueError:
        raise InvalidArgumentError(f"there is no mode of paging {number}") from None


def of_vcpu(machine: Microvmi, vcpu: int) -> PageTables:
    """Tables by the registers of a vCPU. Raises ``NotSupportedError`` if these registers are not told, and says why."""
    values = machine.read_state(vcpu, unstopped=True)
    try:
        if machine.driver.architecture is Architecture.X86:
            return x86_page_tables(values)
        return aarch64_page_tables(values)
    except NotSupportedError as err:
        if not values.why_unknown:
            raise
        raise NotSupportedError(f"{err} (not known: {values.why_unknown})") from None
