# SPDX-License-Identifier: Apache-2.0
"""Show which memory is not the same: of two machines or dumps, or of one machine at two moments.

    microvmi diff OLD NEW             two dumps, or a dump and the machine, or two machines
    microvmi diff VM --wait 5         a snapshot now, and the machine 5 seconds later

Lines are runs of whole frames of 4096 bytes: start, one past the last byte, size, kind. What one of the two does not
have is different. With --exit-code 3 is the exit code of what is different.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.command import kit, views
from libmicrovmi_py.command.meter import amount
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import PAGE_SIZE, MemoryRange

DIFFERENT = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    """One machine or two, and a time."""
    kit.machine_argument(parser, view=True)
    parser.add_argument("newer", metavar="NEW", nargs="?", help="the other machine, or the path of another dump")
    parser.add_argument("--wait", metavar="SECONDS", type=kit.seconds, help="how long to wait between the two moments")
    parser.add_argument("--exit-code", action="store_true", help=f"exit code {DIFFERENT} if something is different")
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Compare."""
    if (options.newer is None) == (options.wait is None):
        raise kit.Failure("name another machine, or with --wait how long to wait for this one", 2)
    found: list[MemoryRange] = []
    with _two(options) as (older, newer):
        for item in older.diff(newer):
            found.append(item)
    kit.show(options, _document(found), lambda: _lines(found))
    return DIFFERENT if found and options.exit_code else 0


@contextmanager
def _two(options: argparse.Namespace) -> Iterator[tuple[Microvmi, Microvmi]]:
    if options.newer is not None:
        with (
            kit.viewed(options) as older,
            kit.open_machine(options.newer, options.timeout) as machine,
            views.view_of(machine, options.view) as newer,
        ):
            yield older, newer
        return
    with kit.opened(options) as machine, views.taken(machine) as older:
        time.sleep(options.wait)
        with views.view_of(machine, options.view) as newer:
            yield older, newer


def _document(found: list[MemoryRange]) -> dict[str, object]:
    ranges = [
        {"start": f"{item.start:#x}", "end": f"{item.end:#x}", "size": item.size, "kind": item.kind.name.lower()}
        for item in found
    ]
    return {"frames": sum(item.size for item in found) // PAGE_SIZE, "ranges": ranges}


def _lines(found: list[MemoryRange]) -> Iterator[str]:
    for item in found:
        yield f"{item.start:#014x}  {item.end:#014x}  {amount(item.size):>10}  {item.kind.name.lower()}"
    total = sum(item.size for item in found)
    yield f"{total // PAGE_SIZE} frames in {len(found)} runs are different, {amount(total)}"
