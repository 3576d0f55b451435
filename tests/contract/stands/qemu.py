# SPDX-License-Identifier: Apache-2.0
"""A process that looks like QEMU, with its RAM in a shared file and as its own; see ``qemu_simulators.py``.

What it plays has no debugger's stub, so for events there is a real one, with a guest of a few bytes (``eventful.py``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

from contract.eventful import BREAKPOINT, CALLED, HIGH, ROOTS, VARIABLE, Do, Eventful, eventful
from contract.target import Failing, Target, Way
from live.tiny import wait_for
from qemu_simulators import QemuSimulators

from libmicrovmi_py import UNKNOWN_VCPU, EventKind, Intercept, InterceptFlag, Microvmi, PageAccess, ReplyAction
from libmicrovmi_py.declare import replace

KIB = 1024
PIECES = {
    0: (0, 512),
    0x100000: (512, 512),
    0xFD000000: (0, 64),
    0x8000000000: (0, 64),
}
"""Start -> where in its block the memory lies, and how much it is, in KiB."""


def stand(folder: Path) -> Iterator[Target]:
    """Main memory, firmware that cannot be written, video memory and a device's; RAM is mapped."""
    yield from _machine(folder)


def stand_private(folder: Path) -> Iterator[Target]:
    """The same with RAM that has to be read from the process."""
    yield from _machine(folder, "-fake", "private")


def stand_unmapped(folder: Path) -> Iterator[Target]:
    """The same with shared RAM that is read and written by system calls."""
    yield from _machine(folder, parameters="&mapped=no")


def failing(folder: Path) -> Iterator[Failing]:
    """Memory that the process has no more."""
    lost = 0x28000
    with QemuSimulators(folder) as machines:
        uri = machines.start("-fake", "private", "-fake", f"lose={lost:#x}")
        yield Failing(uri, _pieces(), lost, lost, failing=machines.memory_lost)


def _machine(folder: Path, *options: str, parameters: str = "") -> Iterator[Target]:
    with QemuSimulators(folder) as machines:
        yield Target(machines.start(*options) + parameters, _pieces(), writable=True)


def _numbered(first: int, size: int) -> bytes:
    return b"".join(bytes([offset // 4096 % 251]) * 4096 for offset in range(first, first + size, 4096))


def _pieces() -> dict[int, bytes]:
    return {start: _numbered(first * KIB, size * KIB) for start, (first, size) in PIECES.items()}


def provoking(folder: Path) -> Iterator[Target]:
    """A real QEMU, of which nothing but what it is stopped at is looked at."""
    with eventful(folder) as guest:
        yield Target(guest.qemu.uri, {}, writable=False, guest=QemuGuest(guest))


_CR3 = Intercept(EventKind.CR, 3)
_EVERY = replace(_CR3, flags=InterceptFlag.EVERY_WRITE)
_OBSERVED = replace(_CR3, flags=InterceptFlag.OBSERVE)
_CALLED = Intercept(EventKind.BREAKPOINT, address=CALLED)
_READ, _WRITTEN, _BOTH = (
    Intercept(EventKind.VIRTUAL_ACCESS, 0, HIGH + VARIABLE, 8, access)
    for access in (PageAccess.READ, PageAccess.WRITE, PageAccess.READ | PageAccess.WRITE)
)
_LOOKS = 20
"""At a machine that stands, before it is believed to be for good."""

_ANY, _DONE, _SEEN = frozenset(ReplyAction), frozenset((ReplyAction.CONTINUE,)), frozenset[ReplyAction]()
_NOT_DENIED = _ANY - {ReplyAction.DENY}


class QemuGuest:
    """It does what a byte in its memory says."""

    page = 0x5000
    _intercepts: ClassVar = {
        EventKind.CR: _EVERY,
        EventKind.MSR: Intercept(EventKind.MSR, 0x175),
        EventKind.BREAKPOINT: _CALLED,
        EventKind.VIRTUAL_ACCESS: Intercept(EventKind.VIRTUAL_ACCESS, 0, CALLED, 1, PageAccess.EXECUTE),
    }
    _orders: ClassVar = {EventKind.CR: Do.SWITCH, EventKind.MSR: Do.MSR, EventKind.SINGLE_STEP: Do.READ}

    def __init__(self, guest: Eventful) -> None:
        self._guest = guest

    @property
    def ways(self) -> list[Way]:
        """Every register, with all flags, both forms of breakpoints, all accesses."""
        called = {"virtual_address": CALLED, "instruction_pointer": CALLED}
        variable, hardware = {"virtual_address": HIGH + VARIABLE}, InterceptFlag.HARDWARE
        own = {"virtual_address": BREAKPOINT}
        return [
            Way(Intercept(EventKind.CR, 0), partial(self._do, Do.CR0, number=0), _ANY),
            Way(Intercept(EventKind.CR, 4), partial(self._do, Do.CR4, number=4), _ANY),
            Way(_CR3, self._switch, _DONE),
            Way(_EVERY, partial(self._do, Do.FLUSH, number=3), _ANY),
            Way(_OBSERVED, lambda: {**self._switch(), "vcpu": UNKNOWN_VCPU}, _SEEN),
            Way(Intercept(EventKind.BREAKPOINT), partial(self._do, Do.BREAKPOINT, **own), _NOT_DENIED),
            Way(replace(_CALLED, flags=hardware), partial(self._do, Do.CALL, **called), _NOT_DENIED),
            Way(_WRITTEN, partial(self._do, Do.WRITE, access=PageAccess.WRITE, **variable), _DONE),
            Way(_READ, partial(self._do, Do.READ, access=PageAccess.READ, **variable), _DONE),
            Way(_BOTH, partial(self._do, Do.READ, **variable), _DONE),
        ]

    def _do(self, what: Do, **told: int) -> dict[str, int]:
        self._guest.do(what)
        return told

    def _switch(self) -> dict[str, int]:
        self._guest.wait()
        return self._do(Do.SWITCH, number=3, new_value=ROOTS[self._guest.root == ROOTS[0]])

    def intercept(self, kind: EventKind) -> Intercept:
        return self._intercepts.get(kind, Intercept(kind))

    def provoke(self, kind: EventKind) -> dict[str, int]:
        told = {"number": self.intercept(kind).number}
        if kind in (EventKind.BREAKPOINT, EventKind.VIRTUAL_ACCESS):
            told |= {"virtual_address": CALLED}
        return self._do(self._orders.get(kind, Do.CALL), **told)

    def value(self, kind: EventKind, machine: Microvmi) -> int:
        looks = itertools.count()  # QEMU takes a moment to let the machine go on; a RETRY has it stand again for good

        def settled() -> bool:
            return self._guest.idle or (self._guest.qemu.status() == "debug" and next(looks) > _LOOKS)

        wait_for(settled, "what comes of an answer")
        return machine.read_state(0)["cr3" if kind is EventKind.CR else "sysenter_esp"]

    def left(self, machine: Microvmi) -> int:
        monitor = self._guest.qemu.monitor
        ours = [item for item in monitor.execute("query-chardev") if item["label"].startswith("microvmi")]
        return len(ours) + (monitor.status() != "running")
