# SPDX-License-Identifier: Apache-2.0
"""Show the kernel's log of a Linux guest, as dmesg does.

The kernel itself says where it is: no symbol file, nothing in the guest. Kernels since 5.10.
"""

from __future__ import annotations

import argparse

from libmicrovmi_py.command import kit
from libmicrovmi_py.export.view import View
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.linux.log import log

LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, and what is shown."""
    kit.machine_argument(parser, view=True, default=View.LIVE)
    parser.add_argument("--level", choices=LEVELS, default=LEVELS[-1], help="only what is as bad as this, or worse")
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Read it."""
    most = LEVELS.index(options.level)
    with kit.viewed(options) as machine:
        lines = [line for line in log(Kernel.find(machine)) if line.level <= most]
    document = [{"seconds": line.seconds, "level": LEVELS[line.level], "text": line.text} for line in lines]
    kit.show(options, document, lambda: [text for line in lines for text in line.lines()])
    return 0
