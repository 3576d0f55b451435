# SPDX-License-Identifier: Apache-2.0
"""Write the memory of a machine to a file, or into a pipe.

Formats: raw, where byte N of the file is the one at guest-physical address N; lime, the ranges that exist, each
behind a header; elf, a core with the registers of all vCPUs and, of a Linux guest, VMCOREINFO and the kernel's text.
Pages of zeros take no room on disk.

Until it is whole the file is called FILE.partial. Of a machine that is read as it runs (--live), and of a dump, what
an interrupted run wrote stays, and --resume goes on with it: the rest is then of later moments, as it is with --live
anyway. What it is of is written in it: it goes on for the same machine only, and while that has the same memory. A
snapshot, or a machine that is paused, is of one moment, which is over when the run is: of those nothing stays. A live
dump is torn: what refers to each other in it may not be of the same moment.
"""

from __future__ import annotations

import argparse

from libmicrovmi_py.command import kit, views, writing
from libmicrovmi_py.command.meter import amount, duration
from libmicrovmi_py.command.partial import is_resumable
from libmicrovmi_py.drivers.snapshot import SnapshotDriver
from libmicrovmi_py.machine.microvmi import Microvmi


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, the file, and how."""
    kit.machine_argument(parser, view=True)
    writing.file_arguments(parser, "raw")
    parser.add_argument("--resume", action="store_true", help="go on with what an interrupted run left, if it left any")
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Write it."""
    stream = writing.checked(options)
    if options.resume and options.view is None and is_resumable(options.file):
        options.view = views.View.LIVE
    with kit.viewed(options) as machine:
        layout = writing.layout_of(machine, options.format)
        view = _view(machine, options)
        if stream:
            written = writing.to_stream(layout, options.file)
        else:
            instant = view in ("snapshot", "pause")
            subject = writing.subject_of(machine, layout, options.format, instant=instant)
            written = writing.to_file(layout, options.file, subject, resume=options.resume, force=options.force)
    _tell(options, view, written)
    return 0


def _view(machine: Microvmi, options: argparse.Namespace) -> str:
    """What is written: a dump, a snapshot, the machine while it is paused, or as it runs."""
    if isinstance(machine.driver, SnapshotDriver):
        return views.View.SNAPSHOT.value
    if views.never_changes(machine):
        return "dump"
    return views.View(options.view or views.View.LIVE).value


def _tell(options: argparse.Namespace, view: str, written: writing.Written) -> None:
    size, data = amount(written.size), amount(written.data)
    line = f"{options.file}: {options.format}, {size}, {data} of data, {duration(written.seconds)}"
    document = {"file": options.file, "format": options.format, "view": view, **written._asdict()}
    if options.file == writing.STANDARD_OUTPUT:
        kit.say(line)
    else:
        kit.show(options, document, lambda: [line])
