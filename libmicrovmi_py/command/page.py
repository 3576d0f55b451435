# SPDX-License-Identifier: Apache-2.0
"""The manual page, microvmi(1), made of the parsers: what a subcommand takes is said in one place."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator

from libmicrovmi_py.command import known
from libmicrovmi_py.command.parser import PROGRAM, of_subcommand
from libmicrovmi_py.version import __version__

_HEAD = r""".\" SPDX-License-Identifier: Apache-2.0
.TH MICROVMI 1 "" "libmicrovmi {version}" "User Commands"
.SH NAME
microvmi \- look into virtual machines from outside, and at dumps of them
.SH SYNOPSIS
.B microvmi
.I SUBCOMMAND
.RI [ ARGUMENT ...]
.SH DESCRIPTION
A machine is named by its name, process id or UUID, by a URI
.RI (vmi:// DRIVER /? key = value &...),
or by the path of a dump; a word with a slash is a path.
.B microvmi list
shows the machines that there are.
.PP
A tool reads a snapshot, which is a copy of one moment, the machine while it is paused, or the machine as it runs
.RB ( \-\-snapshot ", " \-\-pause ", " \-\-live ).
Standard error says which, unless it is a dump, which never changes. Whatever ends a subcommand, a signal included, the
machine is left as it was found; only after SIGKILL a machine that was paused stands until
.B microvmi resume
lets it run.
.PP
With
.B \-\-json
standard output is one JSON document. Addresses, values of registers and contents of memory are texts in it, as many
programs keep no more than 53 bits of a number.
.SH SUBCOMMANDS
"""

_TAIL = r""".SH EXIT STATUS
.TP
.B 0
It is done.
.TP
.B 1
An error, told in one line on standard error.
.TP
.B 2
Wrong usage.
.TP
.BI 128+ N
It was ended by signal
.IR N .
.PP
Others are told with the subcommand that has them.
.SH ENVIRONMENT
.TP
.B MICROVMI_PLUGIN_PATH
Folders with further drivers, separated by colons.
.SH EXAMPLES
.nf
microvmi list
microvmi read debian 0x1000 64
microvmi dump debian debian.raw
microvmi dump \-\-live \-\-format lime debian \- | zstd > debian.lime.zst
microvmi snapshot debian now.elf && microvmi diff ./now.elf debian
.fi
"""


def page() -> str:
    """All of it."""
    body = "".join("".join(_subcommand(name)) for name in known.names())
    return _HEAD.replace("{version}", __version__) + body + _TAIL


def _subcommand(name: str) -> Iterator[str]:
    module = known.load(name)
    parser = of_subcommand(name, module)
    yield f'.SS "{PROGRAM} {name}"\n'
    yield f".B {_escaped(_usage(parser))}\n"
    for paragraph in inspect.cleandoc(module.__doc__ or "").split("\n\n"):
        lines = paragraph.split("\n")
        yield ".PP\n"
        yield "".join([".nf\n", *map(_line, lines), ".fi\n"] if lines[0].startswith(" ") else map(_line, lines))
    for action in parser._actions:
        if action.help is not argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
            yield f".TP\n.B {_escaped(_head(action))}\n{_line(str(parser._get_formatter()._expand_help(action)))}"


def _usage(parser: argparse.ArgumentParser) -> str:
    """In one line, whatever the terminal is."""
    vars(parser)["color"] = False  # which Python has from 3.14 on
    words = parser.format_usage().split()
    return " ".join(words[1:])


def _head(action: argparse.Action) -> str:
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    name = value if isinstance(value, str) else " ".join(value)
    if not action.option_strings:
        return name
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {name}")


def _line(text: str) -> str:
    """A line of text, which is no request even if it begins as one."""
    escaped = _escaped(text)
    return (f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")
