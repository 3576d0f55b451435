# SPDX-License-Identifier: Apache-2.0
"""A real QEMU in its firmware that is saved in any way, and what it says of its memory and its registers itself."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from needs import missing

from libmicrovmi_py import Microvmi

PAGE = 4096
_AT_ONCE = 0x20000
"""Bytes that are compared at once: no more than the window of the video card, which nobody saves."""
PROGRAM = "qemu-system-x86_64"
_STAGES = ("setup", "active", "device", "pre-switchover", "none")


class Qemu:
    """A machine with two vCPUs and a monitor; ``options`` are further arguments."""

    def __init__(self, folder: Path, machine: str, memory: str = "48M", options: Sequence[str] = ()) -> None:
        if shutil.which(PROGRAM) is None:
            missing("no QEMU; to enable: apt-get install qemu-system-x86")
        place = folder / "q"
        command = [PROGRAM, "-accel", "tcg", "-M", machine, "-m", memory, "-smp", "2", "-display", "none"]
        command += ["-net", "none", "-monitor", "none", "-qmp", f"unix:{place},server=on,wait=off", *options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(120)
        while True:
            try:
                self._socket.connect(str(place))
                break
            except OSError:
                assert self.process.poll() is None
                time.sleep(0.05)
        self._file = self._socket.makefile("rw")
        self._file.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """What the monitor answers."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "return" in answer or "error" in answer:
                assert "return" in answer, answer
                return answer["return"]

    def human(self, line: str) -> str:
        """The text that the human monitor answers."""
        text: str = self.ask("human-monitor-command", **{"command-line": line})
        return text

    def run(self, seconds: float) -> None:
        """Let it run, and stop it wherever it is then."""
        if self.ask("query-status")["status"] != "running":
            self.ask("cont")
        time.sleep(seconds)
        self.ask("stop")

    def save(self, path: Path, *capabilities: str, uri: str = "exec:cat > {}") -> None:
        """The machine, as a stream; it stands then, and has to run before it can be saved so again."""
        self._set(capabilities, state=True)
        self.ask("migrate", uri=uri.format(path))
        while (status := self.ask("query-migrate").get("status", "none")) != "completed":
            assert status in _STAGES, status
            time.sleep(0.05)
        self._set(capabilities, state=False)

    def _set(self, capabilities: Sequence[str], *, state: bool) -> None:
        if capabilities:
            states = [{"capability": name, "state": state} for name in capabilities]
            self.ask("migrate-set-capabilities", capabilities=states)

    def can(self, capability: str) -> bool:
        """Whether this QEMU knows a capability of migrations."""
        return capability in [item["capability"] for item in self.ask("query-migrate-capabilities")]

    def memory(self, path: Path, start: int, size: int) -> bytes:
        """What ``pmemsave`` writes; ``path`` is gone then."""
        self.ask("pmemsave", val=start, size=size, filename=str(path))
        content = path.read_bytes()
        path.unlink()
        return content

    def registers(self) -> list[dict[str, int]]:
        """Of each vCPU what ``info registers`` says, by our names: with the bits that it shows."""
        texts = re.split(r"CPU#\d+", self.human("info registers -a"))[1:]
        return [dict(_told(text)) for text in texts]

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        self._file.close()
        self._socket.close()


@contextmanager
def qemu(folder: Path, machine: str, memory: str = "48M", options: Sequence[str] = ()) -> Iterator[Qemu]:
    """One, up to the end of the block."""
    made = Qemu(folder, machine, memory, options)
    try:
        yield made
    finally:
        made.end()


def _told(text: str) -> Iterator[tuple[str, int]]:
    for name, value in re.findall(r"\b([ER](?:[A-D]X|[SD]I|[BSI]P)|R\d+)\s*=([0-9a-f]{8,16})\b", text):
        yield name.lower() if name[1:].isdigit() else f"r{name[1:].lower()}", int(value, 16)
    for name, value in re.findall(r"\b(CR[0234]|DR[0-367]|EFER)=([0-9a-f]{8,16})\b", text):
        yield name.lower(), int(value, 16)
    for name, selector, base, limit in re.findall(r"^([CDEFGS]S|LDT|TR)\s*=(\w{4}) (\w+) (\w+)", text, re.MULTILINE):
        yield f"{name.lower()}_selector", int(selector, 16)
        yield f"{name.lower()}_base", int(base, 16)
        yield f"{name.lower()}_limit", int(limit, 16)
    for name, base, limit in re.findall(r"^([GI]DT)=\s*(\w+) (\w+)", text, re.MULTILINE):
        yield f"{name.lower()}_base", int(base, 16)
        yield f"{name.lower()}_limit", int(limit, 16)


def check_memory(machine: Microvmi, start: int, memory: bytes) -> None:
    """All pages from there on are those, but for the window of the video card."""
    for begin in range(start, start + len(memory), _AT_ONCE):
        expected = memory[begin - start : begin - start + _AT_ONCE]
        if begin == 0xA0000:
            continue
        there = machine.read_physical(begin, len(expected))
        if there != expected:
            pages = range(0, len(expected), PAGE)
            wrong = [begin + at for at in pages if there[at : at + PAGE] != expected[at : at + PAGE]]
            raise AssertionError(f"{len(wrong)} pages, the first at {wrong[0]:#x}")


def check_registers(machine: Microvmi, told: Sequence[dict[str, int]]) -> None:
    """Every register that QEMU tells is the same."""
    assert machine.vcpu_count() == len(told) > 0
    for state, values in zip(machine.read_states(), told, strict=True):
        assert len(values) > 40
        different = {name: (state[name], value) for name, value in values.items() if state[name] != value}
        assert not different
