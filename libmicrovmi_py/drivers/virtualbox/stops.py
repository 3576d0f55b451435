# SPDX-License-Identifier: Apache-2.0
"""Running, stopping and being stopped: breakpoints, single steps, and who wants the machine to stand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from libmicrovmi_py.drivers.control import RUNS, STOPPED, RunState
from libmicrovmi_py.drivers.virtualbox import abi, hits, vcpus
from libmicrovmi_py.drivers.virtualbox.fdp import Machine
from libmicrovmi_py.errors import IoError, NotMappedError, NotSupportedError
from libmicrovmi_py.events import Breakpoints, EventAbilities, EventKind, Intercept, ReplyAction, Stands, Stop
from libmicrovmi_py.transport.deadline import Deadline

_LOOK = 0.001
"""Seconds between two looks whether the guest was stopped."""

_STEP = Intercept(EventKind.SINGLE_STEP)
_HIT = abi.PAUSED | abi.BREAKPOINT_HIT

ABILITIES = EventAbilities(
    kinds={
        EventKind.CR: frozenset({ReplyAction.CONTINUE}),
        EventKind.MSR: frozenset(ReplyAction),
        EventKind.BREAKPOINT: frozenset({ReplyAction.CONTINUE, ReplyAction.RETRY}),
        EventKind.SINGLE_STEP: frozenset({ReplyAction.CONTINUE, ReplyAction.RETRY}),
    },
    breakpoints=frozenset({Breakpoints.PLACED}),
    why_not="FDP tells neither which page was accessed, nor how: intercept BREAKPOINT or SINGLE_STEP",
    stands=Stands.MACHINE,
)
"""Of a machine of one vCPU. A write to a control register was done already when it is told."""

ABILITIES_OF_SEVERAL = EventAbilities(
    {}, why_not="FDP stops the first vCPU only: give the machine one CPU to intercept events"
)


class Stops:
    """The machine runs unless :meth:`stop` holds it, it stands at a stop that was told, or single steps are on.

    FDP stops the whole machine at a breakpoint, and at the same one again when it is let run, so an answer of CONTINUE
    executes the instruction by a single step first.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._lock = threading.Lock()
        self._armed: dict[Intercept, int] = {}
        self._held = False
        self._told: Stop | None = None
        self._step_over: bool | None = None

    # ---------------------------------------------------------------------------------------------------- run state

    def run_state(self) -> RunState:
        """As ``SupportsPause.run_state``; a machine that stands because of an event counts as running."""
        with self._lock:
            state = self._state()
            return RUNS if not state & abi.PAUSED or (not self._held and self._ours(state)) else STOPPED

    def stop(self) -> None:
        """As ``SupportsPause.stop``; one that stands because of an event stands for both reasons then."""
        with self._lock:
            if not self._state() & abi.PAUSED:
                self._machine.order("FDP_Pause")
            self._held = True

    def run(self, *, whoever: bool) -> None:
        """As ``SupportsPause.run``; at a stop, told or to be told, it runs after the answer.

        ``whoever`` also puts clients aside that died.
        """
        with self._lock:
            state = self._state()
            if whoever and state & abi.PAUSED and (state & _HIT == _HIT or not self._held):
                self._put_aside(state)
            self._held = False
            self._go()

    def _state(self) -> int:
        """The run state; a machine that runs is held by nobody, whoever let it run."""
        state = self._machine.state()
        if not state & abi.PAUSED:
            self._held, self._step_over = False, None
        return state

    def _ours(self, state: int) -> bool:
        """Whether a machine that stands does so because of an event, listened to or not."""
        if self._told is not None or self._step_over is not None or _STEP in self._armed:
            return True
        return state & _HIT == _HIT and hits.identify(self._machine, self._armed) is not None

    def _go(self) -> None:
        """Let the machine run if nobody wants it to stand; past the breakpoint of somebody else, too."""
        state = self._state()
        if not state & abi.PAUSED or self._held or self._told is not None or _STEP in self._armed:
            return
        step = self._step_over
        if step is None and (step := state & _HIT == _HIT) and hits.identify(self._machine, self._armed):
            return
        if step:
            self._machine.order("FDP_SingleStep", 0)
        self._step_over = None
        self._machine.order("FDP_Resume")

    def _put_aside(self, state: int) -> bool:
        """Remove the breakpoints of others from a machine that stands, and not by us, if no other client is there.

        Nobody is left then who would: they are of clients that died. Returns whether that was so.
        """
        if self._ours(state) or not self._machine.is_alone():
            return False
        ours = frozenset(self._armed.values())
        for number in range(abi.BREAKPOINTS):
            if number not in ours:
                self._machine.call("FDP_UnsetBreakpoint", number)
        return True

    @contextmanager
    def _standing(self) -> Iterator[None]:
        """A machine that stands, for VirtualBox removes breakpoints in no other; who stopped it may let it go."""
        state = self._state()
        ours = not state & abi.PAUSED or self._ours(state)
        if not state & abi.PAUSED:
            self._machine.order("FDP_Pause")
        self._held = self._held or not ours
        try:
            yield
        finally:
            if ours:
                self._go()

    # ------------------------------------------------------------------------------------------------------- arming

    def arm(self, intercept: Intercept, enabled: bool) -> None:
        """Place or remove what stops the guest at ``intercept``; the first puts clients aside that died at a stop."""
        with self._lock:
            if enabled == (intercept in self._armed):
                return
            if not self._armed and (state := self._state()) & _HIT == _HIT and self._put_aside(state):
                self._go()
            with self._standing():
                if enabled:
                    self._armed[intercept] = self._place(intercept)
                else:
                    self._remove(intercept)

    def _place(self, intercept: Intercept) -> int:
        if intercept == _STEP:
            return -1
        kind, access, address = _words(intercept)
        if intercept.kind is EventKind.BREAKPOINT and not self._machine.physical(address):
            raise NotMappedError(f"no memory at virtual address {address:#x}", address=address)
        place = (kind, -1, access, abi.VIRTUAL_ADDRESS, address, 1, 0)
        number = int(self._machine.call("FDP_SetBreakpoint", 0, *place))
        if number < 0:
            raise IoError(f"VirtualBox does not take a breakpoint for {intercept.kind.name} {address:#x}")
        return number

    def _remove(self, intercept: Intercept) -> None:
        """Two virtual addresses of one place share a breakpoint, which goes with the last; a reboot took it already."""
        number = self._armed[intercept]
        if number >= 0 and list(self._armed.values()).count(number) == 1:
            self._machine.call("FDP_UnsetBreakpoint", number)
        del self._armed[intercept]

    # -------------------------------------------------------------------------------------------------------- stops

    def poll(self, timeout: float) -> Stop | None:
        """As ``SupportsEvents.poll``. A look that follows another within a call costs no request."""
        deadline = Deadline(timeout)
        stop = self._look(ask=True)
        while stop is None and not deadline.expired:
            time.sleep(min(_LOOK, deadline.remaining))
            stop = self._look(ask=False)
        return stop

    def _look(self, *, ask: bool) -> Stop | None:
        with self._lock:
            if self._told is None and self._armed:
                self._told = self._single_step() if _STEP in self._armed else self._hit(ask=ask)
                return self._told
            return None

    def _single_step(self) -> Stop | None:
        if self._held:
            return None
        self._step_over = None
        self._machine.order("FDP_SingleStep", 0)
        return Stop(EventKind.SINGLE_STEP, 0, virtual_address=self._machine.register(0, abi.RIP))

    def _hit(self, *, ask: bool) -> Stop | None:
        if self._step_over is not None or not (ask or self._machine.call("FDP_GetStateChanged")):
            return None
        return hits.identify(self._machine, self._armed) if self._state() & _HIT == _HIT else None

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """As ``SupportsEvents.resume``."""
        with self._lock:
            rip = self._machine.register(0, abi.RIP)
            if registers is not None:
                vcpus.become(self._machine, registers)
            if action is ReplyAction.DENY:
                self._machine.order("FDP_WriteRegister", 0, abi.RIP, rip + stop.instruction_length)
            stays = self._machine.register(0, abi.RIP) == rip and stop.kind in (EventKind.BREAKPOINT, EventKind.MSR)
            self._told = None
            self._step_over = stays and action is ReplyAction.CONTINUE
            self._go()

    def end(self) -> None:
        """Let a machine go that stands at a stop which nobody knows of."""
        with self._lock:
            if self._told is not None:
                self._told = None
                self._go()


def _words(intercept: Intercept) -> tuple[int, int, int]:
    """FDP's type, access and address. Raises ``NotSupportedError`` for an MSR that FDP takes for something else."""
    kind, number = intercept.kind, intercept.number
    if kind is EventKind.BREAKPOINT:
        return abi.SOFT_BREAKPOINT, abi.EXECUTE, intercept.address
    if kind is EventKind.MSR and not number:
        raise NotSupportedError(f"FDP cannot stop at MSR {number:#x}: 0 stands for all of them")
    return (abi.MSR_BREAKPOINT if kind is EventKind.MSR else abi.CR_BREAKPOINT), abi.WRITE, number
