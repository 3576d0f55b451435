# SPDX-License-Identifier: Apache-2.0
"""A simulated machine with KVMi, in a process of its own, behind the tests' libkvmi or the real one."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from contract.target import Failing, Target, Way
from drivers.kvm.library import library

from libmicrovmi_py import EventKind, Intercept, InterceptFlag, Microvmi, PageAccess
from libmicrovmi_py.declare import replace
from libmicrovmi_py.drivers.kvm.messages import ANSWERS

TESTS = Path(__file__).resolve().parents[2]

PIECES = {0: 0xA0000, 0x100000: 0x80000, 0x200000: 0x3000, 0xFFFC0000: 0x40000}
"""Start -> bytes of it."""


def stand(folder: Path) -> Iterator[Target]:
    """Low memory, some behind a hole, and firmware below 4 GiB, which KVMi lets one write."""
    pieces = {start: _numbered(start, size) for start, size in PIECES.items()}
    with _simulated(folder, pieces) as (uri, machine):
        yield Target(uri, pieces, writable=True, guest=KvmGuest(machine))


class KvmGuest:
    """It is told by the lines that the simulator reads."""

    page = 0x5000
    _cr3, _star = 0x3000, 0xC0000081
    _intercepts: ClassVar = {
        EventKind.CR: Intercept(EventKind.CR, 3),
        EventKind.MSR: Intercept(EventKind.MSR, _star),
    }

    def __init__(self, machine: subprocess.Popen[str]) -> None:
        self._machine = machine
        self._writes = itertools.count(0x8000, 0x1000)

    def _tell(self, *words: object) -> str:
        assert self._machine.stdin is not None
        assert self._machine.stdout is not None
        print(*words, file=self._machine.stdin, flush=True)
        return self._machine.stdout.readline().strip()

    @property
    def ways(self) -> list[Way]:
        """A write of CR3 is told in time for every answer, whether that was asked for or not."""
        every = replace(self.intercept(EventKind.CR), flags=InterceptFlag.EVERY_WRITE)
        return [Way(every, lambda: self.provoke(EventKind.CR), ANSWERS[EventKind.CR])]

    def intercept(self, kind: EventKind) -> Intercept:
        return self._intercepts.get(kind, Intercept(kind))

    def provoke(self, kind: EventKind) -> dict[str, int]:
        new, number = next(self._writes), self.intercept(kind).number
        order, told = {
            EventKind.CR: (("write_cr", 3, new), {"number": 3, "new_value": new}),
            EventKind.MSR: (("write_msr", number, new), {"number": number, "new_value": new}),
            EventKind.BREAKPOINT: (("breakpoint", 0x2008), {"physical_address": 0x2008, "instruction_length": 1}),
            EventKind.SINGLE_STEP: (("step",), {}),
            EventKind.PAGE_ACCESS: (
                ("access", self.page + 8, PageAccess.WRITE.value),
                {"physical_address": self.page + 8, "access": PageAccess.WRITE},
            ),
        }[kind]
        assert self._tell(*order) == "told"
        return told

    def value(self, kind: EventKind, machine: Microvmi) -> int:
        return int(self._tell("result"))

    def left(self, machine: Microvmi) -> int:
        return int(self._tell("left"))


def failing(folder: Path) -> Iterator[Failing]:
    """Requests for two frames are refused."""
    pieces, unreadable, unwritable = {0: _numbered(0, 0x60000)}, 0x30000, 0x50000
    with _simulated(folder, pieces, f"unreadable:{unreadable}", f"unwritable:{unwritable}") as (uri, _):
        yield Failing(uri, pieces, unreadable, unwritable)


@contextmanager
def _simulated(folder: Path, pieces: Mapping[int, bytes], *refused: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    for start, content in pieces.items():
        (folder / f"{start:x}").write_bytes(content)
    files = [f"{start}:{folder}/{start:x}" for start in pieces]
    socket = folder / "socket"
    command = [sys.executable, "-m", "drivers.kvm.simulator", str(socket), *files, *refused]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
    ) as machine:
        assert machine.stdout is not None
        assert machine.stdout.readline() == "ready\n"
        yield f"vmi://kvm/?kvm_unix_socket={socket}&library={library(folder)}&timeout=2", machine
        machine.communicate()


def _numbered(start: int, size: int) -> bytes:
    return b"".join((at // 8).to_bytes(8, "little") for at in range(start, start + size, 8))
