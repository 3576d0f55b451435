# SPDX-License-Identifier: Apache-2.0
"""The machine made of bytes, with holes and two vCPUs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

from contract.target import Failing, Target, Way
from processors import x86_registers

from libmicrovmi_py import UNKNOWN_VCPU, EventKind, Intercept, InterceptFlag, Microvmi, PageAccess, ReplyAction
from libmicrovmi_py.drivers.fake import FakeDriver

SIZE = 0x80000
HOLES = ((0x9000, 0xA000), (0x20000, 0x40000))
URI = f"vmi://fake/?size={SIZE:#x}&holes=" + ",".join(f"{start:#x}-{end:#x}" for start, end in HOLES)


def stand(folder: Path) -> Iterator[Target]:
    """Nothing has to be set up; ``folder`` stays empty."""
    yield Target(f"{URI}&vcpus=2", pieces(), writable=True, guest=FakeGuest())


class FakeGuest:
    """Its vCPUs do everything all the time, as long as somebody listens."""

    page = 0x5000
    _intercepts: ClassVar = {
        EventKind.CR: Intercept(EventKind.CR, 3),
        EventKind.MSR: Intercept(EventKind.MSR, 0x175),
        EventKind.VIRTUAL_ACCESS: Intercept(EventKind.VIRTUAL_ACCESS, 0, 0x3000, 8, PageAccess.EXECUTE),
    }

    @property
    def ways(self) -> list[Way]:
        """Whatever it can, it does all the time."""
        every, done, nothing = frozenset(ReplyAction), frozenset((ReplyAction.CONTINUE,)), frozenset[ReplyAction]()
        flags = {InterceptFlag.NONE: (0, 4), InterceptFlag.EVERY_WRITE: (3,)}
        writes = [Intercept(EventKind.CR, number, flags=flag) for flag, of in flags.items() for number in of]
        observed = Intercept(EventKind.CR, 3, flags=InterceptFlag.OBSERVE)
        placed = Intercept(EventKind.BREAKPOINT, address=0x3000, flags=InterceptFlag.HARDWARE)
        accesses = [Intercept(EventKind.VIRTUAL_ACCESS, 0, 0x3000, 8, PageAccess(bit)) for bit in (1, 2)]
        return [
            *(Way(item, partial(dict, number=item.number), every) for item in writes),
            Way(observed, lambda: {"number": 3, "vcpu": UNKNOWN_VCPU}, nothing),
            Way(placed, lambda: {"virtual_address": 0x3000}, every - {ReplyAction.DENY}),
            *(Way(item, partial(dict, virtual_address=0x3000, access=item.access), done) for item in accesses),
        ]

    def intercept(self, kind: EventKind) -> Intercept:
        return self._intercepts.get(kind, Intercept(kind))

    def provoke(self, kind: EventKind) -> dict[str, int]:
        if kind is EventKind.PAGE_ACCESS:
            return {"physical_address": self.page, "virtual_address": self.page, "access": PageAccess.WRITE}
        if kind is EventKind.VIRTUAL_ACCESS:
            place = self.intercept(kind).address
            return {"virtual_address": place, "instruction_pointer": place, "access": PageAccess.EXECUTE}
        return {"number": self.intercept(kind).number}

    def value(self, kind: EventKind, machine: Microvmi) -> int:
        registers = x86_registers(machine)
        return registers.cr3 if kind is EventKind.CR else registers.sysenter_esp

    def left(self, machine: Microvmi) -> int:
        assert isinstance(machine.driver, FakeDriver)
        return machine.driver.left_behind


def failing(folder: Path) -> Iterator[Failing]:
    """Frames that the machine was told to fail in."""
    yield Failing(f"{URI}&unreadable=0x58000-0x5a000&unwritable=0x70000-0x71000", pieces(), 0x58000, 0x70000)


def pieces() -> dict[int, bytes]:
    """All memory but the holes."""
    starts, ends = (0, *(end for _, end in HOLES)), (*(start for start, _ in HOLES), SIZE)
    return {start: numbered(start, end) for start, end in zip(starts, ends, strict=True)}


def numbered(start: int, end: int) -> bytes:
    """What the frames between two addresses hold: their number, every 8 bytes."""
    return b"".join((address >> 12).to_bytes(8, "little") * 512 for address in range(start, end, 4096))
