# SPDX-License-Identifier: Apache-2.0
"""The reference of the C API, made of the header: a declaration with the comment that stands above it."""

from __future__ import annotations

import re
from pathlib import Path

from libmicrovmi_py._native import headertext

SPECIAL = re.compile(r"([\\*_<>\[\]|#$~])")
PARAMETER = re.compile(r"^([a-z_]+(?:, [a-z_]+)*): ")
KEPT = {"ABI", "CR", "MSR", "API"}


def page(header: Path) -> str:
    """All of it, in MyST."""
    text = headertext.read(header)
    known = {item.name for section in text.sections for item in section.items}
    parts = ["# The C API\n\nThis page is `include/libmicrovmi.h`, which is the manual of the C API.\n"]
    parts += ["## About all of it\n", *(_titled(title, told, known) for title, told in text.introduction)]
    for section in text.sections:
        parts.append(f"## {_sentence(section.title)}\n\nSince {section.since}.\n\n{_prose(section.text, known)}")
        parts += [_entry(item, known) for item in section.items]
    return "\n".join(parts)


def _titled(title: str, text: str, known: set[str]) -> str:
    """A part of what the header begins with; a program in it stays one."""
    told = f"```c\n{text}\n```\n" if text.startswith("  void *") else _prose(text, known)
    return f"### {_sentence(title)}\n\n{told}" if title else told


def _entry(item: headertext.Item, known: set[str]) -> str:
    return f"({item.name})=\n### `{item.name}`\n\n```c\n{item.code}\n```\n\n{_prose(item.comment, known)}"


def _prose(text: str, known: set[str]) -> str:
    """Paragraphs; what is said of each parameter, and of errors, is an item of a list."""
    lines: list[str] = []
    listed = False
    for line in text.split("\n"):
        found = PARAMETER.match(line) if listed or not lines or not lines[-1] else None
        if found and not listed and lines:
            lines.append("")
        if listed and not found and not line.startswith("  "):
            lines.append("")
        listed = bool(found) or (listed and line.startswith("  "))
        told = _linked(line[found.end() :] if found else line.strip(), known)
        lines.append(f"- **{_escaped(found[1])}**: {told}" if found else f"  {told}" if listed else told)
    return "\n".join(lines) + "\n"


def _linked(text: str, known: set[str]) -> str:
    """Escaped, outside of backticks, and with functions that lead to where they are told."""
    parts = text.split("`")
    return "".join(f"`{part}`" if number % 2 else _mentions(part, known) for number, part in enumerate(parts))


def _mentions(text: str, known: set[str]) -> str:
    def shown(found: re.Match[str]) -> str:
        return f"[`{found[0]}`](#{found[1]})" if found[1] in known else _escaped(found[0])

    return re.sub(r"\b(\w+)\(\)|\w+|\W", shown, text)


def _escaped(text: str) -> str:
    return SPECIAL.sub(r"\\\1", text)


def _sentence(text: str) -> str:
    """A title in capitals, as other titles are written."""
    words = [word if word.strip("():,") in KEPT or not word.isupper() else word.lower() for word in text.split()]
    title = " ".join(words)
    return title[:1].upper() + title[1:]
