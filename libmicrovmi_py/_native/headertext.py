# SPDX-License-Identifier: Apache-2.0
"""What ``include/libmicrovmi.h`` says, as data: its introduction, its sections, and in each what is declared, with the
comment that stands before it. Manual pages and the reference are made of it.

A blank line ends what is declared, so a comment and its declaration are one block of lines; a comment in a frame of
``=`` begins a section.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(r"(?:/\*(?P<comment>.*?)\*/\n?)?(?P<code>.*)", re.DOTALL)
_BANNER = re.compile(r"^/\* =+\n \* (?P<title>.*?)\n(?P<text>.*?) \* =+ \*/$", re.DOTALL)
_SINCE = re.compile(r" \(since (?P<since>[\d.]+)\)$")
_FUNCTION = re.compile(r"(\w+)\([^;]*\);\s*$", re.DOTALL)
_TYPE = re.compile(r"^(struct|enum) (\w+) \{", re.MULTILINE)
_MACRO = re.compile(r"^#define (\w+)", re.MULTILINE)
_LONG = 80
"""Characters of a sentence that a list has room for."""


@dataclass(frozen=True)
class Item:
    """Something that is declared: a function, a type with its typedef and initializer, or macros."""

    name: str
    kind: str
    """``function``, ``struct``, ``enum`` or ``macro``."""
    comment: str
    """Without the frame of the comment: lines, paragraphs between empty ones."""
    code: str
    since: str
    """The version that it came with: 0.4.0 for the frozen part."""

    @property
    def summary(self) -> str:
        """The first sentence of the comment, in one line without its end; of a long one what stands before a colon."""
        first = " ".join(self.comment.split("\n\n")[0].split())
        sentence = re.split(r"\.(?= [A-Z]|$)", first)[0].removesuffix(":")
        return sentence if len(sentence) <= _LONG else sentence.split(": ")[0]


@dataclass
class Section:
    """A part of the header under one title."""

    title: str
    since: str
    text: str
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True)
class HeaderText:
    """All of it. ``introduction``: the paragraph before the first title has the title ""."""

    introduction: list[tuple[str, str]]
    sections: list[Section]

    def functions(self) -> Iterator[Item]:
        """Every function, in the order of the header."""
        for section in self.sections:
            yield from (item for item in section.items if item.kind == "function")


def read(path: Path) -> HeaderText:
    """The header at ``path``; ``ValueError`` for a declaration that cannot be told what it is."""
    blocks = re.split(r"\n\n+", path.read_text(encoding="utf-8").strip())
    introduction, *rest = blocks[0].split("*/", 1)[1].strip(), *blocks[1:]
    sections: list[Section] = []
    for block in rest:
        if banner := _BANNER.match(block):
            sections.append(_section(banner["title"], _bare(banner["text"])))
        elif sections and (item := _item(block, sections[-1].since)):
            sections[-1].items.append(item)
    return HeaderText(list(_titled(_bare(introduction.split("*/")[0].removeprefix("/*")))), sections)


def _section(title: str, text: str) -> Section:
    since = _SINCE.search(title)
    return Section(_SINCE.sub("", title).removesuffix("."), since["since"] if since else "0.4.0", text)


def _item(block: str, since: str) -> Item | None:
    """What a block of lines declares; ``None`` for what is of the preprocessor alone."""
    found = _BLOCK.fullmatch(block)
    comment, code = (_bare(found["comment"] or ""), found["code"].strip()) if found else ("", block)
    if declared := _TYPE.search(code):
        return Item(declared[2], declared[1], comment, code, since)
    if function := _FUNCTION.search(code):
        return Item(function[1], "function", comment, code, since)
    if code.startswith("#define") and (macro := _MACRO.search(code)):
        return Item(macro[1], "macro", comment, code, since)
    if not code or code.startswith("#"):
        return None
    raise ValueError(f"not a declaration that is known: {code[:60]}")


def _bare(comment: str) -> str:
    """The lines of a comment without the stars before them."""
    lines = [re.sub(r"^ \* ?", "", line).rstrip() for line in comment.strip("\n").split("\n")]
    return "\n".join("" if line == " *" else line for line in lines).strip()


def _titled(text: str) -> Iterator[tuple[str, str]]:
    """The introduction by its titles, which are lines that begin with words in capitals."""
    for paragraph in text.split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        if re.match(r"[A-Z]{4,}\b", first) and not first.endswith("."):
            yield first, rest
        else:
            yield "", paragraph
