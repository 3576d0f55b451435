# SPDX-License-Identifier: Apache-2.0
"""What is placed in the stub: each place once, however many want it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.qemu.events.link import Link
from libmicrovmi_py.errors import IoError, MicrovmiError, NotSupportedError
from libmicrovmi_py.transport.shape import shown

BREAKPOINT, HARDWARE_BREAKPOINT, WRITES, READS, ACCESSES = range(5)
"""The stub's numbers of the types of places."""

_EXECUTED = (BREAKPOINT, HARDWARE_BREAKPOINT)


class Place(NamedTuple):
    """A guest-virtual address at which QEMU stops the machine, or a range of ``size`` bytes for those of data."""

    type: int
    address: int
    size: int = 1

    @property
    def packet(self) -> str:
        """What follows ``Z`` or ``z``."""
        return f"{self.type},{self.address:x},{self.size:x}"


class Places:
    """What the stub was told to stop at. The machine stands at every call but :attr:`instructions`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._sets: tuple[frozenset[Place], ...] = ()
        self._placed: set[Place] = set()
        self.instructions: frozenset[int] = frozenset()
        """The addresses of instructions at which the machine stops before they are executed."""

    def __bool__(self) -> bool:
        return bool(self._placed)

    @property
    def watches(self) -> frozenset[Place]:
        """Those of data."""
        return frozenset(place for place in self._placed if place.type not in _EXECUTED)

    @contextmanager
    def no_data(self) -> Iterator[None]:
        """A block in which no range of data is placed."""
        data = sorted(place.packet for place in self._placed if place.type not in _EXECUTED)
        self._link.order(*(f"z{packet}" for packet in data))
        try:
            yield
        finally:
            self._link.order(*(f"Z{packet}" for packet in data))

    def are(self, sets: Iterable[frozenset[Place]]) -> bool:
        """Whether these very sets were followed last, in the same order."""
        sets = tuple(sets)
        return len(sets) == len(self._sets) and all(map(_same, sets, self._sets))

    def follow(self, sets: Iterable[frozenset[Place]]) -> None:
        """Place what is in any of the sets, and nothing else. Raises ``NotSupportedError`` for what QEMU refuses."""
        sets = tuple(sets)
        if self.are(sets):
            return
        wanted: set[Place] = set().union(*sets)
        self._remove(self._placed - wanted)
        self._add(wanted - self._placed)
        self._sets = sets

    def _remove(self, places: Collection[Place]) -> None:
        for place in places:
            self._link.order(f"z{place.packet}")
            self._placed.discard(place)
        self._count()

    def _add(self, places: Collection[Place]) -> None:
        added = []
        try:
            for place in sorted(places):
                self._placed.add(place)
                self._place(place)
                added.append(place)
        except MicrovmiError:
            self._sets = ()
            self._remove(added)
            raise
        finally:
            self._count()

    def _place(self, place: Place) -> None:
        answer = self._link.question(f"Z{place.packet}")
        if answer == "OK":
            return
        self._placed.discard(place)
        if not answer or answer.startswith("E"):
            raise NotSupportedError(f"QEMU does not stop at {place.address:#x} in that way: it has no more room for it")
        raise IoError(f"the debugger's stub refused Z{place.packet}: {shown(answer)}")

    def _count(self) -> None:
        self.instructions = frozenset(place.address for place in self._placed if place.type in _EXECUTED)


def _same(one: frozenset[Place], other: frozenset[Place]) -> bool:
    return one is other
