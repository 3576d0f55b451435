# SPDX-License-Identifier: Apache-2.0
"""Serve the memory over NBD, read-only: for qemu-img, nbdcopy, and whoever reads disks over a network.

Starts nbdkit, which has to be there, prints the URI that clients connect to, and serves until it is ended. Byte N is
guest-physical address N, and what holds nothing is a hole; --elf and --lime serve files of these formats instead.

With --run a command of the shell is run, which finds the URI in $uri, and what it ends with is the exit code:

    microvmi nbd debian --run 'qemu-img convert -O qcow2 "$uri" debian.qcow2'
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from libmicrovmi_py.command import kit, views
from libmicrovmi_py.drivers.control import Phase, SupportsPause
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.export.view import View, never_changes, why_not
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.nbd import server

_TOLD = {
    View.SNAPSHOT: "a snapshot is served",
    View.PAUSE: "the machine is paused while it is served",
    View.LIVE: "the machine is served as it runs",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, what is served of it, and where."""
    kit.machine_argument(parser, view=True)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--elf", dest="format", action="store_const", const="elf", help="an ELF core, with registers")
    form.add_argument("--lime", dest="format", action="store_const", const="lime", help="a LiME file")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--socket", metavar="PATH", help="a UNIX socket there, instead of one in a private directory")
    where.add_argument(
        "--listen", metavar="[HOST:]PORT", type=_place, help="a TCP port, for all users of this computer"
    )
    parser.add_argument("--run", metavar="COMMAND", help="serve as long as this command of the shell runs")
    parser.set_defaults(format="raw")
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until it is ended."""
    nbdkit = kit.program("nbdkit", "nbdkit")
    with kit.opened(options) as machine, _where(options) as place:
        view = _view(machine, options)
        line = server.command(nbdkit, server.Export(options.machine, view.value, options.format), place)
        told = {"uri": place.uri, "format": options.format, "view": view.value, "memory": machine.max_addr}
        with _running(machine, view, line, place) as process:
            kit.show(options, told, lambda: [place.uri])
            sys.stdout.flush()  # whoever reads it waits for it
            if options.run is not None:
                return server.run_beside(options.run, place, process, kit.say)
            code = server.relay(process, kit.say)
    raise kit.Failure(f"nbdkit ended {f'with code {code}' if code >= 0 else f'by signal {-code}'}")


@contextmanager
def _running(
    machine: Microvmi, view: View, line: Sequence[str], place: server.Place
) -> Iterator[subprocess.Popen[str]]:
    """As ``server.running``. nbdkit pauses the machine and lets it run at its end; if it crashes, that is done here."""
    driver = machine.driver
    paused = view is View.PAUSE and isinstance(driver, SupportsPause) and driver.run_state().phase is Phase.RUNS
    with server.running(line, place, machine.resume if paused else None) as process:
        yield process


def _place(text: str) -> server.Place:
    try:
        return server.loopback(text)
    except InvalidArgumentError as err:
        raise argparse.ArgumentTypeError(str(err)) from err


def _where(options: argparse.Namespace) -> AbstractContextManager[server.Place]:
    if options.listen or options.socket:
        return nullcontext(options.listen or server.Place(path=options.socket))
    return server.private_place()


def _view(machine: Microvmi, options: argparse.Namespace) -> View:
    """Which one nbdkit is to take; standard error says it."""
    if never_changes(machine):
        return View.LIVE
    view = options.view or View.SNAPSHOT
    if options.view is None and (reason := why_not(machine, views.WORDS)):
        kit.say(f"the machine is served as it runs, as there is no snapshot: {reason}")
        return View.LIVE
    kit.say(_TOLD[view])
    return view
