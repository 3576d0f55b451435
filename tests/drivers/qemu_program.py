# SPDX-License-Identifier: Apache-2.0
"""A program that looks like QEMU from outside: its command line, its QMP monitors, its memory. Started by tests.

The machine has 1 MiB of main memory in two ranges around a hole, in a shared memory file or (with ``-fake private``)
private; the last 64 KiB of the first range are read-only; 64 KiB of video memory and a block that an ivshmem device
shares lie above. Byte N of a block is N // 4096 % 251. Two vCPUs, numbered 0 and 4.

``-fake WHAT=COMMAND`` makes it misbehave at that command: ``hang``, ``exit``, ``hangup``, ``leave`` (hangs up, ends a
little later), ``refuse``, ``refuse-when-paused``, ``move`` (the first time the map has moved on), ``vanish``.
``-fake swapped`` has the halves of the second range in another order in the block. ``-fake arriving`` says that its
memory is still being migrated. ``-fake fork`` leaves a child of the same command line behind for 0.3 s.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import mmap
import os
import socket
import sys
import threading
import time
from typing import Any, TextIO

KIB = 1024
MARGIN = 64 * KIB
REGISTERS = "EAX={0:08x} EBX=00000000 ECX=00000000 EDX=00000000\r\nEIP=0000fff0 EFL=00000002 [-------]\r\n"


class Block:
    """Memory of a machine: where it lies in this process."""

    def __init__(self, name: str, size: int, shared: bool) -> None:
        self.name = name
        self.area = _shared(size) if shared else _private(size)
        self.area[:] = b"".join(bytes([number % 251]) * 4096 for number in range(size // 4096))
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.area))


def _shared(size: int) -> mmap.mmap:
    """The middle of a file: what lies around it is not the machine's."""
    fd = os.memfd_create("ram")
    os.write(fd, b"before" * MARGIN)
    os.truncate(fd, size + 2 * MARGIN)
    return mmap.mmap(fd, size, offset=MARGIN)


def _private(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Machine:
    def __init__(self, argv: list[str]) -> None:
        options = list(itertools.pairwise(argv))
        self.fakes = [value for option, value in options if option == "-fake"]
        self.running = "-S" not in argv
        main = Block("mem0", 1024 * KIB, shared="private" not in self.fakes)
        video = Block("vga.vram", 64 * KIB, shared=False)
        extra = Block("shm0", 64 * KIB, shared=True)
        upper = (768, 512) if "swapped" in self.fakes else (512, 768)
        self.ranges = [
            (0x0, 448 * KIB, "ram", main, 0),
            (448 * KIB, 64 * KIB, "rom", main, 448 * KIB),
            (0x100000, 256 * KIB, "ram", main, upper[0] * KIB),
            (0x140000, 256 * KIB, "ram", main, upper[1] * KIB),
            (0xFD000000, 64 * KIB, "ram", video, 0),
            (0x8000000000, 64 * KIB, "ram", extra, 0),
        ]

    def fake(self, command: str) -> str:
        for index, text in enumerate(self.fakes):
            what, _, when = text.partition("=")
            if when == command:
                if what == "move":
                    del self.fakes[index]
                return what
        return ""

    def execute(self, command: str, arguments: dict[str, Any]) -> Any:
        answers: dict[str, Any] = {
            "qmp_capabilities": {},
            "query-memdev": [{"id": "mem0", "size": 1024 * KIB}, {"id": "shm0", "size": 64 * KIB}, {"size": 1}],
            "query-cpus-fast": [{"cpu-index": 4}, {"cpu-index": 0}],
            "query-status": {"status": "running" if self.running else "paused", "running": self.running},
            "qom-get": "/objects/shm0",
            "query-migrate": {"status": "postcopy-active"} if "arriving" in self.fakes else {},
        }
        if command in ("stop", "cont"):
            self.running = command == "cont"
            return {}
        if command == "qom-list":
            anonymous = arguments["path"].endswith("-anon")
            return (
                [] if anonymous else [{"name": "iv", "type": "child<ivshmem-plain>"}, {"name": "x", "type": "string"}]
            )
        if command == "human-monitor-command":
            return self.human(arguments["command-line"], arguments.get("cpu-index", 0))
        return answers[command]

    def human(self, line: str, vcpu: int) -> str:
        if line == "info mtree -f":
            return self.flat_view()
        if line == "info registers":
            return REGISTERS.format(vcpu + 0xAB00)
        address = int(line.removeprefix("gpa2hva "), 16)
        for start, size, _, block, offset in self.ranges:
            if start <= address < start + size:
                match self.fake("gpa2hva"):
                    case "move":
                        block = self.ranges[4][3]
                    case "vanish":
                        break
                host = block.address + offset + address - start
                return f"Host virtual address for {address:#x} ({block.name}) is {host:#x}\r\n"
        return f"No memory is mapped at address {address:#x}\r\n"

    def flat_view(self) -> str:
        lines = [
            f"  {start:016x}-{start + size - 1:016x} (prio 0, {kind}): {block.name} @{offset:016x} KVM"
            for start, size, kind, block, offset in self.ranges
        ]
        return "\r\n".join(['FlatView #0\r\n AS "memory", root: system\r\n Root memory region: system', *lines, ""])

    def serve(self, server: socket.socket) -> None:
        while True:
            client, _ = server.accept()
            with client, client.makefile("r") as lines, contextlib.suppress(OSError):
                self.talk(client, lines)

    def talk(self, client: socket.socket, lines: TextIO) -> None:
        send(client, {"QMP": {"version": {}, "capabilities": []}})
        for line in lines:
            request = json.loads(line)
            command = request["execute"]
            fake = self.fake(command)
            if fake == "hang":
                time.sleep(60)
            if fake == "exit":
                os._exit(0)
            if fake == "hangup":
                return
            if fake == "leave":
                client.shutdown(socket.SHUT_RDWR)
                time.sleep(0.2)
                os._exit(0)
            send(client, {"event": "NOISE", "timestamp": {}})
            if fake == "refuse" or (fake == "refuse-when-paused" and not self.running):
                send(client, {"error": {"class": "GenericError", "desc": "not now"}, "id": request["id"]})
            else:
                result = self.execute(command, request.get("arguments", {}))
                send(client, {"return": result, "id": request["id"]})


def send(client: socket.socket, message: dict[str, Any]) -> None:
    client.sendall(json.dumps(message).encode() + b"\r\n")


def main() -> None:
    machine = Machine(sys.argv)
    servers = []
    for option, value in itertools.pairwise(sys.argv):
        if option == "-qmp":
            server = socket.socket(socket.AF_UNIX)
            server.bind(value.removeprefix("unix:").partition(",")[0])
            server.listen(1)
            servers.append(threading.Thread(target=machine.serve, args=(server,), daemon=True))
    if "fork" in machine.fakes and os.fork() == 0:
        time.sleep(0.3)
        os._exit(0)
    for thread in servers:
        thread.start()
    print("ready", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main()
