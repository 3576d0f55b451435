# SPDX-License-Identifier: Apache-2.0
"""What the vCPUs of a made-up machine do while somebody listens, so that every kind of event happens."""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from libmicrovmi_py.errors import InvalidArgumentError, NotSupportedError
from libmicrovmi_py.events import (
    ALL_VCPUS,
    UNKNOWN_ADDRESS,
    Event,
    EventKind,
    Intercept,
    PageAccess,
    Reply,
    ReplyAction,
)
from libmicrovmi_py.model import PAGE_SHIFT, X86Registers

CODE = 0x7C00
"""Where the program of the vCPUs is, guest-virtual and guest-physical; each instruction has 16 bytes of its own."""

CONTROL_REGISTERS = (0, 3, 4)
SYSENTER_CS = 0x174
MSRS = {SYSENTER_CS: "sysenter_cs", 0x175: "sysenter_esp", 0x176: "sysenter_eip"}
"""MSRs that the program writes, in turn, and where they are in the registers."""

_TOGGLED = {"cr0": 8, "cr4": 4}
"""Bits that the program turns: TS and TSD."""

_REST = 0.01
"""Seconds between two looks at a machine that is stopped, or of which nothing is intercepted."""


@dataclass(slots=True)
class _Vcpu:
    number: int
    registers: X86Registers
    program: Iterator[Event]
    open: Event | None = None
    """What it is stopped at."""
    again: Event | None = None
    """What it does once more, after a RETRY."""
    stepped: bool = False
    """Whether it executed an instruction that was not reported as a step yet."""


class PlayedGuest:
    """The vCPUs, each of which executes the same endless program, an instruction at a time, while it is listened to.

    It writes CR0 (TS on and off), CR3 (0x1000 and 0x2000 in turn), CR4 (TSD on and off) and the SYSENTER MSRs (a
    counter), executes a breakpoint instruction, comes by every breakpoint that was placed, and accesses every page of
    which an access was taken in just that way. It leaves memory as it is.
    """

    def __init__(self, registers: list[X86Registers], exists: Callable[[int], bool]) -> None:
        self._vcpus = [_Vcpu(number, item, self._program(number)) for number, item in enumerate(registers)]
        self._exists = exists
        self._lock = threading.RLock()
        self._ids = itertools.count(1)
        self._intercepts: dict[int, set[Intercept]] = {}
        self._accesses: dict[int, PageAccess] = {}
        self.running = True

    def registers(self, vcpu: int) -> X86Registers:
        """A copy of a vCPU's registers."""
        with self._lock:
            return copy.deepcopy(self._vcpus[vcpu].registers)

    def set_registers(self, vcpu: int, registers: X86Registers) -> None:
        """Make a copy of ``registers`` the vCPU's."""
        with self._lock:
            self._vcpus[vcpu].registers = copy.deepcopy(registers)

    def access(self, frame: int) -> PageAccess:
        """How a page may be accessed."""
        return self._accesses.get(frame, PageAccess.ALL)

    def set_access(self, frame: int, access: PageAccess) -> None:
        """Allow ``access`` to a page, and no other."""
        with self._lock:
            self._accesses[frame] = access

    # ------------------------------------------------------------------------------------------------- the program

    def _program(self, vcpu: int) -> Iterator[Event]:
        for turn in itertools.count():
            for step, event in enumerate(self._turn(turn)):
                yield replace(event, vcpu=vcpu, virtual_address=self._at(event, step))

    @staticmethod
    def _at(event: Event, step: int) -> int:
        """The address an event tells: of the memory, or of the instruction."""
        return event.virtual_address if event.virtual_address != UNKNOWN_ADDRESS else CODE + 16 * step

    def _turn(self, turn: int) -> Iterator[Event]:
        """What is done in one turn; :meth:`_step` fills in what depends on the registers."""
        for number in CONTROL_REGISTERS:
            yield Event(0, EventKind.CR, 0, number=number, new_value=0x1000 << turn % 2)
        for number in MSRS:
            yield Event(0, EventKind.MSR, 0, number=number, new_value=turn & 0xFFFF)
        yield Event(0, EventKind.BREAKPOINT, 0, instruction_length=1)
        for address in sorted({item.address for item in self._all_intercepts() if item.address}):
            yield Event(0, EventKind.BREAKPOINT, 0, virtual_address=address, instruction_length=1)
        for frame, allowed in sorted(self._accesses.items()):
            for access in (PageAccess.READ, PageAccess.WRITE, PageAccess.EXECUTE):
                if access not in allowed:
                    place = frame << PAGE_SHIFT
                    yield Event(0, EventKind.PAGE_ACCESS, 0, virtual_address=place, access=access)

    def _all_intercepts(self) -> set[Intercept]:
        return set().union(*self._intercepts.values())

    # -------------------------------------------------------------------------------------------------- listening

    def toggle(self, vcpu: int, intercept: Intercept, enabled: bool) -> None:
        """As ``SupportsEvents.toggle_intercept``."""
        if vcpu != ALL_VCPUS and vcpu >= len(self._vcpus):
            raise InvalidArgumentError(f"no vCPU {vcpu}: the machine has {len(self._vcpus)}, counted from 0")
        if intercept.kind is EventKind.CR and intercept.number not in CONTROL_REGISTERS:
            raise InvalidArgumentError(f"control register {intercept.number} cannot be intercepted: 0, 3 and 4 can")
        with self._lock:
            for number in range(len(self._vcpus)) if vcpu == ALL_VCPUS else [vcpu]:
                items = self._intercepts.setdefault(number, set())
                items.add(intercept) if enabled else items.discard(intercept)

    def listen(self, timeout: float) -> Event | None:
        """As ``SupportsEvents.listen``."""
        end = time.monotonic() + timeout
        while True:
            with self._lock:
                event = self._run() if self.running else None
            left = end - time.monotonic()
            if event is not None or left <= 0:
                return event
            time.sleep(min(left, _REST))

    def _run(self) -> Event | None:
        """Let every vCPU that is not stopped execute a turn, until one has to be reported."""
        for number, vcpu in enumerate(self._vcpus):
            wanted = self._intercepts.get(number, ())
            for _ in range(64 if wanted and vcpu.open is None else 0):
                event = self._step(vcpu, EventKind.SINGLE_STEP in {item.kind for item in wanted})
                if event.kind is EventKind.SINGLE_STEP or self._is_wanted(event, wanted):
                    vcpu.open = replace(event, id=next(self._ids), physical_address=self._physical(event))
                    return vcpu.open
                self._do(vcpu, event)
        return None

    def _step(self, vcpu: _Vcpu, single: bool) -> Event:
        """What happens next on a vCPU: the report of a step, or the next instruction."""
        if single and vcpu.stepped:
            vcpu.stepped = False
            return Event(0, EventKind.SINGLE_STEP, vcpu.number, virtual_address=vcpu.registers.rip)
        event, vcpu.again = vcpu.again or next(vcpu.program), None
        if event.kind is not EventKind.PAGE_ACCESS:
            vcpu.registers.rip = event.virtual_address
        name = _name(event)
        if not name:
            return event
        old = getattr(vcpu.registers, name)
        return replace(event, old_value=old, new_value=old ^ _TOGGLED[name] if name in _TOGGLED else event.new_value)

    @staticmethod
    def _is_wanted(event: Event, wanted: set[Intercept] | tuple[()]) -> bool:
        if event.kind is EventKind.BREAKPOINT:
            placed = Intercept(event.kind, address=event.virtual_address)
            own = CODE <= event.virtual_address < CODE + 0x200
            return placed in wanted or (own and Intercept(event.kind) in wanted)
        return Intercept(event.kind, event.number) in wanted

    def _physical(self, event: Event) -> int:
        """The program maps every address to itself, as far as there is memory."""
        exists = self._exists(event.virtual_address >> PAGE_SHIFT)
        return event.virtual_address if exists else UNKNOWN_ADDRESS

    @staticmethod
    def _do(vcpu: _Vcpu, event: Event) -> None:
        if _name(event):
            setattr(vcpu.registers, _name(event), event.new_value)
        vcpu.stepped = event.kind is not EventKind.SINGLE_STEP

    # -------------------------------------------------------------------------------------------------- answering

    def reply(self, event: Event, reply: Reply) -> None:
        """As ``SupportsEvents.reply_event``."""
        with self._lock:
            vcpu = self._vcpus[event.vcpu]
            if vcpu.open is None or vcpu.open.id != event.id:
                raise InvalidArgumentError(f"event {event.id} is not open")
            if reply.action is ReplyAction.DENY and not _name(event):
                raise NotSupportedError(f"an event of kind {event.kind.name} cannot be denied")
            before, vcpu.open = vcpu.registers.rip, None
            if reply.registers is not None:
                vcpu.registers = copy.deepcopy(reply.registers)
            if reply.action is ReplyAction.CONTINUE:
                self._do(vcpu, event)
            elif reply.action is ReplyAction.RETRY and vcpu.registers.rip == before and self._still(event):
                vcpu.again = None if event.kind is EventKind.SINGLE_STEP else event

    def _still(self, event: Event) -> bool:
        """Whether what stopped the vCPU is still so."""
        page = event.virtual_address >> PAGE_SHIFT
        return event.kind is not EventKind.PAGE_ACCESS or event.access not in self.access(page)

    def release(self) -> None:
        """As ``SupportsEvents.release_events``."""
        with self._lock:
            self._intercepts.clear()
            self._accesses.clear()
            for vcpu in self._vcpus:
                if vcpu.open is not None:
                    self.reply(vcpu.open, Reply())


def _name(event: Event) -> str:
    """Which register an event writes, "" for none."""
    if event.kind is EventKind.CR:
        return f"cr{event.number}"
    return MSRS.get(event.number, "") if event.kind is EventKind.MSR else ""
