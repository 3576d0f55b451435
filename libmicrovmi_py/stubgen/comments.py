# SPDX-License-Identifier: Apache-2.0
"""Docstrings out of a header's comments, which cffi's parser drops."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

_FUNCTION = re.compile(r"/\*((?:[^*]|\*(?!/))*)\*/[\w\s*]*?\b(\w+)\s*\(")
_TYPE = re.compile(r"/\*((?:[^*]|\*(?!/))*)\*/\s*(?:typedef\s+)?(?:struct|union|enum)\s+(\w+)\s*\{")
_LABEL = re.compile(r"\s*(?:\w+(?:, \w+)*: |[-*] )")
"""How a line starts that does not go on with the one before: ``name: text``, an item of a list."""

_COLUMN = re.compile(r".*\S {3,}(?=\S)")
"""A row of a table up to its last column."""


def function_comments(text: str) -> dict[str, str]:
    """The comment directly above each function of a header, by the function's name."""
    return {match[2]: clean(match[1]) for match in _FUNCTION.finditer(text)}


def type_comments(text: str) -> dict[str, str]:
    """The comment directly above each struct, union and enum with a tag, by the tag."""
    return {match[2]: clean(match[1]) for match in _TYPE.finditer(text)}


def clean(body: str) -> str:
    """The text of a comment without its decoration; indentation that carries meaning stays."""
    lines = [re.sub(r"^\s*\*(?: |$)", "", line).rstrip() for line in body.lstrip("*").split("\n")]
    return textwrap.dedent("\n".join([lines[0].strip(), textwrap.dedent("\n".join(lines[1:]))])).strip("\n")


def docstring(text: str, indent: str, width: int) -> list[str]:
    """The lines of a docstring of at most ``width`` columns; what is too long flows on into the next line."""
    escaped = text.replace("\\", "\\\\").replace('"""', '\\"""')
    lines = list(_flow(escaped.split("\n"), width - len(indent) - 3))
    if len(lines) == 1 and len(indent) + len(lines[0]) + 6 <= width and not lines[0].endswith('"'):
        return [f'{indent}"""{lines[0]}"""']
    lines[0] = '"""' + lines[0]
    return [f"{indent}{line}".rstrip() for line in [*lines, '"""']]


def _flow(lines: list[str], room: int) -> Iterator[str]:
    """``lines`` with none longer than ``room``: the words too many go into the next line where the text goes on."""
    rest, hanging = "", ""
    for line in lines:
        row = _COLUMN.match(line)
        goes_on = line and not row and not _LABEL.match(line)
        if rest and not goes_on:
            yield f"{hanging}{rest}"
        indent = line[: len(line) - len(line.lstrip())]
        words = f"{rest} {line.strip()}".strip() if goes_on else line.strip()
        first, rest = _split(words, room - len(indent))
        hanging = " " * row.end() if row else indent + ("  " if _LABEL.match(line) else "")
        yield f"{indent}{first}"
    while rest:
        first, rest = _split(rest, room - len(hanging))
        yield f"{hanging}{first}"


def _split(words: str, room: int) -> tuple[str, str]:
    """The words that fit, and the rest; spaces inside the first part stay as they are."""
    if len(words) <= room:
        return words, ""
    cut = words.rfind(" ", 0, room + 1)
    return (words[:cut].rstrip(), words[cut:].strip()) if cut > 0 else (words, "")
