# SPDX-License-Identifier: Apache-2.0
"""Write the memory of a machine to a file, or into a pipe.

Formats: raw, where byte N of the file is the one at guest-physical address N; lime, the ranges that exist, each
behind a header; elf, a core with the registers of all vCPUs and, of a Linux guest, VMCOREINFO and the kernel's text;
kdump-zlib and kdump-zstd, a kdump file of compressed pages with registers and VMCOREINFO, which into a pipe is
flattened (makedumpfile -R). Pages of zeros take no room on disk.

Until it is whole the file is called FILE.partial. Of a machine that is read as it runs (--live), and of a dump, what
an interrupted run wrote stays, and --resume goes on with it: the rest is then of later moments, as it is with --live
anyway. What it is of is written in it: it goes on for the same machine only, and while that has the same memory. A
snapshot, or a machine that is paused, is of one moment, which is over when the run is: of those nothing stays, nor of
a kdump file, which is written in one go. A live dump is torn: what refers to each other in it may not be of the same
moment.
"""

from __future__ import annotations

import argparse

from libmicrovmi_py.command import kit, writing
from libmicrovmi_py.command.meter import amount, duration
from libmicrovmi_py.drivers.snapshot import SnapshotDriver
from libmicrovmi_py.export.partial import is_resumable
from libmicrovmi_py.export.view import View, never_changes
from libmicrovmi_py.export.writing import Written
from libmicrovmi_py.machine.microvmi import Microvmi


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, the file, and how."""
    kit.machine_argument(parser, view=True)
    writing.file_arguments(parser, "raw")
    parser.add_argument("--resume", action="store_true", help="go on with what an interrupted run left, if it left any")
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Write it."""
    writing.checked(options)
    if options.resume and options.view is None and is_resumable(options.file):
        options.view = View.LIVE
    with kit.viewed(options) as machine:
        view = _view(machine, options)
        instant = view in ("snapshot", "pause")
        written = writing.written(machine, options, instant=instant, resume=options.resume)
    _tell(options, view, written)
    return 0


def _view(machine: Microvmi, options: argparse.Namespace) -> str:
    """What is written: a dump, a snapshot, the machine while it is paused, or as it runs."""
    if isinstance(machine.driver, SnapshotDriver):
        return View.SNAPSHOT.value
    if never_changes(machine):
        return "dump"
    return View(options.view or View.LIVE).value


def _tell(options: argparse.Namespace, view: str, written: Written) -> None:
    size, data = amount(written.size), amount(written.data)
    line = f"{options.file}: {options.format}, {size}, {data} of data, {duration(written.seconds)}"
    document = {"file": options.file, "format": options.format, "view": view, **written._asdict()}
    if options.file == writing.STANDARD_OUTPUT:
        kit.say(line)
    else:
        kit.show(options, document, lambda: [line])
