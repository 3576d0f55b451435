# SPDX-License-Identifier: Apache-2.0
"""The reference of the command: what ``--help`` says of every subcommand."""

from __future__ import annotations

import os

from libmicrovmi_py.command import known
from libmicrovmi_py.command.parser import PROGRAM, of_subcommand, top

WIDTH = "100"


def page() -> str:
    """All of it, in MyST."""
    os.environ["COLUMNS"] = WIDTH
    os.environ["NO_COLOR"] = "1"
    parts = [
        f"# The command\n\nWhat it is for stands in [command.md](../docs/command.md).\n\n{_block(top().format_help())}"
    ]
    for name in known.names():
        told = of_subcommand(name, known.load(name)).format_help()
        parts.append(f"## {PROGRAM} {name}\n\n{_block(told)}")
    return "\n".join(parts)


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"
