# SPDX-License-Identifier: Apache-2.0
"""Keep a machine as it is at one moment: memory, and the registers of all vCPUs, in a file.

The file is a dump, which every subcommand takes for a machine; an ELF core unless another format is named, as the
others have no registers. The machine stands for as long as its hypervisor needs, or while its memory is copied; then
it goes on, and the copy is written. Pages of zeros take no room on disk. An interrupted snapshot leaves nothing.
"""

from __future__ import annotations

import argparse

from libmicrovmi_py.command import kit, views, writing
from libmicrovmi_py.command.meter import amount


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, the file, and how it is taken."""
    kit.machine_argument(parser)
    writing.file_arguments(parser, "elf")
    text = "pause the machine while it is copied, whatever else its hypervisor can"
    parser.add_argument("--pause-only", action="store_true", help=text)
    text = "the most that the copy may take in memory, as 2G"
    parser.add_argument("--max", metavar="SIZE", type=kit.size, default=0, help=text)
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Take it, let go of the machine, and write."""
    writing.checked(options)
    with kit.opened(options) as machine:
        copy = views.taken(machine, pause_only=options.pause_only, max_bytes=options.max)
    with copy:
        written = writing.written(copy, options, instant=True)
        info = copy.snapshot_info
    document = {
        "file": options.file,
        "format": options.format,
        "method": info.method.name.lower(),
        "stood": info.stood,
        "taken_at": info.taken_at / 1e9,
        **written._asdict(),
    }
    line = f"{options.file}: {options.format}, {amount(written.size)}, {amount(written.data)} of data"
    if options.file == writing.STANDARD_OUTPUT:
        kit.say(line)
    else:
        kit.show(options, document, lambda: [line])
    return 0
