# SPDX-License-Identifier: Apache-2.0
"""Show a machine as a folder of files, for tools that read files.

DIR/memory is memory by guest-physical address, DIR/memory.elf an ELF core with registers of all vCPUs that drgn, gdb
and makedumpfile open, DIR/map.json the memory map, DIR/vcpus/N.json registers; of a Linux guest DIR/processes/PID has
name, maps and memory of each process. It stays until it is unmounted (fusermount3 -u DIR), interrupted, or the machine
has ended. Needs fusermount3 (apt install fuse3), and no rights but those that opening the machine takes.
"""

from __future__ import annotations

import argparse
import sys

from libmicrovmi_py.command import kit, views
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import MicrovmiError, VmGoneError, told
from libmicrovmi_py.export.view import never_changes

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel
    from libmicrovmi_py.machine.microvmi import Microvmi


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, the folder, and how it is looked at."""
    kit.machine_argument(parser, view=True)
    parser.add_argument("folder", metavar="DIR", help="where the files are to be: a folder that exists")
    text = "stay mounted when the machine ends, where a snapshot is read, which is there without it"
    parser.add_argument("--keep", action="store_true", help=text)
    text = "unmount after so long; without it when it is interrupted"
    parser.add_argument("--for", dest="seconds", metavar="SECONDS", type=kit.seconds, help=text)
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until the end of it."""
    from libmicrovmi_py.tools.mount.ending import wait
    from libmicrovmi_py.tools.mount.serving import served
    from libmicrovmi_py.tools.mount.tree import MachineTree

    program = kit.program("fusermount3", "fuse3")
    with kit.opened(options) as machine, views.view_of(machine, options.view or options.default_view) as view:
        lives = None if never_changes(machine) or (options.keep and view is not machine) else machine
        tree = MachineTree(view, _kernel(view))
        with served(tree, options.folder, program=program, name=options.machine) as server:
            document = {"folder": options.folder, "fixed": tree.fixed, "processes": tree.has_processes}
            kit.show(options, document, lambda: [f"mounted at {options.folder}"])
            sys.stdout.flush()
            reason = wait(server, lives, options.seconds)
    if reason:
        kit.say(f"unmounted: {reason}")
    return 0


def _kernel(machine: Microvmi) -> Kernel | None:
    """The guest's kernel if it is a Linux one; standard error says what is not there without."""
    from libmicrovmi_py.linux.kernel import Kernel

    try:
        kernel = Kernel.find(machine)
    except VmGoneError:
        raise
    except MicrovmiError as err:
        kit.say(f"no processes, and memory.elf without VMCOREINFO: {told(err)}")
        return None
    if kernel.types is None:
        kit.say(f"no processes: {kernel.why_no_types}")
    return kernel
