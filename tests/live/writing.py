# SPDX-License-Identifier: Apache-2.0
"""A guest in which a program on each vCPU writes registers when it is told to, and counts: see ``writes.c``."""

from __future__ import annotations

import enum
import os
import shlex
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from libmicrovmi_py import Microvmi
from libmicrovmi_py.events import Event, Reply
from libmicrovmi_py.model import PAGE_SIZE

from . import initramfs, packages
from .guest import VCPUS, Boot, Config, Guest

SOURCE = Path(__file__).with_name("writes.c")
PATIENCE = 120.0
"""Seconds in which a guest does its rounds."""

_SETUP = b"cp /writes /tmp\nchmod 755 /tmp/writes\n" + b"".join(b"/tmp/writes %d &\n" % vcpu for vcpu in range(VCPUS))
_MARK_SIZE = 32


class Mode(enum.IntEnum):
    """What a round is; as in the C source."""

    WAIT = 0
    GS_BASE = 1
    TIME_STAMPS = 2
    BREAKPOINT = 3
    CALL = 4
    LOAD = 5


class Counted(NamedTuple):
    """What the program counts."""

    mode: int
    left: int
    done: int
    value: int
    refused: int
    faults: int
    traps: int
    trapped_at: int
    loads: int


@contextmanager
def writing(boot: Boot, folder: Path, line: str, module: bytes, *, options: Sequence[str] = ()) -> Iterator[Guest]:
    """The guest; ``line`` is for its kernel, ``module`` is what it loads."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    subprocess.run([*compiler, "-O1", "-static", "-o", folder / "writes", SOURCE], check=True)
    initrd = folder / "initrd"
    files = {initramfs.SETUP: _SETUP, "/writes": (folder / "writes").read_bytes(), "/module": module}
    initramfs.build(packages.busybox(), initrd, files)
    with Guest(Config("private", 256, line=line), Boot(boot.kernel, initrd), options=options) as guest:
        yield guest


class Writer:
    """The program on one vCPU."""

    def __init__(self, machine: Microvmi, vcpu: int) -> None:
        self._machine = machine
        self._page = _found(machine, f"page of the writer on {vcpu}".encode() + b"\0")

    @property
    def counted(self) -> Counted:
        return Counted(*struct.unpack("<9Q", self._machine.read_physical(self._page + _MARK_SIZE, 72)))

    def begin(self, mode: Mode, rounds: int) -> None:
        """Have it do so many rounds, from the first on."""
        self._machine.write_physical(self._page + _MARK_SIZE + 8, struct.pack("<8Q", rounds, *[0] * 7))
        self._machine.write_physical(self._page + _MARK_SIZE, struct.pack("<Q", mode))

    @property
    def is_done(self) -> bool:
        return self.counted.mode == Mode.WAIT


def _found(machine: Microvmi, mark: bytes) -> int:
    """The page that begins with a mark."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for item in machine.memory_map():
            for start in range(item.start, item.start + item.size, 1 << 24):
                data = machine.read_physical(start, min(1 << 24, item.start + item.size - start))
                at = data.find(mark)
                while at >= 0:
                    if at % PAGE_SIZE == 0:
                        return start + at
                    at = data.find(mark, at + 1)
        time.sleep(0.1)
    raise TimeoutError("the guest's program did not begin")


Answer = Callable[[Event], Reply | None]


def listened(machine: Microvmi, writers: list[Writer], answer: Answer = lambda _: None) -> list[Event]:
    """The events until all the programs have done their rounds, each answered."""
    events = []
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done = all(writer.is_done for writer in writers)  # others of the guest may go on for ever
        event = machine.listen(0.1)
        if event is not None:
            events.append(event)
            machine.reply_event(event, answer(event))
        if done:
            return events
    raise TimeoutError(f"the guest comes to no end: {[writer.counted for writer in writers]}, {events[-3:]}")
