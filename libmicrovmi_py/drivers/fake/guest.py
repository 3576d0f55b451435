# SPDX-License-Identifier: Apache-2.0
"""What the vCPUs of a made-up machine do while somebody listens, so that every kind of event happens."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from libmicrovmi_py.arch.state import changes
from libmicrovmi_py.arch.x86 import msrs
from libmicrovmi_py.arch.x86.instructions import INT3
from libmicrovmi_py.arch.x86.registers import CR0_TS, CR4_TSD, INTERCEPTED_CONTROL
from libmicrovmi_py.declare import dataclass, replace
from libmicrovmi_py.events import (
    UNKNOWN_ADDRESS,
    UNKNOWN_VCPU,
    Breakpoints,
    EventAbilities,
    EventKind,
    Intercept,
    InterceptFlag,
    PageAccess,
    ReplyAction,
    Stop,
)
from libmicrovmi_py.model import PAGE_SHIFT

CODE = 0x7C00
"""Where the program of the vCPUs is, guest-virtual and guest-physical; each instruction has 16 bytes of its own."""

_NOT_DENIED = frozenset((ReplyAction.CONTINUE, ReplyAction.RETRY))
_DONE = frozenset((ReplyAction.CONTINUE,))


ABILITIES = EventAbilities(
    {
        EventKind.CR: frozenset(ReplyAction),
        EventKind.MSR: frozenset(ReplyAction),
        EventKind.BREAKPOINT: _NOT_DENIED,
        EventKind.PAGE_ACCESS: _NOT_DENIED,
        EventKind.SINGLE_STEP: _NOT_DENIED,
        EventKind.VIRTUAL_ACCESS: _NOT_DENIED,
    },
    frozenset(Breakpoints),
    flags={
        EventKind.CR: InterceptFlag.EVERY_WRITE | InterceptFlag.OBSERVE,
        EventKind.BREAKPOINT: InterceptFlag.HARDWARE,
    },
    implied=InterceptFlag.EVERY_WRITE | InterceptFlag.HARDWARE,
)

MSRS = {msrs.INDEXES[name]: name for name in ("sysenter_cs", "sysenter_esp", "sysenter_eip")}
"""MSRs that the program writes, in turn, and where they are in the registers."""

_TOGGLED = {"cr0": CR0_TS, "cr4": CR4_TSD}
"""Bits that the program turns: TS and TSD."""

_STEP = Intercept(EventKind.SINGLE_STEP)

_REST = 0.01
"""Seconds between two looks at a machine that is stopped, or of which nothing is intercepted."""


@dataclass(slots=True)
class _Vcpu:
    number: int
    values: dict[str, int]
    """Its registers, those that are known."""
    program: Iterator[Stop]
    stands: bool = False
    again: Stop | None = None
    """What it does once more, after a RETRY."""
    stepped: bool = False
    """Whether it executed an instruction that was not reported as a step yet."""


class FakeVcpus:
    """The vCPUs, each of which executes the same endless program, an instruction at a time, while it is listened to.

    It writes CR0 (TS on and off), CR3 (0x1000 and 0x2000 in turn), CR4 (TSD on and off) and the SYSENTER MSRs (a
    counter), executes a breakpoint instruction, comes by every breakpoint that was placed, accesses every page of
    which an access was taken in just that way, and the first byte of every range whose accesses are told of. It leaves
    memory as it is.
    """

    def __init__(self, states: Sequence[Mapping[str, int]], exists: Callable[[int], bool]) -> None:
        self._vcpus = [_Vcpu(number, dict(item), self._program(number)) for number, item in enumerate(states)]
        self._exists = exists
        self._lock = threading.Lock()
        self._armed: dict[Intercept, frozenset[int]] = {}
        self._accesses: dict[int, PageAccess] = {}
        self._seen: deque[Stop] = deque()  # by who observes, and not told yet
        self._held = False
        self.running = True

    def values(self, vcpu: int) -> dict[str, int]:
        """A copy of a vCPU's registers."""
        with self._lock:
            return dict(self._vcpus[vcpu].values)

    def write(self, vcpu: int, values: Mapping[str, int]) -> None:
        """Change some of a vCPU's registers."""
        with self._lock:
            self._vcpus[vcpu].values.update(values)

    def access(self, frame: int) -> PageAccess:
        """How a page may be accessed."""
        return self._accesses.get(frame, PageAccess.ALL)

    def set_access(self, frame: int, access: PageAccess) -> None:
        """Allow ``access`` to a page, and no other."""
        with self._lock:
            self._accesses[frame] = access
            if access == PageAccess.ALL:
                del self._accesses[frame]

    # ------------------------------------------------------------------------------------------------- the program

    def _program(self, vcpu: int) -> Iterator[Stop]:
        for turn in itertools.count():
            for step, stop in enumerate(self._turn(vcpu, turn)):
                at, where = CODE + 16 * step, stop.virtual_address
                if where == UNKNOWN_ADDRESS:
                    where = at
                elif stop.access:
                    at = _after(stop, at)
                else:
                    at = where
                yield replace(stop, virtual_address=where, instruction_pointer=at)

    def _turn(self, vcpu: int, turn: int) -> Iterator[Stop]:
        """What is done in one turn; :meth:`_step` fills in what depends on the registers."""
        for number in INTERCEPTED_CONTROL:
            yield Stop(EventKind.CR, vcpu, number=number, new_value=0x1000 << turn % 2)
        for number in MSRS:
            yield Stop(EventKind.MSR, vcpu, number=number, new_value=turn & 0xFFFF)
        own = Stop(EventKind.BREAKPOINT, vcpu, instruction_length=len(INT3))
        yield own
        for address in sorted({item.address for item in self._placed(EventKind.BREAKPOINT) if item.address}):
            yield replace(own, virtual_address=address, placed_at=address)
        for frame, allowed in sorted(self._accesses.items()):
            for access in (PageAccess.READ, PageAccess.WRITE, PageAccess.EXECUTE):
                if access not in allowed:
                    yield Stop(EventKind.PAGE_ACCESS, vcpu, virtual_address=frame << PAGE_SHIFT, access=access)
        for item in self._placed(EventKind.VIRTUAL_ACCESS):
            for access in (PageAccess.READ, PageAccess.WRITE, PageAccess.EXECUTE):
                if access in item.access:
                    answers = _NOT_DENIED if access is PageAccess.EXECUTE else _DONE
                    done = Stop(EventKind.VIRTUAL_ACCESS, vcpu, virtual_address=item.address, access=access)
                    yield replace(done, told_by=item, answers=answers)

    def _placed(self, kind: EventKind) -> list[Intercept]:
        """Those that are armed, in the order of their addresses."""
        return sorted((item for item in self._armed if item.kind is kind), key=lambda item: (item.address, item.size))

    # --------------------------------------------------------------------------------------------------- its stops

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """As ``SupportsEvents.arm``."""
        with self._lock:
            self._armed[intercept] = vcpus
            if not vcpus:
                del self._armed[intercept]
                self._seen = deque(stop for stop in self._seen if stop.intercept != intercept)

    def poll(self, timeout: float) -> Stop | None:
        """As ``SupportsEvents.poll``."""
        end = time.monotonic() + timeout
        while True:
            with self._lock:
                stop = self._run() if self.running and not self._held else None
            left = end - time.monotonic()
            if stop is not None or left <= 0:
                return stop
            time.sleep(min(left, _REST))

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """As ``SupportsEvents.quiet``."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def _run(self) -> Stop | None:
        """Let every vCPU that does not stand execute a turn, until something has to be reported."""
        for vcpu in self._vcpus:
            armed = {item for item, vcpus in self._armed.items() if vcpu.number in vcpus}
            for _ in range(64 if armed and not vcpu.stands else 0):
                if self._seen:
                    break
                stop = self._step(vcpu, _STEP in armed)
                if stop.intercept in armed:
                    vcpu.stands = True
                    return self._told(stop)
                self._do(vcpu, stop)
        return self._seen.popleft() if self._seen else None

    def _step(self, vcpu: _Vcpu, single: bool) -> Stop:
        """What happens next on a vCPU: the report of a step, or the next instruction."""
        if single and vcpu.stepped:
            vcpu.stepped = False
            at = vcpu.values["rip"]
            return Stop(EventKind.SINGLE_STEP, vcpu.number, virtual_address=at, instruction_pointer=at)
        stop, vcpu.again = vcpu.again or next(vcpu.program), None
        vcpu.values["rip"] = stop.instruction_pointer
        name = _name(stop)
        if not name:
            return stop
        old = vcpu.values.get(name, 0)
        return replace(stop, old_value=old, new_value=old ^ _TOGGLED[name] if name in _TOGGLED else stop.new_value)

    def _told(self, stop: Stop) -> Stop:
        """What is told of it. The program maps every address to itself, as far as there is memory."""
        if _name(stop):
            return replace(stop, virtual_address=UNKNOWN_ADDRESS, token=stop)
        exists = self._exists(stop.virtual_address >> PAGE_SHIFT)
        return replace(stop, physical_address=stop.virtual_address if exists else UNKNOWN_ADDRESS, token=stop)

    def _do(self, vcpu: _Vcpu, stop: Stop) -> None:
        if _name(stop):
            vcpu.values[_name(stop)] = stop.new_value
        vcpu.stepped = stop.kind is not EventKind.SINGLE_STEP
        seer = replace(stop.intercept, flags=InterceptFlag.OBSERVE)
        if seer in self._armed:
            done = Stop(stop.kind, UNKNOWN_VCPU, stop.number, new_value=stop.new_value, told_by=seer, waits=False)
            self._seen.append(done)

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """As ``SupportsEvents.resume``."""
        assert isinstance(stop.token, Stop)
        with self._lock:
            vcpu, stop = self._vcpus[stop.vcpu], stop.token
            before, vcpu.stands = vcpu.values.get("rip"), False
            if registers is not None:
                vcpu.values.update(changes(registers, vcpu.values))
            if action is ReplyAction.CONTINUE:
                self._do(vcpu, stop)
            elif action is ReplyAction.RETRY and vcpu.values.get("rip") == before and self._still(stop):
                vcpu.again = None if stop.kind is EventKind.SINGLE_STEP else stop

    def left(self) -> int:
        """How much is armed, taken from pages, or stands."""
        with self._lock:
            return len(self._armed) + len(self._accesses) + sum(vcpu.stands for vcpu in self._vcpus)

    def _still(self, stop: Stop) -> bool:
        """Whether what stopped the vCPU is still so."""
        page = stop.virtual_address >> PAGE_SHIFT
        return stop.kind is not EventKind.PAGE_ACCESS or stop.access not in self.access(page)


def _after(stop: Stop, at: int) -> int:
    """Where a vCPU stands that accessed memory by the instruction at ``at``: a range's data are told of afterwards."""
    if stop.kind is EventKind.PAGE_ACCESS:
        return at
    return stop.virtual_address if stop.access is PageAccess.EXECUTE else at + 16


def _name(stop: Stop) -> str:
    """Which register a stop writes, "" for none."""
    if stop.kind is EventKind.CR:
        return f"cr{stop.number}"
    return MSRS.get(stop.number, "") if stop.kind is EventKind.MSR else ""
