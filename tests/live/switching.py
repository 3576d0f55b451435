# SPDX-License-Identifier: Apache-2.0
"""Guests that change between two address spaces as often as they are told, and count it themselves; see switcher.c."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from libmicrovmi_py import Microvmi

from . import initramfs, packages
from .guest import VCPUS, Boot, Config, Guest

_PAGE = 4096
_TARGET, _TURNS, _LAST, _RESTS = 32, 40, 48, 56
"""Where in the page the numbers are."""

SECONDS = 60.0
"""That a guest may take for what it was told."""


def program(folder: Path) -> bytes:
    """The guest's program, compiled."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    source = Path(__file__).with_name("switcher.c")
    command = [
        *compiler,
        "-O2",
        "-static",
        "-D_GNU_SOURCE",
        "-Wall",
        "-Werror",
        str(source),
        "-o",
        str(folder / "switcher"),
    ]
    subprocess.run(command, check=True)
    return (folder / "switcher").read_bytes()


@contextmanager
def switching_guest(
    boot: Boot, folder: Path, line: str = "nokaslr", *, options: Sequence[str] = (), setup: str = ""
) -> Iterator[Guest]:
    """A guest with a pair of processes on each vCPU, started with ``line`` by a kernel."""
    pairs = setup or "".join(f"/switcher {vcpu} &\n" for vcpu in range(VCPUS))
    initrd = folder / "initrd"
    files = {"/switcher": program(folder), initramfs.SETUP: f"chmod 755 /switcher\n{pairs}".encode()}
    initramfs.build(packages.busybox(), initrd, files)
    with Guest(Config("private", 256, line=line), Boot(boot.kernel, initrd), options=options) as guest:
        yield guest


class Switcher:
    """The pair of processes of a vCPU, told and asked through the guest's memory."""

    def __init__(self, guest: Guest, vcpu: int) -> None:
        self._machine = Microvmi.open(guest.uri)
        magic = f"switcher: turns of vCPU {vcpu}\0".encode()
        deadline = time.monotonic() + SECONDS
        while (found := self._find(magic, guest.config.size)) is None:
            assert time.monotonic() < deadline, f"no switcher on vCPU {vcpu}: {guest.console}"
        self._page = found

    def _find(self, magic: bytes, size: int) -> int | None:
        memory = bytearray(size)
        self._machine.read_physical_padded_into(0, memory)
        place = memory.find(magic)
        while place >= 0 and place % _PAGE:
            place = memory.find(magic, place + 1)
        return place if place >= 0 else None

    def _number(self, place: int) -> int:
        return int.from_bytes(self._machine.read_physical(self._page + place, 8), "little")

    @property
    def turns(self) -> int:
        """Taken so far."""
        return self._number(_TURNS)

    def order(self, turns: int) -> None:
        """Have so many more taken."""
        self._machine.write_physical(self._page + _TARGET, (self.turns + turns).to_bytes(8, "little"))

    @property
    def done(self) -> bool:
        """Whether all of them were, and the first process has the vCPU again, for good."""
        rests = self.turns >= self._number(_TARGET) and self._number(_RESTS) == 1
        return rests and not self._number(_LAST)

    def await_done(self) -> None:
        """Wait for that."""
        deadline = time.monotonic() + SECONDS
        while not self.done:
            assert time.monotonic() < deadline, f"{self.turns} of {self._number(_TARGET)}"
            time.sleep(0.005)

    def close(self) -> None:
        """Let go of the machine."""
        self._machine.close()


def changes_between_two(values: Iterable[int]) -> int:
    """How often the two address spaces that come most follow each other in what was told.

    The program's first process has the vCPU before, and at the end.
    """
    told = list(values)
    pair = {value for value, _ in Counter(told).most_common(2)}
    turns = [value for value in told if value in pair]
    changes = [now for before, now in zip([turns[-1], *turns], turns, strict=False) if now != before]
    return len(changes)
