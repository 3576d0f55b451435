# SPDX-License-Identifier: Apache-2.0
"""Letting a machine run until something stops it: what a debugger placed, and single steps, by the library's events."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.arch.x86.instructions import INT3
from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.errors import MicrovmiError, NotSupportedError, VmGoneError
from libmicrovmi_py.events import Breakpoints, Event, EventKind, Intercept, Reply, ReplyAction
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.gdb.places import Places

_STEP = Intercept(EventKind.SINGLE_STEP)
_MOST_DRAINED = 1 << 16
"""Stops that are answered at the end; a guest that makes more does nothing else."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a vCPU stands: at what ``reason`` names, as a packet has it, or after a step, of which it is empty."""

    vcpu: int
    reason: str = ""


class Run:
    """The run of a machine under a debugger. :meth:`end` leaves nothing of it."""

    def __init__(self, machine: Microvmi) -> None:
        self._machine = machine
        self._can = machine.abilities.events
        self.places = Places(machine)
        self._open: Event | None = None
        self._stepping: int | None = None
        self._over: tuple[int, int] | None = None  # a vCPU that is led over a breakpoint, and its address

    @property
    def can_step(self) -> bool:
        """Whether vCPUs can be stopped after one instruction."""
        return EventKind.SINGLE_STEP in self._can.kinds

    @property
    def listens(self) -> bool:
        """Whether anything may stop the machine but its user."""
        return bool(self.places) or self._stepping is not None or self._over is not None

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
        if event is not None and event.kind is EventKind.BREAKPOINT and self.places.is_planted(event.virtual_address):
            self._begin_over(event)
        for vcpu in {step, self._over[0] if self._over else None} - {None}:
            self._machine.toggle_intercept(_STEP, vcpu=vcpu or 0)
        self._open = None
        if event is not None:
            self._machine.reply_event(event, self._answer(event))
        self._machine.resume()

    def _begin_over(self, event: Event) -> None:
        """Lead a vCPU over a breakpoint in memory: without it for one step, in which others may pass it as well."""
        if not self.can_step:
            raise NotSupportedError("the machine stands at a breakpoint and cannot step over it: remove it first")
        self.places.lift(event.virtual_address)
        self._over = (event.vcpu, event.virtual_address)

    def _answer(self, event: Event) -> Reply:
        """How a stop of ours is answered: what we wrote was taken out, so that the guest's own instruction is there."""
        if event.kind is not EventKind.BREAKPOINT or Breakpoints.PLACED in self._can.breakpoints:
            return Reply()
        ours = self.places.was_ours(event.virtual_address)
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
        if reason := self.places.reason(event):
            return Stopped(event.vcpu, reason)
        if event.kind is EventKind.SINGLE_STEP:
            self._end_over(event)
            if event.vcpu == self._stepping:
                return Stopped(event.vcpu)
        self._machine.reply_event(event, self._answer(event))
        return None

    def _end_over(self, event: Event) -> None:
        if self._over is None or self._over[0] != event.vcpu:
            return
        (vcpu, address), self._over = self._over, None
        self.places.plant(address)
        if vcpu != self._stepping:
            self._machine.toggle_intercept(_STEP, False, vcpu=vcpu)

    def _end_steps(self) -> None:
        """The machine stands: no vCPU is stepped any more, and breakpoints are where they belong."""
        over, self._over = self._over, None
        stepping, self._stepping = self._stepping, None
        if over is not None:
            self.places.plant(over[1])
        for vcpu in {stepping, over[0] if over else None} - {None}:
            self._machine.toggle_intercept(_STEP, False, vcpu=vcpu or 0)

    # ------------------------------------------------------------------------------------------------------ the end

    def end(self) -> None:
        """Take out what is placed and answer what is open; each step is done whatever becomes of the others.

        The machine stands afterwards. vCPUs that came by a breakpoint which nobody was told of do their instruction
        again, with what belongs there. A machine that is gone needs nothing. Raises the first error.
        """
        failures: list[MicrovmiError] = []
        removals = (partial(self.places.remove, place) for place in self.places.every)
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
