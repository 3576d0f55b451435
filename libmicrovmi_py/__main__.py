# SPDX-License-Identifier: Apache-2.0
"""``python -m libmicrovmi_py``: where the C header and the C library of this installation are."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.header import find_header
from libmicrovmi_py.version import __version__

PACKAGE = Path(__file__).resolve().parent


def find_library() -> Path:
    """The library inside an installed package, or the one that ``make lib`` built in the source tree."""
    for folder in (PACKAGE / "lib", PACKAGE.parent / "build" / "lib", PACKAGE.parent.parent):
        if (folder / "libmicrovmi.so").is_file():
            return folder / "libmicrovmi.so"
    raise InvalidArgumentError("libmicrovmi.so is not built: run make lib, or pip install .")


def main() -> int:
    """Print what the options ask for, everything without any."""
    parser = argparse.ArgumentParser(prog="python -m libmicrovmi_py", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--header", action="store_true", help="print the path of libmicrovmi.h")
    parser.add_argument("--library", action="store_true", help="print the path of libmicrovmi.so")
    parser.add_argument("--flags", action="store_true", help="print flags to compile and link a C program, for a shell")
    wanted = parser.parse_args()
    try:
        header, library = find_header(), find_library()
    except InvalidArgumentError as err:
        print(err, file=sys.stderr)
        return 1
    flags = shlex.join([f"-I{header.parent}", f"-L{library.parent}", "-lmicrovmi", f"-Wl,-rpath,{library.parent}"])
    if not (wanted.header or wanted.library or wanted.flags):
        print(f"version  {__version__}\nheader   {header}\nlibrary  {library}\nflags    {flags}")
    for asked, text in ((wanted.header, header), (wanted.library, library), (wanted.flags, flags)):
        if asked:
            print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
