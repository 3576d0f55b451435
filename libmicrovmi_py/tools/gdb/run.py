# SPDX-License-Identifier: Apache-2.0
"""Letting a machine run until something stops it: breakpoints and single steps, out of the library's events.

Where the hypervisor places breakpoints (FDP) they are intercepts with an address. Where it stops at every breakpoint
instruction (KVMi, Xen) the instruction is written into memory here, and taken out at the end, whatever ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.arch.x86.instructions import INT3
from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.errors import MicrovmiError, NotMappedError, NotSupportedError, VmGoneError
from libmicrovmi_py.events import Breakpoints, Event, EventKind, Intercept, Reply, ReplyAction
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.memory.virtual import AddressSpace

_OWN = Intercept(EventKind.BREAKPOINT)
_STEP = Intercept(EventKind.SINGLE_STEP)
_MOST_BREAKPOINTS = 1024
_MOST_DRAINED = 1 << 16
"""Stops that are answered at the end; a guest that makes more does nothing else."""


@dataclass(slots=True)
class _Written:
    """A breakpoint that was written into memory: where, and what was there. ``planted``: whether it is there now."""

    physical: int
    before: bytes
    planted: bool = True


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a vCPU stands: at a breakpoint, or after a step."""

    vcpu: int
    at_breakpoint: bool


class Run:
    """The run of a machine under a debugger. :meth:`end` leaves nothing of it."""

    def __init__(self, machine: Microvmi) -> None:
        self._machine = machine
        self._can = machine.abilities.events
        self._placed: dict[int, _Written | None] = {}  # by virtual address; None: the hypervisor's
        self._known: set[int] = set()  # addresses that ever had a breakpoint of ours
        self._open: Event | None = None
        self._stepping: int | None = None
        self._over: tuple[int, int] | None = None  # a vCPU that is led over a breakpoint, and its address
        self._armed_own = False

    @property
    def can_step(self) -> bool:
        """Whether vCPUs can be stopped after one instruction."""
        return EventKind.SINGLE_STEP in self._can.kinds

    @property
    def listens(self) -> bool:
        """Whether anything may stop the machine but its user."""
        return bool(self._placed) or self._stepping is not None or self._over is not None

    # ------------------------------------------------------------------------------------------------- breakpoints

    def insert(self, address: int, space: Callable[[], AddressSpace]) -> None:
        """A breakpoint at a virtual address, in the address space that ``space`` tells if that is needed.

        Raises ``NotSupportedError`` where the machine cannot be stopped at one, and what writing to it raises.
        """
        if address in self._placed:
            return
        if EventKind.BREAKPOINT not in self._can.kinds:
            name = self._machine.driver.name
            raise NotSupportedError(
                f"the {name} driver stops at no breakpoints: {self._can.why_not or 'it has no events'}"
            )
        if len(self._placed) >= _MOST_BREAKPOINTS:
            raise NotSupportedError(f"there are {_MOST_BREAKPOINTS} breakpoints already")
        if Breakpoints.PLACED in self._can.breakpoints:
            self._machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=address))
            self._placed[address] = None
        else:
            self._write(address, space())
        self._known.add(address)

    def _write(self, address: int, space: AddressSpace) -> None:
        physical = space.translate(address).physical_address
        if physical is None:
            raise NotMappedError(f"no memory at virtual address {address:#x}", address=address)
        if not self._armed_own:
            self._machine.toggle_intercept(_OWN)
            self._armed_own = True
        written = _Written(physical, self._machine.read_physical(physical, len(INT3)))
        self._placed[address] = written  # before it is written: it is to be taken out whatever comes between
        try:
            self._machine.write_physical(physical, INT3)
        except MicrovmiError:
            del self._placed[address]
            raise

    def remove(self, address: int) -> None:
        """Take a breakpoint out; one that is not there is none."""
        if address not in self._placed:
            return
        written = self._placed[address]
        if written is None:
            self._machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=address), False)
        else:
            self._lift(written)
        del self._placed[address]

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
        for place, written in self._placed.items():
            if written is not None and written.planted and 0 <= place - address < len(found):
                found[place - address] = written.before[0]
        return bytes(found)

    @contextmanager
    def lifted(self, address: int, size: int) -> Iterator[None]:
        """A block in which none of our breakpoints is in a range of memory, which is being written."""
        inside = [item for place, item in self._placed.items() if item and item.planted and 0 <= place - address < size]
        for written in inside:
            self._lift(written)
        try:
            yield
        finally:
            for written in inside:
                self._plant(written)

    # ------------------------------------------------------------------------------------------------- run and stop

    def halt(self) -> None:
        """Have all vCPUs stand. A machine that cannot be paused is looked at as it runs."""
        if Ability.PAUSE in self._machine.abilities.can:
            self._machine.pause()
        self._end_steps()

    def go(self, step: int | None = None) -> None:
        """Let the machine run, a vCPU of it for one instruction. Raises ``NotSupportedError``, and then it stands."""
        if self._machine.driver.static or self._machine.driver.lasting:
            raise NotSupportedError("a dump does not run")
        if step is not None and not self.can_step:
            raise NotSupportedError(f"the {self._machine.driver.name} driver cannot step: it has no such events")
        self._stepping = step
        event = self._open
        if event is not None and self._is_planted(event.virtual_address) and event.kind is EventKind.BREAKPOINT:
            self._begin_over(event)
        for vcpu in {step, self._over[0] if self._over else None} - {None}:
            self._machine.toggle_intercept(_STEP, vcpu=vcpu or 0)
        self._open = None
        if event is not None:
            self._machine.reply_event(event, self._answer(event))
        self._machine.resume()

    def _is_planted(self, address: int) -> bool:
        written = self._placed.get(address)
        return written is not None and written.planted

    def _begin_over(self, event: Event) -> None:
        """Lead a vCPU over a breakpoint in memory: without it for one step, in which others may pass it as well."""
        if not self.can_step:
            raise NotSupportedError("the machine stands at a breakpoint and cannot step over it: remove it first")
        written = self._placed[event.virtual_address]
        assert written is not None
        self._lift(written)
        self._over = (event.vcpu, event.virtual_address)

    def _answer(self, event: Event) -> Reply:
        """How a stop of ours is answered: what we wrote was taken out, so that the guest's own instruction is there."""
        if event.kind is not EventKind.BREAKPOINT or Breakpoints.PLACED in self._can.breakpoints:
            return Reply()
        ours = event.virtual_address in self._known
        return Reply(ReplyAction.RETRY if ours and not self._is_there(event) else ReplyAction.CONTINUE)

    def _is_there(self, event: Event) -> bool:
        """Whether a breakpoint instruction is in memory where a vCPU stopped at one, now that ours are out."""
        try:
            space = self._machine.address_space(vcpu=event.vcpu)
            return space.read_virtual(event.virtual_address, len(INT3)) == INT3
        except VmGoneError:
            raise
        except MicrovmiError:
            return False

    def wait(self, seconds: float) -> Stopped | None:
        """Wait for a stop that the debugger is told; the machine stands then."""
        event = self._machine.listen(seconds)
        if event is None:
            return None
        stopped = self._told(event)
        if stopped is None:
            return None
        self._open = event
        self._machine.pause()
        self._end_steps()
        return stopped

    def _told(self, event: Event) -> Stopped | None:
        """What a debugger is told of an event; one that is none of its business is answered."""
        if event.kind is EventKind.BREAKPOINT and event.virtual_address in self._placed:
            return Stopped(event.vcpu, at_breakpoint=True)
        if event.kind is EventKind.SINGLE_STEP:
            self._end_over(event)
            if event.vcpu == self._stepping:
                return Stopped(event.vcpu, at_breakpoint=False)
        self._machine.reply_event(event, self._answer(event))
        return None

    def _end_over(self, event: Event) -> None:
        if self._over is None or self._over[0] != event.vcpu:
            return
        (vcpu, address), self._over = self._over, None
        self._replant(address)
        if vcpu != self._stepping:
            self._machine.toggle_intercept(_STEP, False, vcpu=vcpu)

    def _replant(self, address: int) -> None:
        written = self._placed.get(address)
        if written is not None and not written.planted:
            self._plant(written)

    def _end_steps(self) -> None:
        """The machine stands: no vCPU is stepped any more, and breakpoints are where they belong."""
        over, self._over = self._over, None
        stepping, self._stepping = self._stepping, None
        if over is not None:
            self._replant(over[1])
        for vcpu in {stepping, over[0] if over else None} - {None}:
            self._machine.toggle_intercept(_STEP, False, vcpu=vcpu or 0)

    # ------------------------------------------------------------------------------------------------------ the end

    def end(self) -> None:
        """Take out all breakpoints and answer what is open; each step is done whatever becomes of the others.

        The machine stands afterwards. vCPUs that came by a breakpoint which nobody was told of do their instruction
        again, with what belongs there. A machine that is gone needs nothing. Raises the first error.
        """
        failures: list[MicrovmiError] = []
        removals = (partial(self.remove, address) for address in list(self._placed))
        steps: list[Callable[[], None]] = [self.halt, *removals, self._answer_all]
        for step in steps:
            try:
                step()
            except VmGoneError:
                return
            except MicrovmiError as err:
                failures.append(err)
        if failures:
            raise failures[0]

    def _answer_all(self) -> None:
        event, self._open = self._open, None
        if event is not None:
            self._machine.reply_event(event, self._answer(event))
        if not self._can.kinds:
            return
        for _ in range(_MOST_DRAINED):
            if (event := self._machine.listen(0)) is None:
                break
            self._machine.reply_event(event, self._answer(event))
