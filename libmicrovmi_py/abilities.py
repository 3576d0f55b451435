# SPDX-License-Identifier: Apache-2.0
"""What an open machine can, kind by kind; the numbers are those of ``enum microvmi_ability`` in the C header."""

from __future__ import annotations

import enum

from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.events import EventAbilities


class Ability(enum.IntFlag):
    """One bit a kind. Whether a single call succeeds is told by that call: rights and the machine's state count."""

    READ = 1 << 0
    """Memory can be read; every machine has it."""
    WRITE = 1 << 1
    """Memory can be written."""
    MAP = 1 << 2
    """Memory can be read without a copy, at least a part of it."""
    MEMORY_MAP = 1 << 3
    """The ranges that exist are known one by one."""
    PAUSE = 1 << 4
    """It can be paused and resumed; a dump, which never runs, has it."""
    VCPU_COUNT = 1 << 5
    """The number of vCPUs is known."""
    READ_REGISTERS = 1 << 6
    """Registers can be read, at least those of the first vCPU."""
    WRITE_REGISTERS = 1 << 7
    """Registers can be written, at least some of the first vCPU."""
    PAGE_ACCESS = 1 << 8
    """Accesses to pages can be taken from the guest."""
    EVENTS = 1 << 9
    """It can be intercepted what the guest does; which kinds, and how they are answered, is told beside it."""
    VIRTUAL = 1 << 10
    """Virtual memory by the base of page tables; every machine has it. By a vCPU where registers are read as well."""
    SNAPSHOT = 1 << 11
    """A snapshot can be taken of it: of every machine that can be paused, or that never changes."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a machine can, and which events it can be intercepted at, with the answers of each kind."""

    can: Ability
    events: EventAbilities


def with_snapshots(can: Ability) -> Ability:
    """What a machine can of which that is what its driver can: a copy takes no more than a pause."""
    return can | Ability.SNAPSHOT if can & Ability.PAUSE else can
