# SPDX-License-Identifier: Apache-2.0
"""What a tool reads of a machine: a snapshot, the machine while it is paused, or the machine as it runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.meter import Meter, amount
from libmicrovmi_py.command.parser import filled
from libmicrovmi_py.errors import MicrovmiError, told
from libmicrovmi_py.export.partial import Words
from libmicrovmi_py.export.view import View, modest, never_changes
from libmicrovmi_py.machine.microvmi import Microvmi

WORDS = Words("--force", "--resume", "--live", "--snapshot")
"""What the options are called of the command."""

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


def _modest(machine: Microvmi) -> Microvmi:
    """A snapshot for which a machine hardly stands, and that leaves others their memory."""
    background_only, most = modest(machine, WORDS)
    return taken(machine, background_only=background_only, max_bytes=most)


def taken(
    machine: Microvmi, *, pause_only: bool = False, background_only: bool = False, max_bytes: int = 0
) -> Microvmi:
    """A snapshot, with what is told of it; the arguments are those of ``Microvmi.snapshot``."""
    with Meter(0, "taking a snapshot") as meter:
        copy = machine.snapshot(
            pause_only=pause_only, background_only=background_only, max_bytes=max_bytes, progress=meter.report
        )
    info = copy.snapshot_info
    stood = f"the machine stood still {info.stood * 1000:.1f} ms"
    kit.say(f"a snapshot is read: {stood}, {amount(info.data_bytes)} of data")
    return copy
