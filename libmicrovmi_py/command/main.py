# SPDX-License-Identifier: Apache-2.0
"""The command ``microvmi``: finds the subcommand, runs it, and tells in one line why it failed.

Exit codes: 0 done, 1 an error, 2 wrong usage, 128+N ended by signal N; what others a subcommand has, its help says.
"""

from __future__ import annotations

import sys

from libmicrovmi_py.command import ending
from libmicrovmi_py.errors import MicrovmiError, escaped, told

FAILED = 1


def main() -> int:
    """Run what the command line asks for, and return the exit code."""
    ending.take_signals()
    ending.open_standard_streams()
    try:
        return _done(sys.argv[1:])
    except ending.Ended as err:
        _flush()
        ending.end_by(err.number)
    except SystemExit:  # of wrong usage, and behind help
        _flush()
        raise


def _done(words: list[str]) -> int:
    """Run it, up to the last byte of what it prints; what it raises becomes a line."""
    from libmicrovmi_py.command.kit import Failure
    from libmicrovmi_py.command.parser import PROGRAM, parse

    try:
        run, options = parse(words)
        code = run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        ending.leave_standard_output()
        ending.end_by(13)
    except (Failure, MicrovmiError, OSError, ImportError) as err:
        line, code = _line(err), err.code if isinstance(err, Failure) else FAILED
    except Exception as err:
        if sys.flags.dev_mode:
            raise
        line, code = f"a defect: {type(err).__name__}: {told(err)} (python -X dev shows where)", FAILED
    _flush()
    print(f"{PROGRAM}: {line}", file=sys.stderr)
    return code


def _flush() -> None:
    """Write what was printed, if that can be written."""
    try:
        sys.stdout.flush()
    except OSError:
        ending.leave_standard_output()


def _line(err: BaseException) -> str:
    """One line; of an error that has several, one a driver, these one after the other.

    An ``ImportError`` is that of a library that is not built.
    """
    if isinstance(err, OSError) and not isinstance(err, MicrovmiError):
        name = f"{err.filename}: " if err.filename is not None else ""
        return escaped(f"{name}{err.strerror or err}")
    return "; ".join(told(err).split("\n"))
