# SPDX-License-Identifier: Apache-2.0
"""A vCPU of the simulator: what the guest does, and what stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from drivers.kvm import wire

PAGE = 4096


class Machine(Protocol):
    """What a vCPU needs of its machine."""

    accesses: dict[int, int]
    complaints: list[str]
    ended: bool

    def next_seq(self) -> int: ...
    def send(self, number: int, seq: int, body: bytes) -> bool: ...


class Refused(Exception):
    """A command that KVM answers with an error number."""


class Vcpu:
    """A vCPU. What it is told to do gives a future of what came of it."""

    def __init__(self, machine: Machine, index: int) -> None:
        self.machine, self.index = machine, index
        self.state = wire.State()
        self.pauses = 0
        self.stopped = threading.Event()
        self._todo: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self._wake = threading.Condition()
        self._answer: bytes | None = None
        self._seq = 0
        self._delayed: bytes | None = None
        self.reset()
        threading.Thread(target=self._live, daemon=True).start()

    def reset(self) -> None:
        """Nobody introspects: everything that was asked is forgotten, and the vCPU goes on."""
        self.events: set[int] = set()
        self.numbers: dict[int, set[int]] = {wire.CR: set(), wire.MSR: set()}
        self.stepping = False
        with self._wake:
            self.pauses = 0
            self._answer = b""
            self._wake.notify_all()

    def _tell(self, action: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._wake:
            self._todo.append((future, action, arguments))
            self._wake.notify_all()
        return future

    def write_cr(self, number: int, value: int) -> Future[int]:
        """The register's value afterwards."""
        return self._tell(self._write, wire.CR, self.state.controls, number, value)

    def write_msr(self, number: int, value: int) -> Future[int]:
        """The register's value afterwards."""
        return self._tell(self._write, wire.MSR, self.state.msrs, number, value)

    def breakpoint(self, gpa: int) -> Future[str]:
        """``delivered`` to the guest, or ``again``."""
        return self._tell(self._break, gpa)

    def access(self, gpa: int, access: int) -> Future[str]:
        """``done``, or ``emulated`` in spite of the page's access."""
        return self._tell(self._access, gpa, access)

    def step(self) -> Future[int]:
        """One instruction of a byte; rip afterwards."""
        return self._tell(self._step)

    def _live(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._todo or self.pauses or self.machine.ended)
                if self.machine.ended:
                    return
                paused = self.pauses > 0
                self.pauses -= paused
                task = None if paused else self._todo.pop(0)
            if task is None:
                self.event(wire.PAUSE)
            else:
                future, action, arguments = task
                future.set_result(action(*arguments))

    def _write(self, kind: int, registers: dict[int, int], number: int, value: int) -> int:
        old = registers.get(number, 0)
        if kind in self.events and number in self.numbers[kind]:
            told = number | 0xA5A50000 if kind == wire.CR else number  # of a CR the upper half is padding
            answer = self.event(kind, wire.REGISTER_WRITE.pack(told, 0xA5A5A5A5, old, value), tail=8)
            value = int.from_bytes(answer[1], "little") if answer[1] else value
        registers[number] = value
        self.state.general["rip"] += 3
        return value

    def _break(self, gpa: int) -> str:
        if wire.BREAKPOINT not in self.events:
            return "delivered"
        action, _ = self.event(wire.BREAKPOINT, wire.BREAK.pack(gpa, 1))
        return "again" if action == wire.RETRY else "delivered"

    def _access(self, gpa: int, access: int) -> str:
        while wire.PF in self.events and access & ~self.machine.accesses.get(gpa // PAGE, 7):
            action, _ = self.event(wire.PF, wire.FAULT.pack(gpa + 0xFFFF800000000000, gpa, access), tail=272)
            if action == wire.CONTINUE:
                return "emulated"
        return "done"

    def _step(self) -> int:
        self.state.general["rip"] += 1
        if self.stepping and wire.SINGLESTEP in self.events:
            self.event(wire.SINGLESTEP, bytes(8))
        return self.state.general["rip"]

    def event(self, kind: int, detail: bytes = b"", tail: int = 0) -> tuple[int, bytes]:
        """Send an event and wait for its answer: the action, and the ``tail`` bytes behind it."""
        head = wire.EVENT_HEAD.pack(16 + 144 + 312 + 72, self.index, kind, 8)
        with self._wake:
            self._answer = None
            self._seq = self.machine.next_seq()
            self.stopped.set()
        if not self.machine.send(wire.EVENT, self._seq, head + self.state.arch() + detail):
            self._answer = b""
        with self._wake:
            self._wake.wait_for(lambda: self._answer is not None)
            answer, self._seq = self._answer or b"", 0
            self.stopped.clear()
            if self._delayed:
                self.state.load(self._delayed)
                self._delayed = None
        return self._checked(kind, tail, answer)

    def _checked(self, kind: int, tail: int, answer: bytes) -> tuple[int, bytes]:
        if not answer:
            return wire.CONTINUE, b""
        (vcpu,), (action, event) = wire.VCPU.unpack_from(answer), wire.EVENT_ANSWER.unpack_from(answer, 8)
        allowed = (wire.CONTINUE, wire.RETRY) if kind in (wire.BREAKPOINT, wire.PF) else (wire.CONTINUE,)
        if vcpu != self.index or event != kind or action not in allowed or len(answer) != 16 + tail:
            self.machine.complaints.append(f"vCPU {self.index}, event {kind}: {answer.hex()}")
        return action, answer[16:]

    def answer(self, seq: int, body: bytes) -> bool:
        """Hand over the answer to the event of that number, if this vCPU waits for it."""
        with self._wake:
            if seq == 0 or seq != self._seq or self._answer is not None:
                return False
            self._answer = body
            self._wake.notify_all()
            return True

    # ------------------------------------------------------------------------------------------------------- commands

    def execute(self, command: int, body: bytes) -> bytes:
        """Do what libkvmi asks of this vCPU; the data of the reply."""
        if command == wire.PAUSE_VCPU:
            self._pause()
        elif command == wire.CONTROL_EVENTS:
            event, enable = wire.SWITCH_EVENT.unpack(body)
            (self.events.add if enable else self.events.discard)(event)
        elif command in (wire.CONTROL_CR, wire.CONTROL_MSR):
            self._switch_number(command, *wire.SWITCH_NUMBER.unpack(body))
        elif command == wire.CONTROL_SINGLESTEP:
            self.stepping = bool(wire.SWITCH.unpack(body)[0])
        elif command == wire.SET_REGISTERS:
            self._set_registers(body)
        elif command == wire.GET_REGISTERS:
            return self._registers(body)
        else:
            raise Refused(wire.ENOSYS)
        return b""

    def _switch_number(self, command: int, enable: int, number: int) -> None:
        kind = wire.CR if command == wire.CONTROL_CR else wire.MSR
        valid = number in (0, 3, 4) if kind == wire.CR else number < 0x2000 or 0 <= number - 0xC0000000 < 0x2000
        if not valid:
            raise Refused(wire.EINVAL)
        (self.numbers[kind].add if enable else self.numbers[kind].discard)(number)

    def _registers(self, body: bytes) -> bytes:
        (count,) = wire.NUMBERS.unpack_from(body)
        indexes = [int.from_bytes(body[8 + 4 * i : 12 + 4 * i], "little") for i in range(count)]
        if any(index not in self.state.msrs for index in indexes):
            raise Refused(wire.EINVAL)
        msrs = b"".join(b.to_bytes(8, "little") + self.state.msrs[b].to_bytes(8, "little") for b in indexes)
        head = (8).to_bytes(8, "little")
        return head + self.state.regs() + self.state.sregs() + len(indexes).to_bytes(8, "little") + msrs

    def _pause(self) -> None:
        """Stop before the next instruction."""
        with self._wake:
            self.pauses += 1
            self._wake.notify_all()

    def _set_registers(self, regs: bytes) -> None:
        """They become visible when the event that stops the vCPU was answered."""
        if not self.stopped.is_set():
            raise Refused(wire.EOPNOTSUPP)
        self._delayed = regs
