# SPDX-License-Identifier: Apache-2.0
"""Memory into files: ``dump`` and ``snapshot`` are made of this."""

from __future__ import annotations

import argparse
import os
import sys

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.meter import Meter
from libmicrovmi_py.command.views import WORDS
from libmicrovmi_py.export import writing
from libmicrovmi_py.export.partial import check_free
from libmicrovmi_py.export.writing import How, Written
from libmicrovmi_py.machine.microvmi import Microvmi

STANDARD_OUTPUT = "-"


def file_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Have ``FILE``, ``--format`` and ``--force``; ``default`` is the format where neither these nor the name tell."""
    parser.set_defaults(default_format=default)
    parser.add_argument("file", metavar="FILE", help="the file, or - for standard output")
    text = "raw: byte N is at address N; lime: the ranges that exist; elf: with registers; kdump-zlib, kdump-zstd: "
    text += "compressed, with registers; if it is not given, "
    text += f"FILE's ending tells it (.raw, .lime, .elf, .core, .kdump), else {default}"
    parser.add_argument("-f", "--format", choices=writing.FORMATS, help=text)
    parser.add_argument(
        "--force", action="store_true", help="replace a file that is there, and what an earlier run left"
    )


def checked(options: argparse.Namespace) -> None:
    """Settle the format, and see before anything is read that ``FILE`` can be written.

    Raises for a file that is there, for standard output that is a terminal, or is wanted twice.
    """
    options.format = options.format or writing.format_of(options.file, options.default_format)
    if options.file == STANDARD_OUTPUT:
        if options.json:
            raise kit.Failure("--json wants standard output as well: name a file", 2)
        if sys.stdout.isatty():
            raise kit.Failure("standard output is a terminal: name a file, or a pipe")
    elif not writing.is_stream(options.file):
        check_free(options.file, WORDS, replace=options.force)


def written(machine: Microvmi, options: argparse.Namespace, *, instant: bool, resume: bool = False) -> Written:
    """Write it as the options say; ``instant``: the machine is of one moment."""
    name = "dump" if options.file == STANDARD_OUTPUT else os.path.basename(options.file)
    with Meter(0, name) as meter:
        if options.file == STANDARD_OUTPUT:
            return writing.write_stream(machine, 1, options.format, meter.report, kit.say)
        how = How(options.format, instant, resume=resume, replace=options.force, words=WORDS)
        return writing.write(machine, options.file, how, meter.report, kit.say)
