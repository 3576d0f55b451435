# SPDX-License-Identifier: Apache-2.0
"""What the guest was stopped at: FDP tells that it was, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from libmicrovmi_py.drivers.virtualbox import abi
from libmicrovmi_py.drivers.virtualbox.machine import Machine
from libmicrovmi_py.events import UNKNOWN_ADDRESS, EventKind, Intercept

_WRMSR = b"\x0f\x30"
_MOV_TO_CR = b"\x0f\x22"


class Hit(NamedTuple):
    """What is told of an event; as in ``Event``."""

    kind: EventKind
    number: int = 0
    old_value: int = 0
    new_value: int = 0
    physical_address: int = UNKNOWN_ADDRESS
    virtual_address: int = UNKNOWN_ADDRESS
    instruction_length: int = 0


def identify(machine: Machine, armed: Iterable[Intercept]) -> Hit | None:
    """Which of the intercepts the first vCPU stands at, by its registers and instruction; ``None`` if at none."""
    rip = machine.register(0, abi.RIP)
    wanted = set(armed)
    return _breakpoint(machine, wanted, rip) or _msr(machine, wanted, rip) or _cr(machine, wanted, rip)


def _breakpoint(machine: Machine, armed: set[Intercept], rip: int) -> Hit | None:
    """A breakpoint of the instruction's page, whatever virtual address it was placed at."""
    addresses = {item.address for item in armed if item.kind is EventKind.BREAKPOINT}
    physical = machine.physical(rip)
    if rip in addresses or (physical and physical in map(machine.physical, addresses)):
        return Hit(EventKind.BREAKPOINT, physical_address=physical or UNKNOWN_ADDRESS, virtual_address=rip)
    return None


def _msr(machine: Machine, armed: set[Intercept], rip: int) -> Hit | None:
    """A ``wrmsr``, which was not executed yet."""
    number = machine.register(0, abi.REGISTERS["rcx"]) & 0xFFFFFFFF
    if Intercept(EventKind.MSR, number) not in armed or machine.virtual(0, rip, len(_WRMSR)) != _WRMSR:
        return None
    low, high = (machine.register(0, abi.REGISTERS[name]) & 0xFFFFFFFF for name in ("rax", "rdx"))
    old = machine.msr(0, number)
    return Hit(EventKind.MSR, number, old, high << 32 | low, instruction_length=len(_WRMSR))


def _cr(machine: Machine, armed: set[Intercept], rip: int) -> Hit | None:
    """The instruction before is a ``mov`` to a control register, which was written already."""
    code = machine.virtual(0, rip - 3, 3) if rip >= 3 else b""
    number = code[2] >> 3 & 7 if code[:2] == _MOV_TO_CR else -1
    if Intercept(EventKind.CR, number) not in armed:
        return None
    return Hit(EventKind.CR, number, new_value=machine.register(0, abi.REGISTERS[f"cr{number}"]), instruction_length=3)
