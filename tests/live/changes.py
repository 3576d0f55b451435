# SPDX-License-Identifier: Apache-2.0
"""What others do to a machine that is open, on guests of a few bytes: one function an event."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from libmicrovmi_py import Microvmi

from .tiny import GO, NOTHING, Tiny, out8, out32, tiny, wait_for

MIB, GIB = 1 << 20, 1 << 30
PAGE = 0x200000
"""Guest-physical address of the page that is looked at where main memory is what changes."""

PLUGGED = 4 * GIB
"""Where the first memory that is plugged into a pc begins."""

TABLES = 0x100000
"""Guest-physical address of page tables that map address 0 to the page that is looked at."""

BEFORE, AFTER = b"before--", b"after---"
"""What that page holds before the event, and what the machine has there after it."""

EJECT = out32(0xA00, 0) + out8(0xA14, 8) + b"\xfa\xf4"
"""The firmware gives the first DIMM back, as a guest's driver does when it is asked to, and halts."""

_numbers = itertools.count()

_CLOCK_OF_LOOKS, _LOOK_COUNTS = 6, 0.001
"""CLOCK_MONOTONIC_COARSE, by which a look at QEMU's process counts for so many seconds where a page is kept."""

SLOTS = ("-m", "16M,slots=4,maxmem=8G")


@dataclass
class Stage:
    """A guest for one event, the folder of its files, and who ends what was started for it."""

    guest: Tiny
    folder: Path
    stack: ExitStack
    shared: bool

    def write(self, address: int, data: bytes) -> None:
        """Have somebody else write guest memory."""
        with Microvmi.open(self.guest.uri) as other:
            other.write_physical(address, data)

    def human(self, line: str) -> None:
        """Run a line of the human monitor, which prints nothing if it is done."""
        assert (said := self.guest.monitor.human(line)) == "", said


Act = Callable[[Stage], None]


@dataclass(frozen=True)
class Event:
    """Something that happens to a machine: what is there before, what others do, and at which address it shows.

    ``content`` is what is read there before. ``options`` are those of QEMU.
    """

    prepare: Act
    happen: Act
    address: int = PAGE
    content: bytes = BEFORE
    act: bytes = NOTHING
    options: Sequence[str] = ()
    takes_disk: bool = False


def nothing(stage: Stage) -> None:
    """There is nothing to do."""


def fill(stage: Stage) -> None:
    """The page has its first content."""
    stage.write(PAGE, BEFORE)


def _backend(stage: Stage, name: str) -> None:
    kind = "memfd,share=on" if stage.shared else "ram"
    stage.human(f"object_add memory-backend-{kind},id={name},size=1G")


def plug(stage: Stage, name: str = "first") -> None:
    """Plug 1 GiB in."""
    _backend(stage, name)
    stage.human(f"device_add pc-dimm,id=dimm-{name},memdev={name}")


def plug_and_fill(stage: Stage) -> None:
    plug(stage)
    stage.write(PLUGGED, BEFORE)


def plug_and_use(stage: Stage) -> None:
    plug(stage)
    stage.write(PLUGGED, AFTER)


def plug_virtio(stage: Stage) -> None:
    _backend(stage, "first")
    stage.human("device_add virtio-mem-pci,id=virtio,memdev=first,requested-size=1G")
    stage.write(PLUGGED, AFTER)


def unplug(stage: Stage) -> None:
    """The guest gives the DIMM back, and QEMU its memory."""
    stage.write(GO, b"\1")
    wait_for(lambda: stage.guest.monitor.execute("query-memory-devices") == [], "a DIMM that is gone")
    stage.human("object_del first")


def replace(stage: Stage) -> None:
    """Another one comes in its place."""
    unplug(stage)
    plug(stage, "second")
    stage.write(PLUGGED, AFTER)


def reset(stage: Stage) -> None:
    """QEMU's loader writes the page again at a reset."""
    stage.guest.monitor.execute("system_reset")
    with Microvmi.open(stage.guest.uri) as other:
        wait_for(lambda: other.read_physical(PAGE, len(AFTER)) == AFTER, "a reset")


def save(stage: Stage) -> None:
    stage.write(PAGE, AFTER)
    stage.human("savevm here")
    stage.write(PAGE, BEFORE)


def load(stage: Stage) -> None:
    stage.human("loadvm here")


def migrate_away(stage: Stage) -> None:
    path = stage.folder / f"{stage.guest.name}.away"
    ram = shared_ram() if stage.shared else ()
    stage.stack.enter_context(tiny(stage.folder, options=(*ram, "-incoming", f"unix:{path}")))
    stage.guest.monitor.execute("migrate", uri=f"unix:{path}")
    stage.guest.until("postmigrate")


def migrate_in(stage: Stage) -> None:
    """A machine comes to the one that waits for it."""
    path = stage.folder / f"{stage.guest.name}.come"
    ram = shared_ram() if stage.shared else ()
    source = Stage(stage.stack.enter_context(tiny(stage.folder, options=ram)), stage.folder, stage.stack, stage.shared)
    source.write(PAGE, AFTER)
    write_tables(source, PAGE)
    stage.guest.monitor.execute("migrate-incoming", uri=f"unix:{path}")
    source.guest.monitor.execute("migrate", uri=f"unix:{path}")
    stage.guest.until("running")


def end(stage: Stage) -> None:
    """The looks at the process of before count no longer when this returns: the table is not of the first moment."""
    stage.guest.process.kill()
    stage.guest.process.wait()
    ended = time.monotonic()
    wait_for(lambda: time.clock_gettime(_CLOCK_OF_LOOKS) > ended + _LOOK_COUNTS, "a look that is too old")


def end_and_start_another(stage: Stage) -> None:
    end(stage)
    another = stage.stack.enter_context(tiny(stage.folder, name=stage.guest.name))
    Stage(another, stage.folder, stage.stack, shared=False).write(PAGE, AFTER)


LOADER = ("-device", "loader,addr=0x200000,data=0x2d2d2d7265746661,data-len=8")

EVENTS = {
    "1 GiB is plugged in": Event(nothing, plug_and_use, PLUGGED, b"", options=SLOTS),
    "1 GiB of virtio-mem is plugged in": Event(nothing, plug_virtio, PLUGGED, b"", options=SLOTS),
    "1 GiB is unplugged": Event(plug_and_fill, unplug, PLUGGED, act=EJECT, options=SLOTS),
    "1 GiB is unplugged, another plugged in": Event(plug_and_fill, replace, PLUGGED, act=EJECT, options=SLOTS),
    "reset": Event(fill, reset, options=LOADER),
    "loadvm": Event(save, load, takes_disk=True),
    "migrated away": Event(fill, migrate_away),
    "it waits for a migration": Event(nothing, nothing, content=b"", options=("-incoming", "defer")),
    "it has been migrated here": Event(nothing, migrate_in, content=b"", options=("-incoming", "defer")),
    "QEMU ended": Event(fill, end),
    "QEMU ended, another has its name": Event(fill, end_and_start_another),
}
"""By what the table calls them."""

NOT_PAUSED = ("1 GiB is unplugged", "1 GiB is unplugged, another plugged in", "it waits", "it has been migrated here")
"""Beginnings of the names of those that need a machine that runs, or that cannot be paused."""


def shared_ram() -> tuple[str, ...]:
    return ("-object", "memory-backend-memfd,id=ram,size=16M,share=on", "-machine", "memory-backend=ram")


def write_tables(stage: Stage, page: int) -> None:
    """Page tables of four levels, whose first page is ``page``."""
    for number in range(3):
        stage.write(TABLES + 0x1000 * number, (TABLES + 0x1000 * (number + 1) | 7).to_bytes(8, "little"))
    stage.write(TABLES + 0x3000, (page | 7).to_bytes(8, "little"))


@contextmanager
def staged(event: Event, folder: Path, *, shared: bool) -> Iterator[Stage]:
    """A guest to which ``event`` has yet to happen."""
    with ExitStack() as stack:
        options = [*event.options, *(shared_ram() if shared else ())]
        if event.takes_disk:
            disk = Path(stack.enter_context(_named(folder)))
            options += ["-drive", f"if=none,format=qcow2,file={disk}"]
        stage = Stage(stack.enter_context(tiny(folder, event.act, options)), folder, stack, shared)
        if "-incoming" not in event.options:
            write_tables(stage, event.address)
        event.prepare(stage)
        yield stage


@contextmanager
def _named(folder: Path) -> Iterator[str]:
    """A disk that snapshots can be saved to."""
    path = folder / f"disk-{next(_numbers)}.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(path), "64M"]
    subprocess.run(command, check=True, timeout=60)
    yield str(path)
    path.unlink()
