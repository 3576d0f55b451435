# SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m libmicrovmi_py.stubgen [-o FILE] [--library NAME] [HEADER]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.header import find_header
from libmicrovmi_py.stubgen import generate


def arguments() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        "python -m libmicrovmi_py.stubgen", description="Write a ctypes module for a C header."
    )
    parser.add_argument("header", nargs="?", type=Path, metavar="HEADER", help="default: libmicrovmi.h")
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="FILE", help="the module to write; default: standard output"
    )
    parser.add_argument(
        "--library", metavar="NAME", help="what load() opens by default; default: the header's name with .so"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 on success, 1 with a line on standard error if the header or the output is no good."""
    options = arguments().parse_args(argv)
    try:
        text = generate(find_header(options.header), library=options.library)
        if options.output is None:
            sys.stdout.write(text)
        else:
            options.output.write_text(text, encoding="utf-8")
    except (InvalidArgumentError, OSError) as err:
        print(f"stubgen: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
