# SPDX-License-Identifier: Apache-2.0
"""Show memory, as lines of bytes or as it is (--raw).

ADDRESS is guest-physical, or virtual with --virtual. What was read before memory that does not exist is shown before
the error. Without an option the machine is read as it runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.hexdump import lines
from libmicrovmi_py.command.spaces import is_virtual, space_arguments, space_of
from libmicrovmi_py.export.view import View
from libmicrovmi_py.machine.microvmi import Microvmi

_SIZE = 256
_PIECE = 1 << 16

Read = Callable[[int, memoryview], object]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, where, how much, and how it is shown."""
    kit.machine_argument(parser, view=True, default=View.LIVE)
    parser.add_argument("address", metavar="ADDRESS", type=kit.address, help="the first byte")
    parser.add_argument(
        "size",
        metavar="SIZE",
        type=kit.size,
        nargs="?",
        default=_SIZE,
        help=f"bytes, {_SIZE} if not given; also 4K, 1M",
    )
    parser.add_argument("--pad", action="store_true", help="what does not exist is zeros, and no error")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="the bytes themselves, for a file or a pipe")
    kit.json_argument(form)
    space_arguments(parser, switch=True)


def run(options: argparse.Namespace) -> int:
    """Read it."""
    if options.raw and sys.stdout.isatty():
        raise kit.Failure("standard output is a terminal: --raw is for a file or a pipe")
    with kit.viewed(options) as machine:
        pieces = _pieces(*_calls(machine, options), options.address, options.size)
        if options.raw:
            for _, data in pieces:
                sys.stdout.buffer.write(data)
        else:
            value = _document(options, pieces) if options.json else None
            kit.show(options, value, lambda: lines(pieces))
    return 0


def _document(options: argparse.Namespace, pieces: Iterator[tuple[int, bytes]]) -> dict[str, object]:
    data = b"".join(data for _, data in pieces)
    return {"address": f"{options.address:#x}", "size": len(data), "data": data.hex()}


def _calls(machine: Microvmi, options: argparse.Namespace) -> tuple[Callable[[int, memoryview], int], Read]:
    """What reads up to what does not exist and tells how much that was, and what raises there."""
    if is_virtual(options):
        space = space_of(machine, options)
        some, exactly, padded = (
            space.read_virtual_into,
            space.read_virtual_exactly_into,
            space.read_virtual_padded_into,
        )
    else:
        some, exactly, padded = (
            machine.read_physical_into,
            machine.read_physical_exactly_into,
            machine.read_physical_padded_into,
        )
    return (lambda address, view: 0, padded) if options.pad else (some, exactly)


def _pieces(some: Callable[[int, memoryview], int], rest: Read, address: int, size: int) -> Iterator[tuple[int, bytes]]:
    """(address, bytes), piece by piece; where something does not exist, what is before it, and then the error."""
    end = address + size
    while address < end:
        view = memoryview(bytearray(min(_PIECE, end - address)))
        done = some(address, view)
        if done:
            yield address, bytes(view[:done])
        elif view:
            rest(address, view)
            yield address, bytes(view)
            done = len(view)
        address += done
