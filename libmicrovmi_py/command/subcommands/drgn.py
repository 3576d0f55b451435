# SPDX-License-Identifier: Apache-2.0
"""Look at a Linux guest's kernel with drgn: its prompt, or a script.

  microvmi drgn [-s VMLINUX] VM
  microvmi drgn VM script.py ARGUMENT...

As with drgn itself, "prog" is the kernel; a script comes from standard input where that is no terminal. Debug
information is taken by build id from where the system keeps it, and servers are asked only with --debuginfod. Without
any the kernel's own types (BTF) serve: all types and constants, functions, and variables of which the type is known.
"""

from __future__ import annotations

import argparse
import sys

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.optional import need
from libmicrovmi_py.export.view import View, never_changes
from libmicrovmi_py.linux.kernel import Kernel


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, what is read of it, where debug information is, and the script."""
    kit.machine_argument(parser, view=True, default=View.LIVE)
    parser.add_argument(
        "-s", "--symbols", metavar="PATH", action="append", default=[], help="a file with debug information (vmlinux)"
    )
    parser.add_argument("--debuginfod", action="store_true", help="ask the servers of DEBUGINFOD_URLS as well")
    parser.add_argument("script", metavar="SCRIPT", nargs=argparse.REMAINDER, help="a script, and its arguments")


def run(options: argparse.Namespace) -> int:
    """Prepare the program, and run what is to be run on it."""
    path, words = (options.script or [None])[0], options.script[1:]
    if path is not None and path.startswith("-"):
        raise kit.Failure(f"{path} stands behind VM, where the script does: options stand before it", code=2)
    need("drgn")
    from libmicrovmi_py.tools.drgn import program, running

    with kit.viewed(options) as machine:
        live = not never_changes(machine)
        prog, known = program.program_of(
            machine, Kernel.find(machine), options.symbols, debuginfod=options.debuginfod, live=live
        )
        kit.say(f"types and variables are those of {known.value}")
        if path is None and sys.stdin.isatty():
            running.prompt(prog)
            return 0
        return running.script(prog, path, words)
