# SPDX-License-Identifier: Apache-2.0
"""The vCPUs of the program that looks like QEMU: their registers, by its monitor, its devices' state and its stub.

``-fake state=WHAT`` spoils the devices' state: ``garbage``, ``stale`` (registers of another moment), ``version``.
``-fake stub=WHAT`` spoils the debugger's stub: ``closed`` (QEMU opens none), ``deaf``, ``hangs-up``, ``garbage``,
``another`` (vCPU than was asked for), ``keeps`` (it takes every value and keeps its own), ``refuses`` (to write cr8).
Or others let the machine run: ``run-before`` the stub is connected, ``run-attached`` (as it is), ``run-within`` (as the
second register is written), ``run-after`` the first was; with ``-stopped`` behind it they also stop it again at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable
from typing import Any

from drivers.qemu.device_states import GENERAL, SEGMENTS, state, text, vcpu

NUMBERS = {0: 0, 4: 1}
"""QEMU's number of each vCPU, and whose registers it has."""

CORE = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *GENERAL[8:], "rip", "eflags"),
    *("cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base", "k_gs_base", "cr0", "cr2", "cr3", "cr4", "cr8", "efer"),
)
NAMES = {"eflags": "rflags", "k_gs_base": "kernel_gs_base", **{name: f"{name}_selector" for name in SEGMENTS}}
SIZES = {name: 4 for name in CORE[17:24]}


def _xml() -> str:
    rows = [f'<reg name="{name}" bitsize="{8 * SIZES.get(name, 8)}" type="int"/>' for name in CORE]
    rows.insert(24, '<!-- <reg name="ss_base" bitsize="64"/>\n<reg name="ds_base" bitsize="64"/> -->')
    return '<?xml version="1.0"?><feature name="org.gnu.gdb.i386.core">' + "".join(rows) + "</feature>"


FILES = {
    "target.xml": '<target><architecture>i386</architecture><xi:include href="i386-64bit.xml"/></target>',
    "i386-64bit.xml": _xml(),
}


class Vcpus:
    """What the machine does with registers."""

    def __init__(self, fakes: list[str]) -> None:
        self.fakes = dict(fake.split("=", 1) for fake in fakes if "=" in fake)
        self.vcpus = {index: {**vcpu(number), "rax": 0xAB00 + index} for index, number in NUMBERS.items()}
        self.received: list[int] = []
        self.sets: dict[int, tuple[int, str]] = {}
        self.named: dict[str, int] = {}
        self.devices: dict[str, dict[str, Any]] = {}
        if self.fakes.get("gdb"):
            self.devices[self.fakes["gdb"]] = {"frontend-open": True, "filename": "disconnected:tcp:0.0.0.0:1234"}
        self.stub: socket.socket | None = None
        self.saved = 0
        self.tell: Callable[[str], object] = str
        """Have the machine stop (``STOP``) or run (``RESUME``), and tell its client."""
        self.runs: Callable[[], bool] = bool

    def execute(self, command: str, arguments: dict[str, Any]) -> Any:
        """The answer of a command that is about registers; ``None`` if it is about something else."""
        method = getattr(self, command.replace("-", "_"), None)
        return method(arguments) if method and not command.startswith("_") else None

    def human(self, line: str, index: int) -> str | None:
        """The text of a line of the human monitor that is about registers."""
        if line == "info registers":
            return text(index, self.vcpus[index]).partition("\r\n\r\n")[0].replace(f"CPU#{index}\r\n", "")
        if line == "info registers -a":
            return "".join(text(number, values) for number, values in self.vcpus.items())
        if line.startswith("gdbserver "):
            return self._gdbserver(line.split()[1])
        return None

    def let_run(self, when: str) -> None:
        """Others do, if that is to be played."""
        how = self.fakes.get("stub", "").removeprefix("run-")
        if how.removesuffix("-stopped") == when:
            self.tell("RESUME")
            if how.endswith("-stopped"):
                self.tell("STOP")

    def stop_if_running(self) -> bool:
        """As whatever comes from a debugger stops the machine; whether it ran."""
        ran = self.runs()
        if ran:
            self.tell("STOP")
        return ran

    # ------------------------------------------------------------------------------------------------ devices' state

    def query_target(self, _: object) -> dict[str, str]:
        return {"arch": "x86_64"}

    def query_fdsets(self, _: object) -> list[dict[str, Any]]:
        return [{"fdset-id": number, "fds": [{"fd": fd, "opaque": name}]} for number, (fd, name) in self.sets.items()]

    def add_fd(self, arguments: dict[str, Any]) -> dict[str, int]:
        number = arguments["fdset-id"]
        assert number not in self.sets
        self.sets[number] = (self.received.pop(), arguments.get("opaque", ""))
        return {"fdset-id": number, "fd": self.sets[number][0]}

    def remove_fd(self, arguments: dict[str, Any]) -> dict[str, Any]:
        os.close(self.sets.pop(arguments["fdset-id"])[0])
        return {}

    def xen_save_devices_state(self, arguments: dict[str, Any]) -> dict[str, Any]:
        assert arguments["live"] is False
        self.saved += 1
        values = self.vcpus
        how = self.fakes.get("state", "")
        if how == "stale":
            values = {index: {**each, "rip": 5, "cr4": 6} for index, each in values.items()}
        data = state(values, version=13 if how == "version" else 12)
        number = int(arguments["filename"].removeprefix("/dev/fdset/"))
        os.write(self.sets[number][0], b"garbage" if how == "garbage" else data)
        return {}

    def play_count(self, _: object) -> dict[str, int]:
        """How many states were saved, how many sets there are, whether there is a stub."""
        return {"saved": self.saved, "sets": len(self.sets), "devices": len(self.devices)}

    # ------------------------------------------------------------------------------------------------ character devices

    def getfd(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.named[arguments["fdname"]] = self.received.pop()
        return {}

    def closefd(self, arguments: dict[str, Any]) -> dict[str, Any]:
        os.close(self.named.pop(arguments["fdname"]))
        return {}

    def query_chardev(self, _: object) -> list[dict[str, Any]]:
        own = {"label": "compat_monitor0", "filename": "unix:monitor,server=on", "frontend-open": True}
        return [own, *({"label": label, **values} for label, values in self.devices.items())]

    def chardev_add(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments["id"] in self.devices:
            raise LookupError("the name is in use")
        backend = arguments["backend"]["data"]
        if arguments["backend"]["type"] == "null":
            self.devices[arguments["id"]] = {"frontend-open": False, "filename": "null"}
            return {}
        assert not backend["server"]
        self.stub = socket.socket(fileno=self.named.pop(backend["addr"]["data"]["str"]))
        self.devices[arguments["id"]] = {"frontend-open": False, "filename": "unix:"}
        self.let_run("before")
        return {}

    def chardev_remove(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if self.devices.pop(arguments["id"], None) is None:
            raise LookupError("no such device")
        return {}

    def play_chardev(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """A character device that somebody left."""
        self.devices[arguments["label"]] = {"frontend-open": True, "filename": arguments["filename"]}
        return {}

    def _gdbserver(self, device: str) -> str:
        label = device.removeprefix("chardev:")
        if device == "none":
            self.devices = {name: each for name, each in self.devices.items() if not each["frontend-open"]}
            return "Disabled gdbserver\r\n"
        if label not in self.devices or self.fakes.get("stub") == "closed":
            return f"Could not open gdbserver on device '{device}'\r\n"
        self.devices[label]["frontend-open"] = True
        assert self.stub is not None
        self.let_run("attached")
        self.stop_if_running()
        threading.Thread(target=Stub(self, self.stub).serve, daemon=True).start()
        return f"Waiting for gdb connection on device '{device}'\r\n"


class Stub:
    """The debugger's stub of a machine that stands."""

    def __init__(self, machine: Vcpus, sock: socket.socket) -> None:
        self.machine = machine
        self.sock = sock
        self.index = 0
        self.how = machine.fakes.get("stub", "")
        self.written = 0

    def serve(self) -> None:
        data = b""
        if self.how == "hangs-up":
            self.sock.close()
            return
        with contextlib.suppress(OSError):
            self._send("T02thread:01;")
            while received := self.sock.recv(4096):
                data += received
                while match := re.match(rb"\+*\$([^#]*)#(..)", data):
                    data = data[match.end() :]
                    self._answer(match[1].decode())

    def _answer(self, packet: str) -> None:
        self.written += packet[0] == "P"
        if packet[0] == "P" and self.written == 2:
            self.machine.let_run("within")
        if self.how == "deaf" or self.machine.stop_if_running():
            return
        self.sock.sendall(b"+")
        self._send("\x00garbage" if self.how == "garbage" else self._result(packet))
        if packet[0] == "P" and self.written == 1:
            self.machine.let_run("after")

    def _send(self, packet: str) -> None:
        data = packet.encode()
        self.sock.sendall(b"$%b#%02x" % (data, sum(data) & 0xFF))

    def _result(self, packet: str) -> str:
        if packet.startswith("qSupported"):
            return "PacketSize=1000;qXfer:features:read+"
        if packet.startswith("qXfer:features:read:"):
            name, _, place = packet.removeprefix("qXfer:features:read:").partition(":")
            start, size = (int(number, 16) for number in place.split(","))
            part = FILES[name][start : start + min(size, 700)]
            return ("l" if start + len(part) == len(FILES[name]) else "m") + part
        if packet.startswith("Hg"):
            self.index = int(packet[2:], 16) - 1 if self.how != "another" else 4
            return "OK" if self.index in self.machine.vcpus else "E22"
        return self._register(packet)

    def _register(self, packet: str) -> str:
        number, _, digits = packet[1:].partition("=")
        stub = CORE[int(number, 16)]
        name, size = NAMES.get(stub, stub), SIZES.get(stub, 8)
        values = self.machine.vcpus[self.index]
        if packet[0] == "P" and self.how == "refuses" and name == "cr8":
            return "E14"
        if packet[0] == "P":
            if self.how != "keeps" or name == "rbx":
                values[name] = int.from_bytes(bytes.fromhex(digits), "little")
            return "OK"
        return values[name].to_bytes(size, "little").hex()
