# SPDX-License-Identifier: Apache-2.0
"""What the guest was stopped at: FDP tells that it was, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from libmicrovmi_py.arch.x86.instructions import MOV_TO_CR_SIZE, WRMSR, written_control_register
from libmicrovmi_py.drivers.virtualbox import abi
from libmicrovmi_py.drivers.virtualbox.fdp import Machine
from libmicrovmi_py.events import UNKNOWN_ADDRESS, EventKind, Intercept, Stop


def identify(machine: Machine, armed: Iterable[Intercept]) -> Stop | None:
    """Which of the intercepts the first vCPU stands at, by its registers and instruction; ``None`` if at none."""
    rip = machine.register(0, abi.RIP)
    wanted = set(armed)
    return _breakpoint(machine, wanted, rip) or _msr(machine, wanted, rip) or _cr(machine, wanted, rip)


def _breakpoint(machine: Machine, armed: set[Intercept], rip: int) -> Stop | None:
    """A breakpoint of the instruction's page, whatever virtual address it was placed at."""
    addresses = {item.address for item in armed if item.kind is EventKind.BREAKPOINT}
    physical = machine.physical(rip)
    found = rip if rip in addresses else _same_place(machine, addresses, physical)
    if found is None:
        return None
    place = physical or UNKNOWN_ADDRESS
    return Stop(EventKind.BREAKPOINT, 0, physical_address=place, virtual_address=rip, placed_at=found)


def _same_place(machine: Machine, addresses: Iterable[int], physical: int) -> int | None:
    return next((address for address in addresses if physical and machine.physical(address) == physical), None)


def _msr(machine: Machine, armed: set[Intercept], rip: int) -> Stop | None:
    """A ``wrmsr``, which was not executed yet."""
    number = machine.register(0, abi.REGISTERS["rcx"]) & 0xFFFFFFFF
    if Intercept(EventKind.MSR, number) not in armed or machine.virtual(0, rip, len(WRMSR)) != WRMSR:
        return None
    low, high = (machine.register(0, abi.REGISTERS[name]) & 0xFFFFFFFF for name in ("rax", "rdx"))
    old = machine.msr(0, number)
    return Stop(EventKind.MSR, 0, number, old, high << 32 | low, instruction_length=len(WRMSR))


def _cr(machine: Machine, armed: set[Intercept], rip: int) -> Stop | None:
    """The instruction before is a ``mov`` to a control register, which was written already."""
    size = MOV_TO_CR_SIZE
    number = written_control_register(machine.virtual(0, rip - size, size)) if rip >= size else None
    if number is None or Intercept(EventKind.CR, number) not in armed:
        return None
    value = machine.register(0, abi.REGISTERS[f"cr{number}"])
    return Stop(EventKind.CR, 0, number, new_value=value, instruction_length=size)
