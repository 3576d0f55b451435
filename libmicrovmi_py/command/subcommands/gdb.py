# SPDX-License-Identifier: Apache-2.0
"""Debug a machine: start gdb on it, or serve any debugger that speaks gdb's remote protocol (lldb, IDA, Ghidra).

The machine stands while a debugger is connected, but for what the debugger lets it run, and is left as it was found
when the debugger detaches or goes away. Of a Linux guest gdb gets the kernel's symbols, and how to undo its frames, out
of its memory. What follows -- is for gdb:

  microvmi gdb debian -- -ex bt

With --listen nothing is started: connect with target remote (gdb), gdb-remote (lldb). Who connects reads the machine
and writes to it: a UNIX socket is its user's own, at a TCP port every user of this computer can. Breakpoints and steps
work where the driver has such events; monitor help lists what there is beside gdb's own commands.
"""

from __future__ import annotations

import argparse
import shlex

from libmicrovmi_py.command import kit
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import MicrovmiError, VmGoneError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.gdb import launch
from libmicrovmi_py.tools.gdb.serve import listening, serve, target

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, where to listen, which symbols, and what is gdb's."""
    kit.machine_argument(parser)
    parser.add_argument(
        "--listen",
        metavar="WHERE",
        help="serve debuggers, until Ctrl-C, at a path (a UNIX socket), or at 127.0.0.1:PORT, where every user of this "
        "computer can read and write the machine; port 0 is any that is free",
    )
    parser.add_argument("--gdb", metavar="PROGRAM", default="", help="another gdb than that of the system")
    parser.add_argument("--vmlinux", metavar="FILE", help="the kernel's own symbol file, in place of what is made")
    parser.add_argument("--no-symbols", action="store_true", help="look for no Linux kernel, and load no symbols")
    parser.add_argument("words", metavar="ARGUMENT", nargs="*", help="behind --, for gdb")


def run(options: argparse.Namespace) -> int:
    """Serve, or start gdb."""
    with kit.opened(options) as machine:
        program = "" if options.listen else launch.found(options.gdb, machine.driver.architecture)
        kernel = None if options.no_symbols else _kernel(machine)
        commands = _commands(options, kernel)
        if program:
            return launch.debug(machine, program, commands, options.words, kernel)
        with listening(options.listen) as listener:
            for command in [*commands, f"target remote {target(listener)}"]:
                print(command, flush=True)
            serve(machine, listener, kernel=kernel)
    return 0


def _kernel(machine: Microvmi) -> Kernel | None:
    """The guest's, if it is one that tells; standard error says why there are no symbols."""
    from libmicrovmi_py.linux.kernel import Kernel

    try:
        return Kernel.find(machine)
    except VmGoneError:
        raise
    except MicrovmiError as err:
        kit.say(f"no symbols: {err}")
        return None


def _commands(options: argparse.Namespace, kernel: Kernel | None) -> list[str]:
    """What gdb is told of symbols."""
    from libmicrovmi_py.tools.gdb import symbols

    if options.vmlinux:
        return [f"symbol-file {shlex.quote(options.vmlinux)} -o {kernel.kaslr_offset if kernel else 0:#x}"]
    if kernel is None:
        return []
    try:
        return [f"file {shlex.quote(str(symbols.symbol_file(kernel)))}"]
    except VmGoneError:
        raise
    except MicrovmiError as err:
        kit.say(f"no symbols: {err}")
        return []
