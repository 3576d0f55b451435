# SPDX-License-Identifier: Apache-2.0
"""Running, stopping and being stopped: breakpoints, single steps, and who wants the machine to stand."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.drivers.base import RUNS, STOPPED, RunState
from libmicrovmi_py.drivers.virtualbox import abi, hits, registers
from libmicrovmi_py.drivers.virtualbox.machine import Machine
from libmicrovmi_py.errors import InvalidArgumentError, IoError, NotMappedError, NotSupportedError
from libmicrovmi_py.events import Event, EventKind, Intercept, Reply, ReplyAction
from libmicrovmi_py.transport.deadline import Deadline

_LOOK = 0.001
"""Seconds between two looks whether the guest was stopped."""

_STEP = Intercept(EventKind.SINGLE_STEP)
_HIT = abi.PAUSED | abi.BREAKPOINT_HIT
_CONTROL_REGISTERS = (0, 3, 4)


class Debugger:
    """The machine runs unless :meth:`pause` holds it, an event is open or single steps are on.

    FDP stops the whole machine at a breakpoint, and at the same one again when it is let run, so an answer of CONTINUE
    executes the instruction by a single step first.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._lock = threading.Lock()
        self._armed: dict[Intercept, int] = {}
        self._held = False
        self._open: Event | None = None
        self._step_over: bool | None = None
        self._ids = itertools.count(1)

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

    def run(self) -> None:
        """As ``SupportsPause.run``; with an event open, or one to be listened to, it runs after the answer."""
        with self._lock:
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
        if self._open is not None or self._step_over is not None or _STEP in self._armed:
            return True
        return state & _HIT == _HIT and hits.identify(self._machine, self._armed) is not None

    def _go(self) -> None:
        """Let the machine run if nobody wants it to stand; past the breakpoint of somebody else, too."""
        state = self._state()
        if not state & abi.PAUSED or self._held or self._open is not None or _STEP in self._armed:
            return
        step = self._step_over
        if step is None and (step := state & _HIT == _HIT) and hits.identify(self._machine, self._armed):
            return
        if step:
            self._machine.order("FDP_SingleStep", 0)
        self._step_over = None
        self._machine.order("FDP_Resume")

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

    # --------------------------------------------------------------------------------------------------- intercepts

    def toggle(self, intercept: Intercept, enabled: bool) -> None:
        """Place or remove what stops the guest at ``intercept``."""
        with self._lock:
            _check(intercept)
            if self._machine.vcpus > 1:
                raise NotSupportedError("FDP stops the first vCPU only: give the machine one CPU to intercept events")
            if enabled == (intercept in self._armed):
                return
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
        number = self._armed.pop(intercept)
        if number >= 0 and number not in self._armed.values():
            self._machine.call("FDP_UnsetBreakpoint", number)

    # ------------------------------------------------------------------------------------------------------- events

    def listen(self, timeout: float) -> Event | None:
        """As ``SupportsEvents.listen``. A look that follows another within a call costs no request."""
        deadline = Deadline(timeout)
        event = self._look(ask=True)
        while event is None and not deadline.expired:
            time.sleep(min(_LOOK, deadline.remaining))
            event = self._look(ask=False)
        return event

    def _look(self, *, ask: bool) -> Event | None:
        with self._lock:
            if self._open is not None or not self._armed:
                return None
            if _STEP in self._armed:
                return None if self._held else self._single_step()
            if self._step_over is not None or not (ask or self._machine.call("FDP_GetStateChanged")):
                return None
            if self._state() & _HIT != _HIT:
                return None
            hit = hits.identify(self._machine, self._armed)
            return self._opened(hit) if hit else None

    def _single_step(self) -> Event:
        self._step_over = None
        self._machine.order("FDP_SingleStep", 0)
        rip = self._machine.register(0, abi.RIP)
        return self._opened(hits.Hit(EventKind.SINGLE_STEP, virtual_address=rip))

    def _opened(self, hit: hits.Hit) -> Event:
        self._open = Event(id=next(self._ids), vcpu=0, **hit._asdict())
        return self._open

    def reply(self, event: Event, reply: Reply) -> None:
        """As ``SupportsEvents.reply_event``."""
        with self._lock:
            if self._open is None or event.id != self._open.id:
                raise InvalidArgumentError(f"event {event.id} is not open (any more)")
            kind, rip = self._open.kind, self._machine.register(0, abi.RIP)
            _check_reply(kind, reply.action)
            if reply.registers is not None:
                registers.write(self._machine, reply.registers)
            if reply.action is ReplyAction.DENY:
                self._machine.order("FDP_WriteRegister", 0, abi.RIP, rip + self._open.instruction_length)
            stays = self._machine.register(0, abi.RIP) == rip and kind in (EventKind.BREAKPOINT, EventKind.MSR)
            self._open = None
            self._step_over = stays and reply.action is ReplyAction.CONTINUE
            self._go()

    def release(self) -> None:
        """As ``SupportsEvents.release_events``."""
        with self._lock:
            if not self._armed and self._open is None and self._step_over is None:
                return
            with self._standing():
                self._open = None
                for intercept in list(self._armed):
                    self._remove(intercept)


def _words(intercept: Intercept) -> tuple[int, int, int]:
    """FDP's type, access and address."""
    if intercept.kind is EventKind.BREAKPOINT:
        return abi.SOFT_BREAKPOINT, abi.EXECUTE, intercept.address
    return (abi.MSR_BREAKPOINT if intercept.kind is EventKind.MSR else abi.CR_BREAKPOINT), abi.WRITE, intercept.number


def _check(intercept: Intercept) -> None:
    kind, number = intercept.kind, intercept.number
    if kind is EventKind.PAGE_ACCESS:
        raise NotSupportedError("FDP does not tell which page was accessed, or how")
    if kind is EventKind.BREAKPOINT and not intercept.address:
        raise NotSupportedError("FDP stops at breakpoints that it placed: name an address")
    if kind is EventKind.CR and number not in _CONTROL_REGISTERS:
        raise InvalidArgumentError(f"CR{number} cannot be intercepted: CR0, CR3 and CR4 can")
    if kind is EventKind.MSR and not 0 < number <= 0xFFFFFFFF:
        raise NotSupportedError(f"FDP cannot stop at MSR {number:#x}: 0 stands for all of them")


def _check_reply(kind: EventKind, action: ReplyAction) -> None:
    if action is ReplyAction.DENY and kind is not EventKind.MSR:
        raise NotSupportedError(f"FDP cannot deny a {kind.name} event: what it tells of was done, or cannot be skipped")
    if action is ReplyAction.RETRY and kind is EventKind.CR:
        raise NotSupportedError("FDP cannot have a write to a control register done again: it was done already")
