# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a QEMU and a KVM with introspection: the hypervisor's side of KVMi's socket, with a played guest.

It connects as QEMU does with ``reconnect=``, again and again, and answers libkvmi, the real one as well as our own
stand-in. Its vCPUs do what a test tells them, each on a thread of its own.

As a program it is a machine that does nothing: ``simulator.py SOCKET START:FILE...``, with the content of files as
memory. It says ``ready``, and ends with its standard input.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from drivers.kvm import wire

PAGE = 4096


class Refused(Exception):
    """A command that KVM answers with an error number."""


class Vcpu:
    """A played vCPU. What it is told to do gives a future of what came of it."""

    def __init__(self, machine: Simulator, index: int) -> None:
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
            answer = self.event(kind, wire.REGISTER_WRITE.pack(number, 0, old, value), tail=8)
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

    def pause(self) -> None:
        """Stop before the next instruction."""
        with self._wake:
            self.pauses += 1
            self._wake.notify_all()

    def set_registers(self, regs: bytes) -> None:
        """They become visible when the event that stops the vCPU was answered."""
        if not self.stopped.is_set():
            raise Refused(wire.EOPNOTSUPP)
        self._delayed = regs


class Simulator:
    """The machine. ``complaints`` are what KVM would not have put up with; ``seen`` are the commands it got."""

    def __init__(self, path: str, pieces: Mapping[int, bytes], vcpus: int = 2, name: str = "played") -> None:
        self.path, self.name = path, name
        self.frames = {
            (start + at) // PAGE: bytearray(content[at : at + PAGE])
            for start, content in pieces.items()
            for at in range(0, len(content), PAGE)
        }
        self.accesses: dict[int, int] = {}
        self.complaints: list[str] = []
        self.seen: list[int] = []
        self.meddle: Callable[[int, int, bytes], bytes | None] = lambda command, seq, body: None
        self.greet: Callable[[], bytes] = self.greeting
        self.connected = threading.Event()
        self._sock: socket.socket | None = None
        self._sending = threading.Lock()
        self._seq = 0
        self.ended = False
        self.vcpus = [Vcpu(self, index) for index in range(vcpus)]
        self._thread = threading.Thread(target=self._live, daemon=True)

    def start(self) -> Simulator:
        """Begin to connect."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the machine, as a QEMU that is killed."""
        self.ended = True
        self.hang_up()
        self._thread.join(10)
        for vcpu in self.vcpus:
            vcpu.reset()

    def hang_up(self) -> None:
        """Close the connection."""
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def next_seq(self) -> int:
        """A number for an event."""
        with self._sending:
            self._seq += 1
            return self._seq

    def send(self, number: int, seq: int, body: bytes) -> bool:
        """Send one message; whether anybody was there."""
        return self.send_raw(wire.HEADER.pack(number, len(body), seq) + body)

    def send_raw(self, data: bytes) -> bool:
        """Send bytes."""
        with self._sending:
            try:
                assert self._sock is not None
                self._sock.sendall(data)
            except (AssertionError, OSError):
                return False
            return True

    def greeting(self) -> bytes:
        """What QEMU says first."""
        return wire.HANDSHAKE.pack(wire.HANDSHAKE.size, bytes(range(16)), 0, 1, self.name.encode())

    def _live(self) -> None:
        while not self.ended:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(self.path)
            except OSError:
                sock.close()
                time.sleep(0.002)
                continue
            self._sock = sock
            try:
                self._serve()
            except OSError:
                pass
            finally:
                self._forget()

    def _forget(self) -> None:
        assert self._sock is not None
        self.connected.clear()
        with self._sending:
            sock, self._sock = self._sock, None
        sock.close()
        self.accesses.clear()
        for vcpu in self.vcpus:
            vcpu.reset()

    def _serve(self) -> None:
        self._replies = True
        self.send_raw(self.greet())
        self._receive(wire.HANDSHAKE_ANSWER.size)
        self.connected.set()
        while True:
            command, size, seq = wire.HEADER.unpack(self._receive(wire.HEADER.size))
            body = self._receive(size) if size else b""
            self.seen.append(command)
            instead = self.meddle(command, seq, body)
            if instead is not None:
                self.send_raw(instead)
            elif command == wire.EVENT_REPLY:
                if not any(vcpu.answer(seq, body) for vcpu in self.vcpus):
                    self.complaints.append(f"an answer to no event: {seq}")
            else:
                self._execute(command, seq, body)

    def _receive(self, size: int) -> bytes:
        assert self._sock is not None
        data = self._sock.recv(size, socket.MSG_WAITALL)
        if len(data) != size:
            raise ConnectionError
        return data

    def _execute(self, command: int, seq: int, body: bytes) -> None:
        wanted = self._replies
        if command == wire.CONTROL_CMD_RESPONSE:
            enable, now = wire.RESPONSES.unpack(body)
            self._replies = bool(enable)
            wanted = self._replies if now else wanted
        try:
            reply = wire.ERROR.pack(0) + self._do(command, body)
        except Refused as err:
            reply = wire.ERROR.pack(-err.args[0])
        if wanted:
            self.send(command, seq, reply)

    def _do(self, command: int, body: bytes) -> bytes:
        plain = {
            wire.CONTROL_CMD_RESPONSE: lambda: b"",
            wire.GET_VERSION: lambda: bytes((1, 0, 0, 0)) + bytes(12),
            wire.GET_GUEST_INFO: lambda: len(self.vcpus).to_bytes(4, "little") + bytes(12),
            wire.GET_MAX_GFN: lambda: max(self.frames).to_bytes(8, "little"),
            wire.READ_PHYSICAL: lambda: bytes(self._page(body)),
            wire.WRITE_PHYSICAL: lambda: self._write(body),
            wire.SET_PAGE_ACCESS: lambda: self._set_access(body),
        }
        if command in plain:
            return plain[command]()
        (index,) = wire.VCPU.unpack_from(body)
        if index >= len(self.vcpus):
            raise Refused(wire.EINVAL)
        return self._do_on(self.vcpus[index], command, body[wire.VCPU.size :])

    def _do_on(self, vcpu: Vcpu, command: int, body: bytes) -> bytes:
        if command == wire.PAUSE_VCPU:
            vcpu.pause()
        elif command == wire.CONTROL_EVENTS:
            event, enable = wire.SWITCH_EVENT.unpack(body)
            (vcpu.events.add if enable else vcpu.events.discard)(event)
        elif command in (wire.CONTROL_CR, wire.CONTROL_MSR):
            self._switch_number(vcpu, command, *wire.SWITCH_NUMBER.unpack(body))
        elif command == wire.CONTROL_SINGLESTEP:
            vcpu.stepping = bool(wire.SWITCH.unpack(body)[0])
        elif command == wire.SET_REGISTERS:
            vcpu.set_registers(body)
        elif command == wire.GET_REGISTERS:
            return self._registers(vcpu.state, body)
        else:
            raise Refused(wire.ENOSYS)
        return b""

    def _switch_number(self, vcpu: Vcpu, command: int, enable: int, number: int) -> None:
        kind = wire.CR if command == wire.CONTROL_CR else wire.MSR
        valid = number in (0, 3, 4) if kind == wire.CR else number < 0x2000 or 0 <= number - 0xC0000000 < 0x2000
        if not valid:
            raise Refused(wire.EINVAL)
        (vcpu.numbers[kind].add if enable else vcpu.numbers[kind].discard)(number)

    def _registers(self, state: wire.State, body: bytes) -> bytes:
        (count,) = wire.NUMBERS.unpack_from(body)
        indexes = [int.from_bytes(body[8 + 4 * i : 12 + 4 * i], "little") for i in range(count)]
        msrs = b"".join(b.to_bytes(8, "little") + state.msrs[b].to_bytes(8, "little") for b in indexes)
        head = (8).to_bytes(8, "little")
        return head + state.regs() + state.sregs() + count.to_bytes(8, "little") + msrs

    def _page(self, body: bytes) -> memoryview:
        gpa, size = wire.RANGE.unpack_from(body)
        if not 0 < size <= PAGE - gpa % PAGE:
            self.complaints.append(f"an access of {size} bytes at {gpa:#x} leaves its page")
            raise Refused(wire.EINVAL)
        if gpa // PAGE not in self.frames:
            raise Refused(wire.ENOENT)
        return memoryview(self.frames[gpa // PAGE])[gpa % PAGE : gpa % PAGE + size]

    def _write(self, body: bytes) -> bytes:
        self._page(body)[:] = body[wire.RANGE.size :]
        return b""

    def _set_access(self, body: bytes) -> bytes:
        _, count, _ = wire.PAGES.unpack_from(body)
        for index in range(count):
            gpa, access = wire.PAGE.unpack_from(body, wire.PAGES.size + index * wire.PAGE.size)
            if access & 2 and not access & 1:
                raise Refused(wire.EINVAL)
            self.accesses[gpa // PAGE] = access
        return b""


def main(path: str, *pieces: str) -> None:
    """Play a machine until standard input ends."""
    parts = (piece.partition(":") for piece in pieces)
    machine = Simulator(path, {int(start, 0): Path(file).read_bytes() for start, _, file in parts}).start()
    print("ready", flush=True)
    sys.stdin.read()
    machine.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
