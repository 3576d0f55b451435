# SPDX-License-Identifier: Apache-2.0
"""What of a machine is read where nobody said: a copy of one moment, if the machine hardly stands for it."""

from __future__ import annotations

import enum
from pathlib import Path

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.drivers.base import SupportsSnapshots
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.export.partial import Words
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.transport.fds import StandardStreamsHeld

SMALL = 512 << 20
"""Bytes of memory that are copied in so short a time that a machine may stand for it without being asked: 0.1 s."""


class View(enum.Enum):
    """What is read."""

    SNAPSHOT = "snapshot"
    PAUSE = "pause"
    LIVE = "live"


def never_changes(machine: Microvmi) -> bool:
    """Whether it is a dump or a snapshot."""
    return machine.driver.static or machine.driver.lasting


def why_not(machine: Microvmi, words: Words) -> str:
    """Why no snapshot is taken of a machine without being asked, as far as that is known before one is; else ``""``."""
    if Ability.SNAPSHOT not in machine.abilities.can:
        return f"the {machine.driver.name} driver cannot pause the machine"
    size = _size_of(machine)
    if size > SMALL and not isinstance(machine.driver, SupportsSnapshots):
        stands = f"the machine would stand while {size / (1 << 20):.1f} MiB are copied"
        return f"{stands} ({words.snapshot} takes one all the same)"
    return ""


def modest(machine: Microvmi, words: Words) -> tuple[bool, int]:
    """How a snapshot is taken for which a machine hardly stands, and that leaves others their memory.

    (whether by its hypervisor alone, while the machine runs; the bytes that it may take). Raises ``NotSupportedError``
    as :func:`why_not` says.
    """
    if reason := why_not(machine, words):
        raise NotSupportedError(reason)
    return _size_of(machine) > SMALL, _half_of_memory()


def _size_of(machine: Microvmi) -> int:
    """Bytes of all memory that exists."""
    return sum(item.size for item in machine.memory_map())


def _half_of_memory() -> int:
    """Half of what the system says that it has left, in bytes."""
    with StandardStreamsHeld():
        lines = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    return next(int(words[1]) for words in lines if words[0] == "MemAvailable:") << 9
