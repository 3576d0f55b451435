# SPDX-License-Identifier: Apache-2.0
"""Breakpoints and watchpoints of a debugger, out of the library's intercepts.

Where the hypervisor places breakpoints (QEMU, FDP) they are intercepts with an address. Where it stops at every
breakpoint instruction (KVMi, Xen) the instruction is written into memory here, and taken out at the end, whatever ends
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from libmicrovmi_py.arch.x86.instructions import INT3
from libmicrovmi_py.declare import NamedTuple, dataclass
from libmicrovmi_py.errors import MicrovmiError, NotMappedError, NotSupportedError
from libmicrovmi_py.events import Breakpoints, Event, EventKind, Intercept, InterceptFlag, PageAccess
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.memory.virtual import AddressSpace

SOFTWARE, HARDWARE, LAST_TYPE = 0, 1, 4
_WATCHED = {2: PageAccess.WRITE, 3: PageAccess.READ, 4: PageAccess.READ | PageAccess.WRITE}
_NAMES = {SOFTWARE: "swbreak:", HARDWARE: "hwbreak:", 2: "watch:", 3: "rwatch:", 4: "awatch:"}
"""As a stop is named by where it comes from."""

_OWN = Intercept(EventKind.BREAKPOINT)
_MOST = 1024


class Place(NamedTuple):
    """What ``Z`` names: its type, where, and of a watchpoint how many bytes; of a breakpoint that is 0."""

    type: int
    address: int
    size: int = 0

    @property
    def is_watched(self) -> bool:
        """Whether it is a watchpoint."""
        return self.type in _WATCHED


@dataclass(slots=True)
class _Written:
    """A breakpoint that was written into memory: where, and what was there. ``planted``: whether it is there now."""

    physical: int
    before: bytes
    planted: bool = True


class Places:
    """What is placed in one machine; who takes out all of ``every`` leaves nothing."""

    def __init__(self, machine: Microvmi) -> None:
        self._machine = machine
        self._can = machine.abilities.events
        self._placed: dict[Place, Intercept | None] = {}  # None: it is written
        self._written: dict[int, _Written] = {}  # by virtual address
        self._known: set[int] = set()  # addresses that ever had a breakpoint of ours
        self._armed_own = False

    def __bool__(self) -> bool:
        return bool(self._placed)

    @property
    def every(self) -> list[Place]:
        """All of them."""
        return list(self._placed)

    @property
    def can_watch(self) -> bool:
        """Whether there are watchpoints at all."""
        return EventKind.VIRTUAL_ACCESS in self._can.kinds

    # ---------------------------------------------------------------------------------------------- in and out of it

    def insert(self, place: Place, space: Callable[[], AddressSpace]) -> None:
        """Place it, in the address space that ``space`` tells if that is needed.

        Raises ``NotSupportedError`` where the machine cannot be stopped at it, and what writing to it raises.
        """
        if place in self._placed:
            return
        if len(self._placed) >= _MOST:
            raise NotSupportedError(f"there are {_MOST} breakpoints already")
        if place.is_watched:
            self._place(place, _watch(place))
        elif EventKind.BREAKPOINT not in self._can.kinds:
            name, why = self._machine.driver.name, self._can.why_not or "it has no events"
            raise NotSupportedError(f"the {name} driver stops at no breakpoints: {why}")
        elif Breakpoints.PLACED in self._can.breakpoints:
            self._place(place, self._break(place))
        else:
            self._write(place.address, space)
            self._placed[place] = None
        self._known.add(place.address)

    def _place(self, place: Place, intercept: Intercept) -> None:
        if intercept not in self._placed.values():
            self._machine.toggle_intercept(intercept)
        self._placed[place] = intercept

    def _break(self, place: Place) -> Intercept:
        """By the processor where the hypervisor makes a difference."""
        able = self._can.flags.get(EventKind.BREAKPOINT, InterceptFlag.NONE) & ~self._can.implied
        flags = able & InterceptFlag.HARDWARE if place.type == HARDWARE else InterceptFlag.NONE
        return Intercept(EventKind.BREAKPOINT, address=place.address, flags=flags)

    def _write(self, address: int, space: Callable[[], AddressSpace]) -> None:
        if address in self._written:
            return
        physical = space().translate(address).physical_address
        if physical is None:
            raise NotMappedError(f"no memory at virtual address {address:#x}", address=address)
        if not self._armed_own:
            self._machine.toggle_intercept(_OWN)
            self._armed_own = True
        written = _Written(physical, self._machine.read_physical(physical, len(INT3)))
        self._written[address] = written  # before it is written: it is to be taken out whatever comes between
        try:
            self._machine.write_physical(physical, INT3)
        except MicrovmiError:
            del self._written[address]
            raise

    def remove(self, place: Place) -> None:
        """Take it out, unless another one needs the same; one that is not there is none."""
        if place not in self._placed:
            return
        intercept = self._placed[place]
        others = [other for other in self._placed if other != place and other.address == place.address]
        if intercept is not None and all(self._placed[other] != intercept for other in others):
            self._machine.toggle_intercept(intercept, False)
        elif intercept is None and all(self._placed[other] is not None for other in others):
            self._lift(self._written[place.address])
            del self._written[place.address]
        del self._placed[place]

    # ------------------------------------------------------------------------------------------- what is written

    def lift(self, address: int) -> bool:
        """Have memory without the breakpoint that is written there; ``False`` if none is."""
        written = self._written.get(address)
        if written is None or not written.planted:
            return False
        self._lift(written)
        return True

    def plant(self, address: int) -> None:
        """Write it again, if it is still wanted."""
        written = self._written.get(address)
        if written is not None and not written.planted:
            self._plant(written)

    def is_planted(self, address: int) -> bool:
        """Whether a breakpoint is written there."""
        written = self._written.get(address)
        return written is not None and written.planted

    def was_ours(self, address: int) -> bool:
        """Whether there ever was one of ours."""
        return address in self._known

    def _lift(self, written: _Written) -> None:
        """What the guest has put there meanwhile stays."""
        if written.planted and self._machine.read_physical(written.physical, len(INT3)) == INT3:
            self._machine.write_physical(written.physical, written.before)
        written.planted = False

    def _plant(self, written: _Written) -> None:
        written.before = self._machine.read_physical(written.physical, len(INT3))
        written.planted = True
        self._machine.write_physical(written.physical, INT3)

    def hidden(self, address: int, data: bytes) -> bytes:
        """Memory from a virtual address on as it is without our breakpoints."""
        found = bytearray(data)
        for place, written in self._written.items():
            if written.planted and 0 <= place - address < len(found):
                found[place - address] = written.before[0]
        return bytes(found)

    @contextmanager
    def lifted(self, address: int, size: int) -> Iterator[None]:
        """A block in which none of our breakpoints is in a range of memory, which is being written."""
        inside = [item for place, item in self._written.items() if item.planted and 0 <= place - address < size]
        for written in inside:
            self._lift(written)
        try:
            yield
        finally:
            for written in inside:
                self._plant(written)

    # ---------------------------------------------------------------------------------------------------- what it hit

    def reason(self, event: Event) -> str:
        """What a debugger is told of why a vCPU stands, as it is written in a packet; ``""``: it is none of ours."""
        if event.kind is EventKind.BREAKPOINT:
            hit = [place for place in self._placed if place.address == event.virtual_address and not place.is_watched]
            return f"{_NAMES[min(hit).type]};" if hit else ""
        if event.kind is EventKind.VIRTUAL_ACCESS:
            hit = [place for place in self._placed if _is_hit(place, event)]
            return f"{_NAMES[hit[0].type]}{max(event.virtual_address, hit[0].address):x};" if hit else ""
        return ""


def _watch(place: Place) -> Intercept:
    return Intercept(EventKind.VIRTUAL_ACCESS, address=place.address, size=place.size, access=_WATCHED[place.type])


def _is_hit(place: Place, event: Event) -> bool:
    """A write of several bytes may begin in front of the range."""
    accessed = _WATCHED.get(place.type, PageAccess.NONE) & event.access
    return bool(accessed) and place.address - 64 < event.virtual_address < place.address + place.size
