# SPDX-License-Identifier: Apache-2.0
"""A simulator of a QEMU and a KVM with introspection: the hypervisor's side of KVMi's socket, with a guest.

It connects as QEMU does with ``reconnect=``, again and again, and answers libkvmi, the real one as well as the
tests' own. Its vCPUs do what a test tells them, each on a thread of its own.

As a program it is a machine that does what it is told: ``simulator.py SOCKET START:FILE...``, with the content of files
as memory. It says ``ready``, and ends with its standard input. ``unreadable:ADDRESS`` and ``unwritable:ADDRESS`` are
frames whose reads, or writes, it refuses. The lines of its input are orders, each answered by a line; see
:class:`_Orders`.
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

from drivers.kvm import wire
from drivers.kvm.vcpu import Refused, Vcpu

PAGE = 4096


class Simulator:
    """The machine. ``complaints`` are what KVM would not have put up with; ``seen`` are the commands it got."""

    def __init__(self, path: str, pieces: Mapping[int, bytes], vcpus: int = 2, name: str = "simulator") -> None:
        self.path, self.name = path, name
        self.frames = {
            (start + at) // PAGE: bytearray(content[at : at + PAGE])
            for start, content in pieces.items()
            for at in range(0, len(content), PAGE)
        }
        self.refused: dict[str, set[int]] = {"unreadable": set(), "unwritable": set()}
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
        plain: dict[int, Callable[[], bytes]] = {
            wire.CONTROL_CMD_RESPONSE: lambda: b"",
            wire.GET_VERSION: lambda: bytes((1, 0, 0, 0)) + bytes(12),
            wire.GET_GUEST_INFO: lambda: len(self.vcpus).to_bytes(4, "little") + bytes(12),
            wire.GET_MAX_GFN: lambda: max(self.frames).to_bytes(8, "little"),
            wire.READ_PHYSICAL: lambda: bytes(self._page(body, "unreadable")),
            wire.WRITE_PHYSICAL: lambda: self._write(body),
            wire.SET_PAGE_ACCESS: lambda: self._set_access(body),
        }
        if command in plain:
            return plain[command]()
        (index,) = wire.VCPU.unpack_from(body)
        if index >= len(self.vcpus):
            raise Refused(wire.EINVAL)
        vcpu: Vcpu = self.vcpus[index]
        return vcpu.execute(command, body[wire.VCPU.size :])

    def _page(self, body: bytes, refusal: str) -> memoryview:
        gpa, size = wire.RANGE.unpack_from(body)
        if not 0 < size <= PAGE - gpa % PAGE:
            self.complaints.append(f"an access of {size} bytes at {gpa:#x} leaves its page")
            raise Refused(wire.EINVAL)
        if gpa // PAGE not in self.frames:
            raise Refused(wire.ENOENT)
        if gpa // PAGE in self.refused[refusal]:
            raise Refused(wire.EINVAL)
        return memoryview(self.frames[gpa // PAGE])[gpa % PAGE : gpa % PAGE + size]

    def _write(self, body: bytes) -> bytes:
        self._page(body, "unwritable")[:] = body[wire.RANGE.size :]
        return b""

    def _set_access(self, body: bytes) -> bytes:
        _, count, _ = wire.PAGES.unpack_from(body)
        for index in range(count):
            gpa, access = wire.PAGE.unpack_from(body, wire.PAGES.size + index * wire.PAGE.size)
            if access & 2 and not access & 1:
                raise Refused(wire.EINVAL)
            self.accesses[gpa // PAGE] = access
        return b""


class _Orders:
    """The first vCPU, told by lines."""

    def __init__(self, machine: Simulator) -> None:
        self._machine = machine
        self._last: Future[object] = Future()

    def do(self, order: str, *numbers: str) -> object:
        """``write_cr``, ``write_msr``, ``breakpoint``, ``access``, ``step``; ``result``: what came of the last of them;
        ``left``: how much introspection has left: switches, accesses, vCPUs that wait for an answer.
        """
        if order == "result":
            return self._last.result(5)
        if order == "left":
            return self._left()
        self._last = getattr(self._machine.vcpus[0], order)(*map(int, numbers))
        return "told"

    def _left(self) -> int:
        vcpus = self._machine.vcpus
        switches = sum(len(vcpu.events) + sum(map(len, vcpu.numbers.values())) + vcpu.stepping for vcpu in vcpus)
        return (
            switches
            + sum(vcpu.stopped.is_set() for vcpu in vcpus)
            + sum(access != 7 for access in self._machine.accesses.values())
        )


def main(path: str, *pieces: str) -> None:
    """Play a machine until standard input ends."""
    parts = [piece.split(":", 1) for piece in pieces]
    machine = Simulator(path, {int(start): Path(file).read_bytes() for start, file in parts if start.isdecimal()})
    for kind, address in parts:
        if kind in machine.refused:
            machine.refused[kind].add(int(address) // PAGE)
    machine.start()
    print("ready", flush=True)
    orders = _Orders(machine)
    for line in sys.stdin:
        print(orders.do(*line.split()), flush=True)
    machine.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
