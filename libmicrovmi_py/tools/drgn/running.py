# SPDX-License-Identifier: Apache-2.0
"""What is run on a program of drgn, as drgn's own command does it: its prompt, a script, or standard input."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence

import drgn
import drgn.cli


def prompt(prog: drgn.Program) -> None:
    """drgn's prompt, until the user leaves it."""
    drgn.cli.run_interactive(prog)


def script(prog: drgn.Program, path: str | None, words: Sequence[str]) -> int:
    """A script, ``None`` for standard input; 1 if it raised what it did not catch, which is shown as Python does."""
    drgn.set_default_prog(prog)
    before, folders = sys.argv, list(sys.path)
    sys.argv = [path or "", *words]
    try:
        if path is None:
            exec(
                compile(sys.stdin.read(), "<stdin>", "exec"), {**drgn.cli.default_globals(prog), "__name__": "__main__"}
            )
        else:
            sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
            runpy.run_path(path, init_globals={"prog": prog}, run_name="__main__")
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.argv, sys.path[:] = before, folders
    return 0
