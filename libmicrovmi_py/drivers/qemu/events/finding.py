# SPDX-License-Identifier: Apache-2.0
"""Finds the mechanisms, by listing their folder, and tells what all of them can together."""

from __future__ import annotations

import functools
import sys

from libmicrovmi_py.drivers.qemu.events import mechanisms, observed
from libmicrovmi_py.drivers.qemu.events.mechanism import Mechanism
from libmicrovmi_py.events import Breakpoints, EventAbilities, EventKind, InterceptFlag, ReplyAction, Stands
from libmicrovmi_py.transport.fds import StandardStreamsHeld


@functools.cache
def all_mechanisms() -> tuple[type[Mechanism], ...]:
    """Every mechanism, in the order of their names."""
    with StandardStreamsHeld():
        import pkgutil  # large, and needed for this alone

        names = sorted(info.name for info in pkgutil.iter_modules(mechanisms.__path__))
        return tuple(_imported(f"{mechanisms.__name__}.{name}") for name in names)


def _imported(name: str) -> type[Mechanism]:
    __import__(name)
    found: type[Mechanism] = sys.modules[name].MECHANISM
    return found


@functools.cache
def abilities() -> EventAbilities:
    """What all of them can."""
    kinds: dict[EventKind, frozenset[ReplyAction]] = {}
    breakpoints: frozenset[Breakpoints] = frozenset()
    flags: dict[EventKind, InterceptFlag] = {}
    for each in (observed.ABILITIES, *(mechanism.ABILITIES for mechanism in all_mechanisms())):
        breakpoints |= each.breakpoints
        for kind, answers in each.kinds.items():
            kinds[kind] = kinds.get(kind, frozenset()) | answers
        for kind, bits in each.flags.items():
            flags[kind] = flags.get(kind, InterceptFlag.NONE) | bits
    why_not = "QEMU's debugger's stub knows no physical pages: intercept VIRTUAL_ACCESS"
    return EventAbilities(kinds, breakpoints, why_not, flags, stands=Stands.MACHINE)
