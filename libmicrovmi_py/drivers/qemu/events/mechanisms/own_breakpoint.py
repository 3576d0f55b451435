# SPDX-License-Identifier: Apache-2.0
"""Breakpoint instructions of the guest's own: a breakpoint at the handler of the exception that they raise.

The stack then has where the guest was. The event's addresses are those of the instruction; the vCPU, and what it has in
its registers, is at the handler's first instruction.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from libmicrovmi_py.arch.x86.interrupts import BREAKPOINT as VECTOR
from libmicrovmi_py.arch.x86.interrupts import FRAME_SIZE, GATE_SIZE, Frame, frame, handler
from libmicrovmi_py.arch.x86.registers import EFER_LMA
from libmicrovmi_py.drivers.qemu.events.codewatch import BRIEF, printed, read_up_to, space_of
from libmicrovmi_py.drivers.qemu.events.mechanism import Mechanism
from libmicrovmi_py.drivers.qemu.events.placing import HARDWARE_BREAKPOINT, Place
from libmicrovmi_py.drivers.qemu.events.run import Run
from libmicrovmi_py.drivers.qemu.events.stopped import Stopped
from libmicrovmi_py.errors import InvalidArgumentError, MicrovmiError, NotSupportedError, logger
from libmicrovmi_py.events import Breakpoints, EventAbilities, EventKind, Intercept, ReplyAction, Stop
from libmicrovmi_py.transport.deadline import limited

_log = logger(__name__)

_EVERY = 1.0
"""Seconds after which the tables of interrupts are looked at again."""

_LONG_FORM = b"\xcd\x03"
"""``int 3`` in two bytes, by which hardly anybody means a breakpoint."""


class OwnBreakpoints(Mechanism):
    """CONTINUE delivers the exception. RETRY undoes it: the vCPU is at the instruction again, on its own stack."""

    ABILITIES = EventAbilities(
        {EventKind.BREAKPOINT: frozenset((ReplyAction.CONTINUE, ReplyAction.RETRY))}, frozenset((Breakpoints.OWN,))
    )

    def __init__(self, machine: Run) -> None:
        super().__init__(machine)
        self._vcpus: frozenset[int] = frozenset()
        self._frames: dict[int, Frame] = {}  # of the vCPUs whose event is open
        self._due = 0.0

    def serves(self, intercept: Intercept) -> bool:
        """Those without an address."""
        return intercept.kind is EventKind.BREAKPOINT and not intercept.address

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """The handlers are those of the present moment, and are looked for again from time to time."""
        self.places = self._handlers() if vcpus else frozenset()
        self._vcpus = vcpus
        if vcpus and not self.places:
            self._vcpus = frozenset()
            raise NotSupportedError(
                "breakpoints of the guest's own: it handles none of them at present, in 64-bit mode"
            )

    def _handlers(self) -> frozenset[Place]:
        """Raises what the monitor raises."""
        self._due = time.monotonic() + _EVERY
        found = {self._handler(registers) for registers in printed(self.machine)}
        return frozenset(Place(HARDWARE_BREAKPOINT, address) for address in found if address)

    def _handler(self, registers: Mapping[str, int]) -> int | None:
        """Of a vCPU with these registers, if it has one that can be understood."""
        place = VECTOR * GATE_SIZE
        if not registers.get("efer", 0) & EFER_LMA or registers.get("idt_limit", 0) < place + GATE_SIZE - 1:
            return None
        return handler(self._read(registers, registers.get("idt_base", 0) + place, GATE_SIZE))

    def _read(self, registers: Mapping[str, int], address: int, size: int) -> bytes:
        if self.machine.memory is None:
            raise NotSupportedError("breakpoints of the guest's own: its memory is not known here")
        try:
            return read_up_to(space_of(self.machine.memory, registers), address & (1 << 64) - 1, size)
        except InvalidArgumentError:
            return b""

    def heard(self, stopped: Stopped) -> Iterable[Stop]:
        """Of each vCPU that stands at a handler."""
        return [*self._told(stopped)]

    def _told(self, stopped: Stopped) -> Iterator[Stop]:
        for vcpu, address in stopped.arrivals():
            if vcpu not in self._vcpus or Place(HARDWARE_BREAKPOINT, address) not in self.places:
                continue
            registers = stopped.registers(vcpu)
            found = frame(self._read(registers, registers["rsp"], FRAME_SIZE))
            self._frames.pop(vcpu, None)
            if found is None:
                _log.warning("a breakpoint of the guest's own on vCPU %d: its stack does not tell where", vcpu)
                yield Stop(EventKind.BREAKPOINT, vcpu, token=address, answers=frozenset((ReplyAction.CONTINUE,)))
                continue
            length = 2 if self._read(registers, found.rip - 2, 2) == _LONG_FORM else 1
            at = (found.rip - length) & (1 << 64) - 1
            self._frames[vcpu] = found._replace(rip=at)
            yield Stop(
                EventKind.BREAKPOINT,
                vcpu,
                virtual_address=at,
                instruction_length=length,
                instruction_pointer=address,
                token=address,
            )

    def answer(self, stop: Stop, action: ReplyAction) -> Mapping[str, int]:
        """What undoes the exception: the processor's own words of how it was before."""
        return self._frames[stop.vcpu]._asdict() if action is ReplyAction.RETRY else {}

    def idle(self) -> None:
        """Another table may have been loaded, or a gate written."""
        if self._vcpus and self.machine.runs and time.monotonic() >= self._due:
            self._due = time.monotonic() + _EVERY
            try:
                with limited(BRIEF):
                    places = self._handlers()
            except MicrovmiError as err:
                _log.warning("the guest's handlers of breakpoints are not looked at: %s", err)
            else:
                self.places = places if places and places != self.places else self.places


MECHANISM = OwnBreakpoints
