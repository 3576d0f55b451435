# SPDX-License-Identifier: Apache-2.0
"""Which machines a host has, as its worker sees them, and what tells one machine from another."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.errors import IoError, escaped
from libmicrovmi_py.listed import ListedMachine
from libmicrovmi_py.machine.listing import list_vms
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.shape import integer, text

LONGEST = 4096
"""Characters of a text that a worker tells."""

MOST = 1 << 16
"""Machines of one host."""


class Place(NamedTuple):
    """Where a worker runs: workers of one place see the same machines, with the same rights."""

    host: str
    system: str
    """The running system and its namespace of processes: what process ids belong to."""
    user: int


class Target(NamedTuple):
    """A machine of a place. ``identity`` is no other machine's, and the same whoever lists it."""

    identity: str
    host: str
    driver: str
    name: str
    uri: str
    process_id: int
    started: int
    """When its process began, in the system's ticks; 0 where there is no process."""
    uuid: str
    reason: str
    """Why it cannot be read; empty where it can."""

    @property
    def document(self) -> dict[str, object]:
        """What a line of results says of it."""
        return {
            "host": self.host,
            "driver": self.driver,
            "name": self.name,
            "uri": self.uri,
            "process_id": self.process_id or None,
            "uuid": self.uuid,
        }


def place() -> Place:
    """Where this process runs."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Place(socket.gethostname(), f"{boot}/{os.readlink('/proc/self/ns/pid')}", os.geteuid())


def targets(driver: str | None = None) -> list[Target]:
    """The machines of this host, each once: those of one driver, if it is named."""
    here = place()
    return once(_target(here, machine) for machine in list_vms(driver) if machine.name or machine.uri)


def named(uri: str) -> Target:
    """A machine that is named, not listed: any worker opens it."""
    return Target(f"named/{uri}", "", "", uri, uri, 0, 0, "", "")


def once(found: Iterable[Target]) -> list[Target]:
    """Each machine once: a process may be listed by two drivers. Of two the one that can be read is taken."""
    known: dict[str, Target] = {}
    for target in found:
        if target.identity not in known or (known[target.identity].reason and not target.reason):
            known[target.identity] = target
    return list(known.values())


def checked(answer: object) -> list[Target]:
    """What a worker told, as far as it can be a list of machines. Raises ``IoError``."""
    what = "what a worker tells of its machines"
    if not isinstance(answer, list) or len(answer) > MOST:
        raise IoError(f"{what} is no list of {MOST} at the most")
    return [Target(*(_member(what, row, at) for at in range(len(Target._fields)))) for row in answer]


def checked_place(answer: object) -> Place:
    """What a worker told of where it is. Raises ``IoError``."""
    what = "what a worker tells of its host"
    if not isinstance(answer, tuple | list) or len(answer) != len(Place._fields):
        raise IoError(f"{what} is none")
    return Place(_text(answer[0], what), _text(answer[1], what), integer(answer[2], what, 0, (1 << 32) - 1))


def _target(here: Place, machine: ListedMachine) -> Target:
    process = Process.find(machine.process_id) if machine.process_id else None
    started = process.start_time if process is not None else 0
    own = f"process/{machine.process_id}/{started}" if machine.process_id else _other(machine)
    reason = machine.reason if Ability.READ not in machine.abilities else ""
    return Target(
        f"{here.system}/{own}",
        here.host,
        machine.driver,
        machine.name,
        machine.uri,
        machine.process_id,
        started,
        machine.uuid,
        reason or ("" if machine.uri else "nothing opens it"),
    )


def _other(machine: ListedMachine) -> str:
    """Of a machine without a process."""
    return f"{machine.driver}/{machine.uuid or machine.uri or machine.name}"


def _member(what: str, row: Any, at: int) -> Any:
    """A member of a target, checked; those that are numbers are the ones that are numbers in :class:`Target`."""
    if not isinstance(row, tuple | list) or len(row) != len(Target._fields):
        raise IoError(f"{what} is none")
    if Target._fields[at] in ("process_id", "started"):
        return integer(row[at], what, 0, (1 << 64) - 1)
    return _text(row[at], what)


def _text(value: Any, what: str) -> str:
    told = escaped(text(value, what))
    if len(told) > LONGEST:
        raise IoError(f"{what} has a text of {len(told)} characters")
    return told
