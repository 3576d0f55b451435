# SPDX-License-Identifier: Apache-2.0
"""A simulated VirtualBox machine behind a libFDP of the tests, or the real one; ``drivers/virtualbox/simulator.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from contract.target import Failing, Target, Way
from drivers.virtualbox.simulator import CODE, INSTRUCTIONS, MOV_CR3, PLACED, Simulator, addresses, build, simulated
from processors import x86_registers

from libmicrovmi_py import EventKind, Intercept, Microvmi

RANGES = {CODE: 0x40000 - CODE, 0x50000: 0x40000}


def stand(folder: Path) -> Iterator[Target]:
    """A machine of two ranges, whose code begins the first; below that and between them nothing exists."""
    pieces = {start: addresses(start, size) for start, size in RANGES.items()}
    pieces[CODE] = INSTRUCTIONS + pieces[CODE][len(INSTRUCTIONS) :]
    with simulated(build(folder), RANGES) as machine:
        yield Target(machine.uri, pieces, writable=True, guest=VirtualBoxGuest(machine))


class VirtualBoxGuest:
    """It goes round four instructions all the time; see ``machine.c``."""

    page = 0x50000
    ways: ClassVar[list[Way]] = []
    _lstar = 0xC0000082
    _intercepts: ClassVar = {
        EventKind.CR: Intercept(EventKind.CR, 3),
        EventKind.MSR: Intercept(EventKind.MSR, _lstar),
        EventKind.BREAKPOINT: Intercept(EventKind.BREAKPOINT, address=MOV_CR3),
    }

    def __init__(self, machine: Simulator) -> None:
        self._machine = machine

    def intercept(self, kind: EventKind) -> Intercept:
        return self._intercepts.get(kind, Intercept(kind))

    def provoke(self, kind: EventKind) -> dict[str, int]:
        told: dict[EventKind, dict[str, int]] = {
            EventKind.CR: {"number": 3, "new_value": 0x1A},
            EventKind.MSR: {"number": self._lstar, "new_value": 0x1D0000001A},
            EventKind.BREAKPOINT: {"virtual_address": MOV_CR3},
        }
        return told.get(kind, {})

    def value(self, kind: EventKind, machine: Microvmi) -> int:
        if kind is EventKind.CR:
            return x86_registers(machine).cr3
        return self._machine.msr(self._lstar)

    def left(self, machine: Microvmi) -> int:
        return self._machine.state() + self._machine.msr(PLACED)


def failing(folder: Path) -> Iterator[Failing]:
    """A write is refused: what does not exist is all that FDP tells of a read."""
    with simulated(build(folder), {0x10000: 0x40000}, unwritable=0x30000) as machine:
        yield Failing(machine.uri, {0x10000: addresses(0x10000, 0x40000)}, unwritable=0x30000, exact=False)
