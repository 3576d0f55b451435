# SPDX-License-Identifier: Apache-2.0
"""Whether others than its owner can use the Python that a library is built for.

A library for everybody that loads a Python of ``/root`` works for root alone, and tells the others no more than that
there is no Python.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from libmicrovmi_py._native import pythonflags
from libmicrovmi_py.command.laid import interpreter


def needed() -> list[Path]:
    """What a library loads, and the command runs, of the Python that this one is."""
    return [pythonflags.library(), Path(os.__file__).parent, Path(interpreter())]


def warn(libdir: Path, paths: Iterable[Path]) -> None:
    """One line on standard error if others can read a library in ``libdir``, but not one of ``paths``, which it needs.

    That of a user's own, in a folder that is closed to others as well, may have a Python that is.
    """
    if closed(libdir) is not None:
        return
    for path in paths:
        if (found := closed(path)) is not None:
            print(
                f"warning: {path}, which this library needs, can be used by its owner alone, as {found} is closed to "
                f"others: make clean, then make install PYTHON=/usr/bin/python3 or another that all can read",
                file=sys.stderr,
            )
            return


def closed(path: Path) -> Path | None:
    """The first part of a path, or of what it is a link to, that others may not pass, or read if it is the last.

    By the mode alone, as access lists and groups are of single users. ``None`` if there is none; what is not there is
    open.
    """
    for last in (path.absolute(), path.resolve()):
        for part in (*reversed(last.parents), last):
            if not _open(part, whole=part == last):
                return part
    return None


def _open(path: Path, whole: bool) -> bool:
    """Whether others may pass a folder, and read it as well if ``whole``; or read a file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return True
    folder = stat.S_IXOTH | (stat.S_IROTH if whole else 0)
    needed = folder if stat.S_ISDIR(mode) else stat.S_IROTH
    return mode & needed == needed
