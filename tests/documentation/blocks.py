# SPDX-License-Identifier: Apache-2.0
"""The fenced blocks of README.md, CONTRIBUTING.md and docs/, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
OPENING = re.compile(r"^( *)```([a-z]*)$")
PROMPT = re.compile(r"^(?:host\d)?[$#] (.*)$")
INPUT = re.compile(r"^(?:>>>|\(gdb\)) ?(.*)$")
COMMENT = re.compile(r"(?:^| {2,}|\t)#(?: .*)?$")
SHELLS = ("sh", "console")
NOT_CODE = "text"
"""The language of what is not to be run: pictures made of letters, and what a program printed somewhere."""


class Block(NamedTuple):
    """One block: where it stands, its language, what is in it."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """For people: ``docs/command.md:8``."""
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """A command of a shell, what is typed into it, and what the page shows of its output, in lines."""

    page: str
    line: int
    text: str
    typed: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people: ``docs/command.md:9``."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """All pages that people read."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks() -> list[Block]:
    """All of them, page by page."""
    return [block for page in pages() for block in _of(page)]


def _of(path: Path) -> Iterator[Block]:
    page = str(path.relative_to(ROOT))
    if page.startswith("docs/website/"):
        return
    start, indent, language, lines = 0, "", "", list[str]()
    for number, line in enumerate(path.read_text().split("\n"), 1):
        if start and line == f"{indent}```":
            yield Block(page, start, language, "\n".join(lines) + "\n")
            start, lines = 0, []
        elif start:
            lines.append(line.removeprefix(indent))
        elif found := OPENING.match(line):
            start, indent, language = number, found[1], found[2]


def commands(block: Block) -> list[Command]:
    """Those of a block of a shell, in their order. In one of ``sh`` each line is one, unless it is continued."""
    found = list(_in_console(block)) if block.language == "console" else list(_in_script(block))
    return [command._replace(text=COMMENT.sub("", command.text).strip()) for command in found]


def _in_script(block: Block) -> Iterator[Command]:
    begun = ""
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        begun += line.removesuffix("\\")
        if not line.endswith("\\"):
            if COMMENT.sub("", begun).strip():
                yield Command(block.page, number, begun)
            begun = ""


def _in_console(block: Block) -> Iterator[Command]:
    command = None
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if found := PROMPT.match(line):
            if command:
                yield command
            command = Command(block.page, number, found[1])
        elif command and (typed := INPUT.match(line)):
            command = command._replace(typed=(*command.typed, typed[1]))
        elif command:
            command = command._replace(shown=(*command.shown, line))
    if command:
        yield command
