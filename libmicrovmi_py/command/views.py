# SPDX-License-Identifier: Apache-2.0
"""What a tool reads of a machine: a snapshot, the machine while it is paused, or the machine as it runs."""

from __future__ import annotations

import argparse
import enum
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.command import kit
from libmicrovmi_py.command.meter import Meter, amount
from libmicrovmi_py.command.parser import filled
from libmicrovmi_py.drivers.base import SupportsSnapshots
from libmicrovmi_py.errors import MicrovmiError, NotSupportedError, told
from libmicrovmi_py.machine.microvmi import Microvmi

SMALL = 512 << 20
"""Bytes of memory that are copied in so short a time that a machine may stand for it without being asked: 0.1 s."""


class View(enum.Enum):
    """What is read."""

    SNAPSHOT = "snapshot"
    PAUSE = "pause"
    LIVE = "live"


_HELP = {
    View.SNAPSHOT: "read a copy of one moment, which takes memory here",
    View.PAUSE: "read the machine while it is paused",
    View.LIVE: "read the machine as it runs: what is read is of as many moments as there are reads",
}


def view_arguments(parser: argparse.ArgumentParser, default: View | None) -> None:
    """Have the three options; ``default``: see ``kit.machine_argument``."""
    parser.set_defaults(view=None, default_view=default)
    chosen = default.value if default else "a snapshot where the machine hardly stands for it, else live"
    text = f"Without one of these: {chosen}. A dump, which never changes, is read as it is."
    group = parser.add_argument_group("what is read", filled(text)).add_mutually_exclusive_group()
    for view, line in _HELP.items():
        group.add_argument(f"--{view.value}", dest="view", action="store_const", const=view, help=line)


@contextmanager
def viewed(options: argparse.Namespace) -> Iterator[Microvmi]:
    """As ``kit.viewed``."""
    with kit.opened(options) as machine, view_of(machine, options.view or options.default_view) as view:
        yield view


def never_changes(machine: Microvmi) -> bool:
    """Whether it is a dump or a snapshot."""
    return machine.driver.static or machine.driver.lasting


@contextmanager
def view_of(machine: Microvmi, wanted: View | None) -> Iterator[Microvmi]:
    """A view of an open machine; ``None`` is a snapshot where the machine hardly stands for it, else live."""
    if wanted is View.LIVE or never_changes(machine):
        yield machine
    elif wanted is View.PAUSE:
        machine.pause()  # until it is closed
        kit.say("the machine is paused while it is read")
        yield machine
    else:
        with _snapshot(machine, asked=wanted is View.SNAPSHOT) as copy:
            yield copy


@contextmanager
def _snapshot(machine: Microvmi, *, asked: bool) -> Iterator[Microvmi]:
    """A snapshot; where nobody asked for one, the machine itself if one would take long, or cannot be had."""
    try:
        copy = taken(machine) if asked else _modest(machine)
    except MicrovmiError as err:
        if asked:
            raise
        kit.say(f"the machine is read as it runs, as no snapshot is taken: {told(err)}")
        yield machine
        return
    with copy:
        yield copy


def why_not(machine: Microvmi) -> str:
    """Why no snapshot is taken of a machine without being asked, as far as that is known before one is; else ``""``."""
    if Ability.SNAPSHOT not in machine.abilities.can:
        return f"the {machine.driver.name} driver cannot pause the machine"
    size = _size_of(machine)
    if size > SMALL and not isinstance(machine.driver, SupportsSnapshots):
        return f"the machine would stand while {amount(size)} are copied (--snapshot takes one all the same)"
    return ""


def _size_of(machine: Microvmi) -> int:
    """Bytes of all memory that exists."""
    return sum(item.size for item in machine.memory_map())


def _modest(machine: Microvmi) -> Microvmi:
    """A snapshot for which a machine hardly stands, and that leaves others their memory."""
    if reason := why_not(machine):
        raise NotSupportedError(reason)
    return taken(machine, background_only=_size_of(machine) > SMALL, max_bytes=_half_of_memory())


def _half_of_memory() -> int:
    """Half of what the system says that it has left, in bytes."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return next(int(words[1]) for words in lines if words[0] == "MemAvailable:") << 9


def taken(
    machine: Microvmi, *, pause_only: bool = False, background_only: bool = False, max_bytes: int = 0
) -> Microvmi:
    """A snapshot, with what is told of it; the arguments are those of ``Microvmi.snapshot``."""
    with Meter(0, "taking a snapshot") as meter:

        def report(done: int, total: int) -> None:
            meter.total = total
            meter(done)

        copy = machine.snapshot(
            pause_only=pause_only, background_only=background_only, max_bytes=max_bytes, progress=report
        )
    info = copy.snapshot_info
    stood = f"the machine stood still {info.stood * 1000:.1f} ms"
    kit.say(f"a snapshot is read: {stood}, {amount(info.data_bytes)} of data")
    return copy
