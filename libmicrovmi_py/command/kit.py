# SPDX-License-Identifier: Apache-2.0
"""What subcommands are made of: the machine, how it is looked at, what is printed, how far long work is."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from libmicrovmi_py.command.meter import Meter
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import NoDriverError, escaped, told
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.transport.deadline import limited

if TYPE_CHECKING:
    from libmicrovmi_py.export.view import View

VM_HELP = (
    "the machine: its name, process id or UUID, a URI (vmi://DRIVER/?key=value&...), or the path of a dump; "
    "microvmi list shows those that there are"
)
MACHINES = ("VM", "NEW")
"""What arguments are called that are machines: shells complete their names."""

_LONGEST_WAIT = 86400.0
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Failure(Exception):
    """What ends a subcommand: ``message`` is its line on standard error, ``code`` the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(escaped(message))
        self.code = code


# ------------------------------------------------------------------------------------------------- the machine ----


def machine_argument(parser: argparse.ArgumentParser, *, view: bool = False, default: View | None = None) -> None:
    """Have ``VM`` and ``--timeout``; with ``view`` also what is read of it: :func:`viewed` goes by that.

    ``default`` is the view where the user names none: ``None`` is a snapshot where its stop is short, else live.
    """
    parser.add_argument("machine", metavar="VM", help=VM_HELP)
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, default=None, help="how long opening the machine may take"
    )
    if view:
        from libmicrovmi_py.command.views import view_arguments

        view_arguments(parser, default)


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Microvmi]:
    """The machine that ``VM`` names, closed at the end of the block: whatever was done to it is undone then."""
    with open_machine(options.machine, options.timeout) as machine:
        yield machine


def open_machine(name: str, timeout: float | None = None) -> Microvmi:
    """The machine of a name, a process id, a UUID, a URI or the path of a dump; ``timeout`` is in seconds."""
    try:
        with limited(_LONGEST_WAIT if timeout is None else timeout):
            return Microvmi.open(name)
    except NoDriverError as err:
        if "://" in name:
            raise
        if err.machine_found:  # the reason why it cannot be opened is the first
            raise Failure(told(err).split("\n")[1]) from err
        raise Failure(f"there is no machine and no file {name}; microvmi list shows the machines") from err


def viewed(options: argparse.Namespace) -> AbstractContextManager[Microvmi]:
    """What a tool reads, as the options say: a snapshot, the machine while it is paused, or as it runs.

    A dump is itself. Standard error says which it is. For subcommands with ``machine_argument(parser, view=True)``.
    """
    from libmicrovmi_py.command import views

    return views.viewed(options)


# --------------------------------------------------------------------------------------------------- arguments ----


def address(text: str) -> int:
    """An address, for argparse: decimal, or hexadecimal with 0x. 0 to 2**64 - 1."""
    return _whole(text, "an address (0x1000, or 4096)")


def size(text: str) -> int:
    """A number of bytes, for argparse: as an address, or with K, M, G or T behind it, which are powers of 1024."""
    unit = _UNITS.get(text[-1:].upper(), 0)
    return _whole(text[:-1] if unit else text, "a size (4096, 0x1000, 64K, 2M, 1G)", unit or 1)


def _whole(text: str, wanted: str, unit: int = 1) -> int:
    try:
        value = int(text, 0) * unit
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"{escaped(text)!r} is not {wanted}")
    return value


def seconds(text: str) -> float:
    """A time in seconds, for argparse: more than 0, at most a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= _LONGEST_WAIT:
        raise argparse.ArgumentTypeError(f"{escaped(text)!r} is not a number of seconds above 0, a day at the most")
    return value


# ------------------------------------------------------------------------------------------------------- output ---


def json_argument(parser: argparse._ActionsContainer) -> None:
    """Have ``--json``: :func:`show` goes by that."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def show(options: argparse.Namespace, value: object, text: Callable[[], Iterable[str]]) -> None:
    """Print ``value`` as one JSON document, or the lines of ``text()``, safe for a terminal.

    In JSON addresses, values of registers and contents of memory are texts (``"0x1000"``), as many programs keep no
    more than 53 bits of a number; sizes, counts and times are numbers.
    """
    if options.json:
        json.dump(value, sys.stdout, indent=2 if sys.stdout.isatty() else None)
        print()
        return
    for line in text():
        print(escaped(line))


def table(rows: Iterable[tuple[str, ...]], right: Iterable[int] = ()) -> list[str]:
    """Rows of cells, the first of them the heads, as lines of columns; those of the numbers in ``right`` end alike."""
    lines = [tuple(map(escaped, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = set(right)
    return [
        "  ".join(
            cell.rjust(width) if at in sides else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in lines
    ]


def say(text: str) -> None:
    """One line on standard error, for whoever watches: what is done, not what was found."""
    print(f"microvmi: {escaped(text)}", file=sys.stderr, flush=True)


def progress(total: int, what: str, unit: str = "B") -> AbstractContextManager[Callable[[int], None]]:
    """How far long work is, on a terminal, with the rate and the time that is left; nothing in a pipe.

    The block gets a function that is told how much of ``total`` is done, as often as it likes; ``total`` 0 is not
    known. ``unit``: ``B`` for bytes, else what is counted.
    """
    return Meter(total, what, unit)


# --------------------------------------------------------------------------------------------------- other things --


def program(name: str, package: str) -> str:
    """The path of a program that is the user's own. Raises :class:`Failure` that says how to install it."""
    path = shutil.which(name)
    if path is None:
        raise Failure(f"{name} is not installed: apt install {package}")
    return os.path.abspath(path)
