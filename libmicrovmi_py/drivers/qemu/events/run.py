# SPDX-License-Identifier: Apache-2.0
"""Letting the machine go on, stopping it, and moving one vCPU alone; what mechanisms can do to it while it stands.

QEMU calls the machine running as soon as one vCPU was let go alone, and no order to continue then lets go of the
others. So one that is stepped alone is always stopped again, whatever happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.qemu.events.codewatch import CodeWatch
from libmicrovmi_py.drivers.qemu.events.link import Link
from libmicrovmi_py.drivers.qemu.events.placing import BREAKPOINT, Place, Places
from libmicrovmi_py.drivers.qemu.events.stopped import OVER, Packet, Stopped, parsed
from libmicrovmi_py.drivers.qemu.events.values import Told, Values
from libmicrovmi_py.drivers.qemu.events.watched import Watched
from libmicrovmi_py.drivers.qemu.infotext import by_vcpu
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.transport.packets import Plan, Quiet
from libmicrovmi_py.transport.qmp import QmpClient

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.guestmemory import GuestMemory
    from libmicrovmi_py.drivers.qemu.events.mechanism import Unchanged

_GO = "vCont;c"

_STEP = (0.1, 0.5, 2.0)
"""Seconds that a vCPU gets to execute one instruction, in turn: what was under way when it was stopped may stop it
again before it moves, and one that sleeps does not move."""

_REST, _MOMENT = 8, 0.02
"""How often at the most, besides once a vCPU, and for how many seconds the machine is let run at the end."""

_TURN = 0.1
"""Seconds that a vCPU gets for its step while others wait for theirs."""


class Run:
    """The machine, as long as the stub is open. vCPUs have our numbers, but where the stub's are named."""

    def __init__(
        self,
        link: Link,
        indexes: list[int],
        watched: Watched,
        client: Callable[[], AbstractContextManager[QmpClient]],
        memory: GuestMemory | None,
    ) -> None:
        """``indexes`` are QEMU's numbers of the vCPUs."""
        self.client = client
        """A session at the monitor; not for each stop, as it takes longer than one."""
        self.memory = memory
        self.code = CodeWatch(self)
        self.vcpus = range(len(indexes))
        self.runs = False
        """As far as the stub has told."""
        self.steps: frozenset[int] = frozenset()
        """The vCPUs that are stepped."""
        self.places = Places(link)
        self.later: list[Stopped] = []
        """Stops that came while something else was done, which nobody was told of."""
        self._link = link
        self._watched = watched
        self._values = Values(link)
        self._all = self._plan = Plan(("g",))  # all stops are heard of; and those that are at present
        self._unchanged: Unchanged | None = None
        self._passing = self._all
        self._indexes = indexes
        self._by_number = {index + 1: vcpu for vcpu, index in enumerate(indexes)}
        self._turn: int | None = None  # the vCPU that was let go on for one instruction
        self._turned: int | None = None  # the same, until it is known whether it did
        self._turn_ends: float | None = None
        self._began: Told | None = None  # its registers then
        self._marked: set[int] = set()  # vCPUs that QEMU may still stop after their next instruction

    def number(self, vcpu: int) -> int:
        """The stub's number of a vCPU."""
        return self._indexes[vcpu] + 1

    # ------------------------------------------------------------------------------------------ while it stands

    def registers(self, vcpu: int) -> Told:
        """What the stub tells of a vCPU."""
        return self._values.read(self.number(vcpu))

    def cr3(self, vcpu: int) -> int:
        """That register alone, which may be known already."""
        return self._values.cr3(self.number(vcpu))

    def write(self, vcpu: int, values: Mapping[str, int]) -> None:
        """Make these the registers of a vCPU, as far as the stub takes them."""
        self._values.write(self.number(vcpu), values)

    def write_exactly(self, vcpu: int, values: Mapping[str, int]) -> None:
        """As :meth:`write`. Raises ``NotSupportedError`` for a value that is not taken: all are as they were then."""
        before = dict(self.registers(vcpu))
        if missing := [name for name in values if name not in before]:
            raise NotSupportedError(f"{', '.join(missing)}: cannot be written while events are listened to")
        self.write(vcpu, values)
        after = self.registers(vcpu)
        if unlike := [name for name in values if after[name] != values[name]]:
            self.write(vcpu, {name: before[name] for name in values})
            raise NotSupportedError(f"{', '.join(unlike)}: the vCPU does not take that value, and is as it was")

    def step(self, vcpu: int) -> bool:
        """Have a vCPU execute one instruction while no other moves, past what is placed there; ``False``: it sleeps.

        No data is watched meanwhile: a locked instruction that is executed alone beside what is watched may leave a
        lock behind that nobody holds. One that is known to touch no memory is not kept waiting for that.
        """
        instruction = self.code.at(self.registers(vcpu)) if self.places.watches else None
        if instruction is not None and instruction.operand is None:
            return self._step(vcpu)
        with self.places.no_data():
            return self._step(vcpu)

    def _step(self, vcpu: int) -> bool:
        before = self.registers(vcpu)
        for seconds in _STEP:
            self._alone(vcpu, "s", seconds)
            if not self.registers(vcpu).is_same(before):
                return True
            if vcpu in self._asleep():
                break
        return False

    def _asleep(self) -> set[int]:
        """The vCPUs that execute nothing until they are woken."""
        parts = by_vcpu(self._link.human("info registers -a"))
        return {vcpu for vcpu, index in enumerate(self._indexes) if "HLT=1" in parts.get(index, "")}

    def probe(self, vcpu: int, seconds: float = _STEP[-1]) -> None:
        """Have QEMU tell of an access of this vCPU that it has not told, as another's was told in that moment.

        It is let go alone, for so long at the most, to a breakpoint at the instruction that it stands at.
        """
        place = Place(BREAKPOINT, self.registers(vcpu)["rip"])
        placed = place.address in self.places.instructions
        if not placed:
            self._link.order(f"Z{place.packet}")
        try:
            self._alone(vcpu, "c", seconds)
        finally:
            if not placed:
                self._link.order(f"z{place.packet}")

    def _alone(self, vcpu: int, how: str, seconds: float) -> None:
        """What another vCPU came to before it was stopped may be told in place of what this one does."""
        number, packet = self.number(vcpu), None
        if how == "s":
            self._marked.add(vcpu)
        self._link.order(f"Hc{number:x}")  # QEMU then ends the stepping of this one, whatever stops it
        self._link.forget_stops()  # somebody may have let it run, and that question stopped it
        self.runs = True
        self._link.go(f"vCont;{how}:{number:x}")
        try:
            packet = self._link.stop_told(seconds)
        finally:
            if packet is None:
                self._watched.interrupted(True)
                self._link.interrupt()  # if the wait was broken off, who comes next takes the stop in
        told = self._standing(packet or self._link.await_stop())
        if told.reason or (packet is not None and not told.trapped):  # that, or somebody stopped the machine
            registers = {each: self.registers(each) for each in self.vcpus}
            self.later.append(Stopped(told, self._by_number[told.number], frozenset(), registers.__getitem__))

    def lead_over(self, vcpu: int) -> None:
        """Have a vCPU execute what it stands at; that is a stop of its own."""
        self.step(vcpu)
        self.later.append(Stopped(Packet(False, self.number(vcpu), OVER), vcpu, frozenset(), self.registers, ours=True))

    def find_untold(self) -> None:
        """The machine stands at what is placed, and QEMU has not told: that is told later."""
        self.stand()
        for vcpu in self.vcpus:
            if self.registers(vcpu)["rip"] in self.places.instructions:
                told = Packet(True, self.number(vcpu), "")
                self.later.append(Stopped(told, vcpu, frozenset(), self.registers))

    def calm(self) -> None:
        """As :meth:`drain`, of a machine that has to stand: what QEMU has yet to stop for does not come when somebody
        lets it run. A vCPU executes one instruction for that at the most, with nothing placed, and no other moves.
        """
        for vcpu in sorted(self._marked):
            self.probe(vcpu, _TURN)
        self._marked.clear()

    def drain(self) -> bool:
        """Let the machine run a moment, with nothing placed, so that what QEMU has yet to stop for comes now and not
        when nobody is there any more; whether nobody else stopped it meanwhile.

        No vCPU is stepped for that: one that executes a locked instruction alone, beside what is watched, may leave a
        lock behind that nobody holds.
        """
        for _ in range(_REST + len(self.vcpus)):
            marked = min(self._marked, default=0)
            self._link.order(f"Hc{self.number(marked):x}")  # QEMU ends the stepping of this one, whatever stops it
            self._link.forget_stops()
            self.runs = True
            self._link.go(_GO)
            self._watched.interrupted(False)
            packet = self._link.stop_told(_MOMENT)
            if packet is None:
                self._watched.interrupted(True)
                self._link.interrupt()
            told = self._standing(packet or self._link.await_stop())
            if packet is not None and not told.trapped:
                return False
            if packet is None and not self._marked:
                break
        return True

    # ----------------------------------------------------------------------------------- going on, and stopping

    def pass_over(self, unchanged: Unchanged | None) -> None:
        """From the next :meth:`go` on the machine does not stand for these stops, as long as no vCPU is stepped."""
        if unchanged is self._unchanged:
            return
        self._unchanged, self._passing = unchanged, self._all
        if unchanged:
            questions = ("g", *self._values.cr3_questions(map(self.number, self.vcpus)))
            quiet = Quiet(sorted(unchanged.addresses), unchanged.mask, first=2)
            self._passing = Plan(questions, _GO, quiet, len(self.vcpus))

    def _planned(self) -> Plan:
        """What is done at the next stop, with a machine that is let go on."""
        if self._unchanged is None or self.steps:
            return self._all
        for vcpu, value in self._unchanged.values.items():
            self._passing.known[vcpu] = value
        return self._passing

    def go(self) -> None:
        """Let all vCPUs run; of ``steps`` one, in turn, for one instruction: QEMU would not tell of two at a time."""
        steps = self.steps
        self._turn = self._turned = self._next_turn(steps)
        self._turn_ends = time.monotonic() + _TURN if len(steps) > 1 else None
        packet, self._plan = _GO, self._planned()
        if self._turn is not None:
            self._began = self.registers(self._turn)
            self._marked.add(self._turn)
            free = [vcpu for vcpu in self.vcpus if vcpu not in steps]
            packet = f"vCont;s:{self.number(self._turn):x}" + "".join(f";c:{self.number(vcpu):x}" for vcpu in free)
        self._link.forget_stops()
        self.runs = True
        self._link.go(packet)
        self._watched.interrupted(False)

    def _next_turn(self, steps: frozenset[int]) -> int | None:
        last = -1 if self._turn is None else self._turn
        return min((vcpu for vcpu in steps if vcpu > last), default=min(steps, default=None))

    @property
    def is_overdue(self) -> bool:
        """Whether the vCPU whose turn it is sleeps while others wait for theirs."""
        return self.runs and self._turn_ends is not None and time.monotonic() > self._turn_ends

    def look(self, seconds: float, *, expected: bool = False) -> Stopped | None:
        """The stop that has come, or comes within so many seconds, if the machine runs; ``expected``: one that has come
        though it stood, as others may let it run."""
        if not self.runs:
            packet = self._link.stop_told()  # which notices the end of the stub
            return self._stopped(packet) if expected and packet is not None else None
        stand = self._link.stand(self._plan, seconds)
        if stand is None:
            return None
        told = self._standing(stand.packet)
        if stand.answers:
            self._values.keep(told.number, stand.answers[0])
        if stand.answers[1:]:
            self._values.keep_cr3([self.number(vcpu) for vcpu in self.vcpus], stand.answers[1:])
        return self._stood_at(told)

    def halt(self) -> Stopped:
        """Stop the machine, if nothing else has."""
        self._watched.interrupted(True)
        ran = self._link.stop()
        packet = None if ran else self._link.stop_told()
        if packet is not None:
            return self._stopped(packet)
        self._link.forget_stops()  # older ones tell of the stop by us
        self.stand()
        return self._stood_at(Packet(False, 0, ""), ours=ran)

    def stand(self, number: int = 0) -> None:
        """The machine stands: what is known of it is for that. ``number`` is the stub's of the vCPU that it told of."""
        self.runs = False
        self._values.forget(number)
        self._marked.discard(self._by_number.get(number, -1))

    def _stopped(self, packet: str) -> Stopped:
        return self._stood_at(self._standing(packet))

    def _stood_at(self, told: Packet, *, ours: bool = False) -> Stopped:
        turn, self._turned = self._turned, None
        still = turn is None or self._began is None or self.registers(turn).is_same(self._began)
        stepped = () if turn is None or still else (turn,)
        return Stopped(told, self._by_number.get(told.number, 0), frozenset(stepped), self.registers, ours=ours)

    def _standing(self, packet: str) -> Packet:
        told = parsed(packet)
        self.stand(told.number)
        return told
