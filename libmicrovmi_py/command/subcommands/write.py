# SPDX-License-Identifier: Apache-2.0
"""Write to the memory of a machine.

ADDRESS is guest-physical, or virtual with --virtual, whatever the rights of its page. All is written, or nothing. A
dump is never written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.spaces import is_virtual, space_arguments, space_of

_STANDARD_INPUT = "-"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, where, and what."""
    kit.machine_argument(parser)
    parser.add_argument("address", metavar="ADDRESS", type=kit.address, help="the first byte")
    parser.add_argument("data", metavar="HEX", type=_bytes, nargs="?", help="the bytes, as 90c3 or '90 c3'")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--text", help="the bytes of this text, in UTF-8")
    what.add_argument("--file", metavar="FILE", help="what is in this file, - for standard input")
    parser.add_argument("--pause", action="store_true", help="pause the machine meanwhile")
    space_arguments(parser, switch=True)
    kit.json_argument(parser)


def _bytes(text: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if not data:
        raise argparse.ArgumentTypeError(f"{text!r} is not bytes in hexadecimal, two digits each")
    return data


def run(options: argparse.Namespace) -> int:
    """Write it."""
    if [options.data, options.text, options.file].count(None) != 2:
        raise kit.Failure("name what is to be written: HEX, --text or --file, one of them", 2)
    data = _data(options)
    if not data:
        raise kit.Failure("there is nothing to write")
    with kit.opened(options) as machine:
        if options.pause:
            machine.pause()
        if is_virtual(options):
            space_of(machine, options).write_virtual(options.address, data)
        else:
            machine.write_physical(options.address, data)
    written = {"address": f"{options.address:#x}", "size": len(data)}
    kit.show(options, written, lambda: [f"{len(data)} bytes at {options.address:#x} are written"])
    return 0


def _data(options: argparse.Namespace) -> bytes:
    if options.data is not None:
        return bytes(options.data)
    if options.text is not None:
        return str(options.text).encode("utf-8", "surrogateescape")
    return sys.stdin.buffer.read() if options.file == _STANDARD_INPUT else Path(options.file).read_bytes()
