# SPDX-License-Identifier: Apache-2.0
"""The parsers of the command: wrong usage is one line on standard error and exit code 2."""

from __future__ import annotations

import argparse
import difflib
import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn

from libmicrovmi_py.command import known
from libmicrovmi_py.command.meter import columns
from libmicrovmi_py.errors import escaped
from libmicrovmi_py.version import __version__

PROGRAM = "microvmi"
WRONG_USAGE = 2


class Parser(argparse.ArgumentParser):
    """As ``argparse`` has it, but that options are not abbreviated, and that an error is one line."""

    def __init__(self, **given: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **given)

    def error(self, message: str) -> NoReturn:
        """End with the line, and where help is."""
        print(f"{PROGRAM}: {escaped(message)} ({self.prog} --help says more)", file=sys.stderr)
        sys.exit(WRONG_USAGE)


def top() -> Parser:
    """The parser of what stands before the subcommand."""
    width = max(map(len, known.names()))
    lines = [f"  {name:{width}}  {known.summary(name)}" for name in known.names()]
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} SUBCOMMAND [ARGUMENT...]",
        description="Look into virtual machines from outside, and at dumps of them.",
        epilog="\n".join(["subcommands:", *lines, "", f"{PROGRAM} SUBCOMMAND --help says more of one."]),
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


def of_subcommand(name: str, module: known.Subcommand) -> Parser:
    """The parser of one subcommand."""
    parser = Parser(prog=f"{PROGRAM} {name}", description=filled(inspect.cleandoc(module.__doc__ or "")))
    module.arguments(parser)
    return parser


def filled(text: str) -> str:
    """Paragraphs, made as wide as the terminal; lines that are indented stay lines."""
    # a hyphen is no place to break at: what stands there may be an option, or for a shell
    wrapper = textwrap.TextWrapper(max(columns() - 2, 20), break_on_hyphens=False)
    return "\n\n".join(item if item.startswith(" ") else wrapper.fill(item) for item in text.split("\n\n"))


def parse(words: list[str]) -> tuple[Callable[[argparse.Namespace], int], argparse.Namespace]:
    """What is to be done, and with which options. Ends the program for wrong usage, and when help was asked for."""
    if not words or words[0].startswith("-"):
        top().parse_args(words)
        top().error("which subcommand?")
    name = words[0]
    if name not in known.names():
        close = difflib.get_close_matches(name, known.names(), 1)
        top().error(f"there is no subcommand {name}" + (f": is {close[0]} meant?" if close else ""))
    module = known.load(name)
    return module.run, _parsed(of_subcommand(name, module), words[1:])


def _parsed(parser: Parser, words: list[str]) -> argparse.Namespace:
    """Options may stand anywhere, unless all that follows belongs to somebody else."""
    if any(action.nargs in (argparse.REMAINDER, argparse.PARSER) for action in parser._actions):
        return parser.parse_args(words)
    return parser.parse_intermixed_args(words)
