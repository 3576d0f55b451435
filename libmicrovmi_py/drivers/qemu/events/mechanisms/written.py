# SPDX-License-Identifier: Apache-2.0
"""Writes of control registers and MSRs, before they happen: a breakpoint at each instruction that may be one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from libmicrovmi_py.drivers.qemu.events.codewatch import read_up_to, space_of
from libmicrovmi_py.drivers.qemu.events.instructions import GENERAL, MSRS, Instruction, Target
from libmicrovmi_py.drivers.qemu.events.mechanism import Mechanism
from libmicrovmi_py.drivers.qemu.events.placing import BREAKPOINT, Place
from libmicrovmi_py.drivers.qemu.events.run import Run
from libmicrovmi_py.drivers.qemu.events.stopped import Stopped
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import EventAbilities, EventKind, Intercept, InterceptFlag, ReplyAction, Stop

_ANSWERS = frozenset(ReplyAction)
_LOW = (1 << 32) - 1

_TOLD_MSRS = {0xC000_0080: "efer", 0xC000_0100: "fs_base", 0xC000_0101: "gs_base", 0xC000_0102: "kernel_gs_base"}
"""MSRs whose values the stub tells."""

_TASK_SWITCHED, _MACHINE_STATUS = 8, 15
"""Bits of CR0 that ``clts`` clears, and that ``lmsw`` writes; that cannot clear the lowest of them."""


class Written(Mechanism):
    """QEMU stops at the instructions themselves, so that an MSR's write stops the machine whichever MSR it is."""

    ABILITIES = EventAbilities(
        {EventKind.CR: _ANSWERS, EventKind.MSR: _ANSWERS}, flags={EventKind.CR: InterceptFlag.EVERY_WRITE}
    )

    def __init__(self, machine: Run) -> None:
        super().__init__(machine)
        self._wanted: dict[Intercept, frozenset[int]] = {}
        self._edition = 0  # of the code, that the places are for

    def serves(self, intercept: Intercept) -> bool:
        """All but changes of the address space."""
        if intercept.kind is EventKind.CR:
            return intercept.flags == (InterceptFlag.EVERY_WRITE if intercept.number == 3 else InterceptFlag.NONE)
        return intercept.kind is EventKind.MSR

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """As the mechanism's."""
        if vcpus:
            if not self._wanted:
                _refuse_kvm(self.machine)
            self.machine.code.begin()
            self._wanted[intercept] = vcpus
        else:
            self._wanted.pop(intercept, None)
        self._place()

    def _follow(self) -> None:
        if self._edition != self.machine.code.edition:
            self._place()

    def _place(self) -> None:
        code = self.machine.code
        self._edition = code.edition
        targets = {_target(intercept) for intercept in self._wanted}
        addresses = {address for target in targets for address in code.sites.get(target, ())}
        places = frozenset(Place(BREAKPOINT, address) for address in addresses)
        if self._wanted:
            places |= code.places
        self.places = places

    def heard(self, stopped: Stopped) -> Iterable[Stop]:
        """Of each vCPU that stands before such an instruction, and whose write is wanted."""
        self.machine.code.heard(stopped)
        self._follow()
        return [*self._told(stopped)]

    def _told(self, stopped: Stopped) -> Iterator[Stop]:
        for vcpu, address in stopped.arrivals():
            if Place(BREAKPOINT, address) not in self.places:
                continue
            registers = stopped.registers(vcpu)
            instruction = self.machine.code.at(registers)
            if instruction is not None and (stop := self._stop(vcpu, registers, instruction)) is not None:
                yield stop

    def _stop(self, vcpu: int, registers: Mapping[str, int], instruction: Instruction) -> Stop | None:
        target = instruction.target
        number = registers["rcx"] & _LOW if target == MSRS else target.number
        for intercept, vcpus in self._wanted.items():
            if (intercept.kind, intercept.number) == (target.kind, number) and vcpu in vcpus:
                break
        else:
            return None
        return Stop(
            target.kind,
            vcpu,
            number,
            self._old(registers, target, number),
            self._new(registers, instruction),
            instruction_length=instruction.length,
            instruction_pointer=registers["rip"],
            token=registers["rip"],
            told_by=intercept,
        )

    @staticmethod
    def _old(registers: Mapping[str, int], target: Target, number: int) -> int:
        """0 for what is not told."""
        name = _TOLD_MSRS.get(number, "") if target == MSRS else f"cr{number}"
        return registers.get(name, 0)

    def _new(self, registers: Mapping[str, int], instruction: Instruction) -> int:
        if instruction.target == MSRS:
            return (registers["rdx"] & _LOW) << 32 | registers["rax"] & _LOW
        if instruction.word == "clts":
            return registers["cr0"] & ~_TASK_SWITCHED
        if instruction.word == "mov":
            return registers[GENERAL[instruction.source]]
        low = self._operand(registers, instruction) & _MACHINE_STATUS
        return registers["cr0"] & ~(_MACHINE_STATUS & ~1) | low

    def _operand(self, registers: Mapping[str, int], instruction: Instruction) -> int:
        """What ``lmsw`` reads; 0 where that is not mapped, which is a page fault first."""
        if instruction.operand is None:
            return registers[GENERAL[instruction.source]]
        assert self.machine.memory is not None
        space = space_of(self.machine.memory, registers)
        return int.from_bytes(read_up_to(space, instruction.address(registers), 2), "little")

    def before_going(self) -> None:
        """As the mechanism's."""
        self.machine.code.before_going()
        self._follow()

    def idle(self) -> None:
        """Code may have been written in place."""
        self.machine.code.idle()
        self._follow()


def _target(intercept: Intercept) -> Target:
    return MSRS if intercept.kind is EventKind.MSR else Target(EventKind.CR, intercept.number)


def _refuse_kvm(machine: Run) -> None:
    """Raise ``NotSupportedError`` under KVM, where QEMU would write into the guest's code."""
    with machine.client() as client:
        if client.record("query-kvm").get("enabled"):
            raise NotSupportedError(
                "writes of registers are found in the guest's code, into which QEMU writes breakpoints under KVM: what "
                "only looks like such an instruction would be changed"
            )


MECHANISM = Written
