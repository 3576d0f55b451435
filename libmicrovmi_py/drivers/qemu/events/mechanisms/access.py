# SPDX-License-Identifier: Apache-2.0
"""Accesses to ranges of virtual addresses: watchpoints for data, breakpoints for a few instructions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from libmicrovmi_py.drivers.qemu.events.mechanism import Mechanism
from libmicrovmi_py.drivers.qemu.events.placing import ACCESSES, BREAKPOINT, READS, WRITES, Place
from libmicrovmi_py.drivers.qemu.events.stopped import Stopped
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import EventAbilities, EventKind, Intercept, PageAccess, ReplyAction, Stop

_DATA = {PageAccess.WRITE: WRITES, PageAccess.READ: READS, PageAccess.READ | PageAccess.WRITE: ACCESSES}
_NAMES = {WRITES: "watch", READS: "rwatch", ACCESSES: "awatch"}
"""How a stop names the type of a place."""

_LARGEST = 1 << 16
"""Bytes of a range of data."""

_TRIED = 32
"""Instructions behind which it is found out whether they access a range."""

_MOST_INSTRUCTIONS = 16
"""Bytes of a range whose execution is told: each is a breakpoint."""


class VirtualAccesses(Mechanism):
    """Accesses of data are told when they were done, those of instructions before.

    QEMU tells where the range begins, not which byte was accessed, and of one range only: ranges do not overlap.
    """

    ABILITIES = EventAbilities({EventKind.VIRTUAL_ACCESS: frozenset((ReplyAction.CONTINUE, ReplyAction.RETRY))})

    def serves(self, intercept: Intercept) -> bool:
        """All of the kind."""
        return intercept.kind is EventKind.VIRTUAL_ACCESS

    def __init__(self, machine: object) -> None:
        super().__init__(machine)  # type: ignore[arg-type]
        self._wanted: dict[Intercept, frozenset[Place]] = {}
        self._behind: set[int] = set()  # instruction pointers behind accesses
        self._elsewhere: set[int] = set()

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """As the mechanism's."""
        if vcpus and intercept not in self._wanted:
            _check(intercept)
            for other in self._wanted:
                _check_apart(intercept, other)
            self._wanted[intercept] = frozenset(_places(intercept))
        elif not vcpus:
            self._wanted.pop(intercept, None)
        self.places = frozenset().union(*self._wanted.values())

    def heard(self, stopped: Stopped) -> Iterable[Stop]:
        """Of the range that the stop names, or in which the instruction lies that is about to be executed."""
        name, address = _named(stopped.reason)
        if address is not None:
            self._look_at_others(stopped)
        for intercept, places in self._wanted.items():
            if any(_NAMES.get(place.type) == name and place.address == address for place in places):
                yield _done(intercept, stopped)
        for vcpu, rip in stopped.arrivals():
            for intercept, places in self._wanted.items():
                if Place(BREAKPOINT, rip) in places:
                    yield _about_to_be(intercept, vcpu, rip)

    def _look_at_others(self, stopped: Stopped) -> None:
        """Of two vCPUs whose accesses come in the same moment QEMU tells of one: the other stands behind such an
        access as well, and is asked for it. That costs something, so it is not done for every place in the guest's code
        at which a vCPU may be when another accesses the range."""
        self._behind.add(stopped.registers(stopped.vcpu)["rip"])
        for vcpu in self.machine.vcpus:
            at = stopped.registers(vcpu)["rip"]
            if vcpu == stopped.vcpu or not (at in self._behind or self._may_be(at)):
                continue
            self.machine.probe(vcpu)

    def _may_be(self, at: int) -> bool:
        """Whether it is not known what a vCPU at such an instruction has done; so many are found out."""
        if at in self._elsewhere or len(self._elsewhere) >= _TRIED:
            return False
        self._elsewhere.add(at)
        return True


def _named(reason: str) -> tuple[str, int | None]:
    """The type and the address that a stop tells, whose digits some versions fill up with zeros."""
    name, _, digits = reason.partition(":")
    try:
        return name, int(digits, 16) if digits else None
    except ValueError:
        return name, None


def _done(intercept: Intercept, stopped: Stopped) -> Stop:
    return Stop(
        EventKind.VIRTUAL_ACCESS,
        stopped.vcpu,
        virtual_address=intercept.address,
        access=intercept.access & ~PageAccess.EXECUTE,
        told_by=intercept,
        instruction_pointer=stopped.registers(stopped.vcpu)["rip"],
        answers=frozenset((ReplyAction.CONTINUE,)),
    )


def _about_to_be(intercept: Intercept, vcpu: int, rip: int) -> Stop:
    return Stop(
        EventKind.VIRTUAL_ACCESS,
        vcpu,
        virtual_address=rip,
        access=PageAccess.EXECUTE,
        token=rip,
        told_by=intercept,
        instruction_pointer=rip,
    )


def _check(intercept: Intercept) -> None:
    if intercept.size > _LARGEST:
        raise NotSupportedError(f"accesses are told of ranges of up to {_LARGEST} bytes")
    if intercept.access & PageAccess.EXECUTE and intercept.size > _MOST_INSTRUCTIONS:
        raise NotSupportedError(f"execution is told of ranges of up to {_MOST_INSTRUCTIONS} bytes")


def _check_apart(intercept: Intercept, other: Intercept) -> None:
    """Raise ``NotSupportedError`` if both watch the same data."""
    data = ~PageAccess.EXECUTE
    apart = intercept.address + intercept.size <= other.address or other.address + other.size <= intercept.address
    if not apart and intercept.access & data and other.access & data:
        raise NotSupportedError(f"the range overlaps that at {other.address:#x}: QEMU would tell of one of them")


def _places(intercept: Intercept) -> Iterator[Place]:
    kind = _DATA.get(intercept.access & ~PageAccess.EXECUTE)
    if kind is not None:
        yield Place(kind, intercept.address, intercept.size)
    if intercept.access & PageAccess.EXECUTE:
        for address in range(intercept.address, intercept.address + intercept.size):
            yield Place(BREAKPOINT, address)


MECHANISM = VirtualAccesses
