# SPDX-License-Identifier: Apache-2.0
"""A program that looks like QEMU from outside: its command line, its QMP monitors, its memory. Started by tests.

The machine has 1 MiB of main memory in two ranges around a hole, in a shared memory file or (with ``-fake private``)
private; the last 64 KiB of the first range are read-only; 64 KiB of video memory and a block that an ivshmem device
shares lie above. Byte N of a block is N // 4096 % 251. Two vCPUs, numbered 0 and 4.

``-ram FILE`` is where shared main memory lies, 64 KiB in. ``-fake WHAT=COMMAND`` makes it misbehave at that command:
``hang``, ``late`` (by a second), ``exit``, ``hangup``, ``leave`` (hangs up, ends a little later), ``refuse``,
``refuse-when-paused``, ``move`` (the first time the map has moved on), ``vanish``, ``tell`` (the event of a device that
is gone). ``-fake lose=OFFSET`` takes the 4096 bytes at that offset of the first block away at SIGUSR1 and says
``lost``; at SIGUSR2 it puts others like them there and says ``found``. ``-fake old`` does not tell whose memory is, as
QEMU before 3.0. ``-fake plain`` has no ivshmem device. ``-fake swapped`` has the halves of the second range in another
order in the block. ``-fake arriving`` says that its memory is still being migrated, ``-fake waiting`` that it waits for
a migration. ``-fake missing`` makes the pages from 4 KiB to 128 KiB missing ones, which nobody brings, as of a
post-copy migration whose source hangs (the kernel's userfaultfd; takes root). ``-fake deaf`` never takes a client of
the first monitor. ``-fake fuzz`` spoils answers, by the number of the connection. ``-fake gdb=NAME``: it has somebody's
debugger's stub of that name; what else can be wrong with its registers is in ``qemu/fake_vcpus.py``, with
migrations in ``qemu/fake_migration.py``. ``-fake fork``
leaves a child of the same command line behind for 0.3 s. ``-dimm FILE`` plugs 64 KiB at 0x180000 in, which are there as
long as FILE is; another one comes if it comes again, another file's in its place if it is shared, or with ``-fake
in-place``. ``-fake owned`` has it belong to a device. ``-fake reused`` has something else in a part of its place as
soon as it is gone, ``-fake unmapped`` nothing. The command ``play-state`` makes a run state the machine's,
``play-answer`` an answer that of a command. ``play-split`` has the kernel know the DIMM's memory as two mappings.
``play-log`` tells what was asked since it was asked last: a list for each connection, of commands, or of lines of the
human monitor.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import itertools
import json
import mmap
import os
import platform
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

KIB = 1024
MARGIN = 64 * KIB
libc = ctypes.CDLL(None)
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

LASTS = 600
"""Seconds until it ends by itself, if nobody ended it: longer than any test takes, under a checker too."""


class Block:
    """Memory of a machine: where it lies in this process."""

    def __init__(self, name: str, size: int, shared: bool, path: str = "") -> None:
        self.name = name
        self.whose = "owner:{dev id=video0}"
        if "." not in name:
            self.whose = f"owner:{{obj path=/objects/{name}}}"
        self.shared = shared
        self.area = _shared(size, path) if shared else _private(size)
        self.area[:] = b"".join(bytes([number % 251]) * 4096 for number in range(size // 4096))
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.area))


def _shared(size: int, path: str) -> mmap.mmap:
    """The middle of a file: what lies around it is not the machine's."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT) if path else os.memfd_create("ram")
    os.write(fd, b"before" * MARGIN)
    os.truncate(fd, size + 2 * MARGIN)
    return mmap.mmap(fd, size, offset=MARGIN)


def _private(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def replugged(gone: Block, in_place: bool) -> Block:
    """A block like one that is gone, full of 0xFB: elsewhere, or in its place, where it is a file's."""
    block = Block(gone.name, len(gone.area), gone.shared)
    block.area[:] = b"\xfb" * len(block.area)
    block.whose = gone.whose
    if in_place:
        fd = os.memfd_create("another")
        os.write(fd, block.area[:])
        flags = mmap.MAP_SHARED | 0x10  # MAP_FIXED
        libc.mmap(ctypes.c_void_p(gone.address), ctypes.c_size_t(len(gone.area)), 3, flags, fd, ctypes.c_long(0))
        block.address = gone.address
    return block


def withhold(area: mmap.mmap, start: int, size: int) -> None:
    """From now on the kernel makes who touches these pages wait until somebody brings them, which nobody does."""
    area.madvise(mmap.MADV_DONTNEED, start, size)
    number = {"x86_64": 323, "aarch64": 282}[platform.machine()]
    fd = ctypes.CDLL(None, use_errno=True).syscall(number, os.O_CLOEXEC)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    fcntl.ioctl(fd, 0xC018AA3F, struct.pack("QQQ", 0xAA, 0, 0))  # UFFDIO_API
    address = ctypes.addressof(ctypes.c_char.from_buffer(area)) + start
    fcntl.ioctl(fd, 0xC020AA00, struct.pack("QQQQ", address, size, 1, 0))  # UFFDIO_REGISTER, of missing pages


PLAYED = ("play-log", "play-state", "play-answer", "play-split")
"""What a test tells the machine itself; its parts have words of their own."""


class Machine:
    def __init__(self, argv: list[str]) -> None:
        options = list(itertools.pairwise(argv))
        self.fakes = [value for option, value in options if option == "-fake"]
        from drivers.qemu.fake_migration import Migrations
        from drivers.qemu.fake_vcpus import Vcpus

        self.vcpus = Vcpus(self.fakes)
        self.vcpus.tell, self.vcpus.runs = self.tell, lambda: self.status == "running"
        self.status = "prelaunch" if "-S" in argv else "running"
        self.client: socket.socket | None = None
        self.migrations = Migrations(self.fakes, self.vcpus, self.let_run)
        self.sending = threading.Lock()
        self.played: dict[str, Any] = {}
        self.log: list[list[str]] = []
        self.gone: list[Block] = []
        self.file = dict(options).get("-ram", "")
        main = Block("mem0", 1024 * KIB, shared="private" not in self.fakes, path=self.file)
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
        if "plain" in self.fakes:
            self.ranges.pop()
        self.dimm = dict(options).get("-dimm", "")
        if self.dimm:
            self.ranges.insert(4, (0x180000, 64 * KIB, "ram", Block("dimm0", 64 * KIB, shared=main.shared), 0))
            if "owned" in self.fakes:
                self.ranges[4][3].whose = "owner:{dev id=owner}"
        if "missing" in self.fakes:
            withhold(main.area, 4 * KIB, 124 * KIB)

    def let_run(self, runs: bool) -> None:
        """QEMU itself stops the machine, or lets it run."""
        self.status = "running" if runs else "paused"

    def fake(self, command: str) -> str:
        for index, text in enumerate(self.fakes):
            what, _, when = text.partition("=")
            if when == command:
                if what == "move":
                    del self.fakes[index]
                return what
        return ""

    def lose(self, *_: object) -> None:
        """Memory of the machine vanishes from this process."""
        libc.munmap(ctypes.c_void_p(self.place_to_lose()), 4096)
        os.write(1, b"lost\n")  # a signal may come in the middle of a print

    def find(self, *_: object) -> None:
        """It is there again."""
        place = self.place_to_lose()
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
        libc.mmap(ctypes.c_void_p(place), ctypes.c_size_t(4096), 3, flags, -1, ctypes.c_long(0))
        ctypes.memset(place, (place - self.ranges[0][3].address) // 4096 % 251, 4096)
        os.write(1, b"found\n")

    def place_to_lose(self) -> int:
        offset = next(int(text.partition("=")[2], 0) for text in self.fakes if text.startswith("lose="))
        return self.ranges[0][3].address + offset

    def execute(self, command: str, arguments: dict[str, Any]) -> Any:
        answers: dict[str, Any] = {
            "qmp_capabilities": {},
            "query-memdev": [
                {"id": "mem0", "size": 1024 * KIB},
                {"id": "dimm0", "size": 64 * KIB},
                {"id": "shm0", "size": 64 * KIB},
                {"size": 1},
            ],
            "query-cpus-fast": [{"cpu-index": 4}, {"cpu-index": 0}],
            "query-status": {"status": self.status, "running": self.status == "running"},
            "qom-get": self.properties().get(arguments.get("path", ""), {}).get(arguments.get("property", "")),
            "query-memory-devices": self.plugged(),
            "query-version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},
            "query-migrate": {"status": "postcopy-active"} if "arriving" in self.fakes else {},
        }
        if command == "cont" or (command == "stop" and self.status == "running"):
            self.status = "running" if command == "cont" else "paused"
        if command == "query-status" and "waiting" in self.fakes:
            return {"status": "inmigrate", "running": False}
        if command in PLAYED:
            return self.play(command, arguments)
        if command in ("stop", "cont"):
            return {}
        if command in self.played:
            return self.played[command]
        if command == "migrate":
            names = {"vga.vram": "0000:00:02.0/vga.vram"}
            self.migrations.blocks = {names.get(item[3].name, item[3].name): item[3].area[:] for item in self.ranges}
        for part in (self.migrations, self.vcpus):
            if (answer := part.execute(command, arguments)) is not None:
                return answer
        if command == "qom-list":
            anonymous = arguments["path"].endswith("-anon")
            return (
                [] if anonymous else [{"name": "iv", "type": "child<ivshmem-plain>"}, {"name": "x", "type": "string"}]
            )
        if command == "human-monitor-command":
            return self.human(arguments["command-line"], arguments.get("cpu-index", 0))
        return answers[command]

    def play(self, command: str, arguments: dict[str, Any]) -> Any:
        """What a test tells it to be."""
        if command == "play-log":
            log, self.log = self.log[:-1], []
            return log
        if command == "play-state":
            self.status = arguments["status"]
        if command == "play-answer":
            self.played[arguments["to"]] = json.loads(arguments["answer"])
        if command == "play-split":
            dimm = next(item[3] for item in self.ranges if item[3].name == "dimm0")
            libc.madvise(ctypes.c_void_p(dimm.address), ctypes.c_size_t(32 * KIB), 16)  # MADV_DONTDUMP
        return {}

    def properties(self) -> dict[str, dict[str, Any]]:
        """What ``qom-get`` tells, by path and name."""
        memory = {"share": "private" not in self.fakes, "mem-path": self.file, "offset": MARGIN, "size": 1024 * KIB}
        return {"/machine/peripheral/iv": {"memdev": "/objects/shm0"}, "/objects/mem0": memory}

    def examine(self, address: int, size: int) -> str:
        """What ``xp`` prints of bytes."""
        start, _, _, block, offset = next(item for item in self.ranges if item[0] <= address < item[0] + item[1])
        content = block.area[offset + address - start :][:size]
        rows = [" ".join(f"{byte:#04x}" for byte in content[at : at + 8]) for at in range(0, size, 8)]
        return "".join(f"{address + 8 * at:016x}: {row}\r\n" for at, row in enumerate(rows))

    def plugged(self) -> list[dict[str, Any]]:
        if not self.dimm:
            return []
        there = [item for item in self.ranges if item[3].name == "dimm0"]
        if not os.path.exists(self.dimm):
            self.gone += [item[3] for item in there]
            self.ranges = [item for item in self.ranges if item not in there]
            for item in there:
                self.give_back(item[3])
            return []
        if not there:
            self.ranges.insert(4, (0x180000, 64 * KIB, "ram", self.replugged(), 0))
        return [{"type": "dimm", "data": {"addr": 0x180000, "size": 64 * KIB, "memdev": "/objects/dimm0"}}]

    def give_back(self, gone: Block) -> None:
        """What becomes of the memory of a DIMM that is gone."""
        place = ctypes.c_void_p(gone.address)
        if "unmapped" in self.fakes or "reused" in self.fakes:
            libc.munmap(place, ctypes.c_size_t(len(gone.area)))
        if "reused" in self.fakes:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
            libc.mmap(place, ctypes.c_size_t(32 * KIB), 3, flags, -1, ctypes.c_long(0))
            ctypes.memset(gone.address, 0xEE, 32 * KIB)

    def replugged(self) -> Block:
        gone = self.gone[-1]
        return replugged(gone, in_place=gone.shared or "in-place" in self.fakes)

    def human(self, line: str, vcpu: int) -> str:
        if line == "info mtree -f" or (line == "info mtree -f -o" and "old" not in self.fakes):
            return self.flat_view(owners=line.endswith("-o"))
        if line.startswith("info mtree"):
            return 'mtree: unsupported option -o\r\nTry "help mtree" for more information\r\n'
        if (answer := self.vcpus.human(line, vcpu)) is not None:
            return answer
        if line.startswith("xp /"):
            count, _, place = line.removeprefix("xp /").partition("xb ")
            return self.examine(int(place, 16), int(count))
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

    def flat_view(self, owners: bool) -> str:
        self.plugged()
        lines = [
            f"  {start:016x}-{start + size - 1:016x} (prio 0, {kind}): {block.name} @{offset:016x}"
            + (f" {block.whose} KVM" if owners else " KVM")
            for start, size, kind, block, offset in self.ranges
        ]
        return "\r\n".join(['FlatView #0\r\n AS "memory", root: system\r\n Root memory region: system', *lines, ""])

    def serve(self, server: socket.socket) -> None:
        for number in itertools.count():
            client, _ = server.accept()
            self.frame = framing(number) if "fuzz" in self.fakes else as_it_is
            with client, contextlib.suppress(OSError):
                self.talk(client)

    def lines(self, client: socket.socket) -> Iterator[bytes]:
        """What a client says; descriptors that it hands over are the vCPUs' part."""
        data = b""
        while received := socket.recv_fds(client, 65536, 4):
            if not received[0]:
                return
            self.vcpus.received += received[1]
            *lines, data = (data + received[0]).split(b"\n")
            yield from lines

    def talk(self, client: socket.socket) -> None:
        self.send(client, {"QMP": {"version": {}, "capabilities": []}})
        self.client = client
        log: list[str] = []
        self.log.append(log)
        for line in self.lines(client):
            request = json.loads(line)
            command = request["execute"]
            log.append(request.get("arguments", {}).get("command-line", command))
            fake = self.fake(command)
            if fake == "hang":
                time.sleep(60)
            if fake == "late":
                time.sleep(1.0)
            if fake == "exit":
                os._exit(0)
            if fake == "hangup":
                return
            if fake == "leave":
                client.shutdown(socket.SHUT_RDWR)
                time.sleep(0.2)
                os._exit(0)
            self.send(client, {"event": "NOISE", "timestamp": {}})
            if fake == "tell":
                self.send(client, {"event": "DEVICE_DELETED", "data": {}, "timestamp": {}})
            if fake == "refuse" or (fake == "refuse-when-paused" and self.status != "running"):
                self.send(client, {"error": {"class": "GenericError", "desc": "not now"}, "id": request["id"]})
            else:
                ran = self.status == "running"
                answer = self.answer(command, request.get("arguments", {}))
                if command in ("stop", "cont") and ran != (self.status == "running"):
                    self.send(client, {"event": "STOP" if ran else "RESUME", "timestamp": {}})
                self.send(client, {**answer, "id": request["id"]})

    def answer(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"return": self.execute(command, arguments)}
        except LookupError as err:
            return {"error": {"class": "GenericError", "desc": str(err)}}

    def send(self, client: socket.socket, message: dict[str, Any]) -> None:
        with self.sending:
            client.sendall(self.frame(message))

    def tell(self, event: str) -> None:
        """The machine stops or runs, and the client that came last hears of it."""
        self.status = "paused" if event == "STOP" else "running"
        assert self.client
        self.send(self.client, {"event": event, "timestamp": {}})


def as_it_is(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


def framing(number: int) -> Callable[[dict[str, Any]], bytes]:
    """What spoils the messages of a connection."""
    from fuzz.mutator import Mutator
    from fuzz.spoiled import spoiled

    return functools.partial(spoiled, Mutator("monitor", number))


def main() -> None:
    machine = Machine(sys.argv)
    servers: list[threading.Thread] = []
    kept: list[socket.socket] = []
    for option, value in itertools.pairwise(sys.argv):
        if option == "-qmp":
            server = socket.socket(socket.AF_UNIX)
            server.bind(value.removeprefix("unix:").partition(",")[0])
            server.listen(1)
            if "deaf" in machine.fakes and not servers:
                machine.fakes.remove("deaf")
                kept.append(server)
                continue
            servers.append(threading.Thread(target=machine.serve, args=(server,), daemon=True))
    if "fork" in machine.fakes and os.fork() == 0:
        time.sleep(0.3)
        os._exit(0)
    signal.signal(signal.SIGUSR1, machine.lose)
    signal.signal(signal.SIGUSR2, machine.find)
    for thread in servers:
        thread.start()
    print("ready", flush=True)
    time.sleep(LASTS)


if __name__ == "__main__":
    main()
