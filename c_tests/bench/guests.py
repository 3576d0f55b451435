# SPDX-License-Identifier: Apache-2.0
"""The machines that are measured: QEMU guests booted for real and then stopped, or a memory image."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from programs import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from live.guest import MIB, QEMU, Boot, Config, Guest, obtain_boot
from live.monitor import Monitor
from live.packages import Unobtainable

SHARED_MEMORY = Path("/dev/shm")
NEEDED = {512: 1 << 30, 4096: 5 << 30}
"""Bytes that have to be free there for a guest of so many MiB: what it takes if all of it is touched, and a dump."""


class Unavailable(Exception):
    """That machine cannot be had here; the text says why."""


@dataclass(frozen=True)
class Machine:
    """A machine, and where its memory between two guest-physical addresses lies in one piece.

    Either in the file ``ram``, the address being the offset, or in a process, from ``hva`` on for address 0.
    """

    uri: str
    start: int
    end: int
    name: str = ""
    ram: Path | None = None
    pid: int = 0
    hva: int = 0
    monitor: Path | None = None

    def stop(self) -> None:
        """Have the guest stand, whatever the measuring before did."""
        if self.monitor:
            Monitor(self.monitor).execute("stop")

    def arguments(self) -> list[str]:
        """What the program ``bench`` has to know."""
        where = [f"ram={self.ram}"] if self.ram else [f"pid={self.pid}", f"hva={self.hva:#x}"]
        return [*where, f"uri={self.uri}", f"start={self.start:#x}", f"end={self.end:#x}"]


def image(path: Path) -> Machine:
    """A raw memory image in place of a guest with shared RAM."""
    path = path.resolve()
    try:
        end = path.stat().st_size // MIB * MIB
    except OSError as err:
        raise Unavailable(f"{path}: {err.strerror}") from err
    if end < 10 * MIB:
        raise Unavailable(f"{path}: an image of at least 10 MiB is needed")
    return Machine(str(path), 0, end, str(path), path)


def boot(directory: Path) -> Boot:
    """What guests boot from."""
    if shutil.which(QEMU) is None:
        raise Unavailable(f"{QEMU} is not installed: apt-get install qemu-system-x86 busybox-static")
    try:
        return obtain_boot(directory)
    except Unobtainable as err:
        raise Unavailable(str(err)) from err


def check_room(mib: int) -> None:
    """Refuse a guest that the memory file system has no room for."""
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    if free < NEEDED[mib]:
        raise Unavailable(f"a guest of {mib} MiB needs {NEEDED[mib] >> 20} MiB free in {SHARED_MEMORY}")


@contextmanager
def in_shared_memory() -> Iterator[None]:
    """Guests that are made within the ``with`` block keep their files in the memory file system."""
    before = tempfile.tempdir
    tempfile.tempdir = str(SHARED_MEMORY)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def shared_memory_name(machine: Machine) -> Iterator[str]:
    """A name for ``shm_open()``, which knows no folders; empty for a machine whose RAM file is not there."""
    if machine.ram is None or SHARED_MEMORY not in machine.ram.parents or machine.monitor is None:
        yield ""
        return
    link = SHARED_MEMORY / machine.ram.parent.name.replace("live", "bench")
    link.unlink(missing_ok=True)  # of a run that was broken off
    link.hardlink_to(machine.ram)
    try:
        yield link.name
    finally:
        link.unlink()


@contextmanager
def stopped(kind: str, mib: int, boot: Boot) -> Iterator[Machine]:
    """An idle guest, booted and stopped, with ``shared`` or ``private`` RAM."""
    check_room(mib)
    with in_shared_memory(), Guest(Config("file" if kind == "shared" else "private", mib), boot) as guest:
        guest.monitor.execute("stop")
        hva = int(guest.monitor.human(f"gpa2hva {MIB:#x}").split()[-1], 16) - MIB
        end = min(guest.config.size, 3072 * MIB)
        ram = guest.ram_file if kind == "shared" else None
        yield Machine(guest.uri, MIB, end, guest.name, ram, guest.pid, hva, guest.monitor.path)


@contextmanager
def bare(kind: str) -> Iterator[Machine]:
    """A guest with firmware only and ``shared`` or ``private`` RAM, whose measured part may be overwritten."""
    check_room(512)
    with in_shared_memory(), Guest(Config("file" if kind == "shared" else "private", 512)) as guest:
        hva = int(guest.monitor.human(f"gpa2hva {MIB:#x}").split()[-1], 16) - MIB
        ram = guest.ram_file if kind == "shared" else None
        yield Machine(guest.uri, 128 * MIB, 256 * MIB, guest.name, ram, guest.pid, hva, guest.monitor.path)


@contextmanager
def many_vcpus(count: int, events: Path) -> Iterator[Machine]:
    """A guest with firmware only and so many vCPUs; ``events`` becomes a second monitor."""
    if shutil.which(QEMU) is None:
        raise Unavailable(f"{QEMU} is not installed: apt-get install qemu-system-x86")
    options = ("-smp", str(count), "-qmp", f"unix:{events},server=on,wait=off")
    with Guest(Config("private", 128), options=options) as guest:
        yield Machine(guest.uri, 0, 0, guest.name, pid=guest.pid, monitor=guest.monitor.path)


@contextmanager
def empty(*sizes: int) -> Iterator[list[Machine]]:
    """Guests of so many MiB on sparse files that hold firmware only, side by side."""
    check_room(512)
    with ExitStack() as stack:
        stack.enter_context(in_shared_memory())
        guests = [stack.enter_context(Guest(Config("file", mib))) for mib in sizes]
        yield [Machine(guest.uri, MIB, 512 * MIB, guest.name, guest.ram_file) for guest in guests]
