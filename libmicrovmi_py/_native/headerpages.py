# SPDX-License-Identifier: Apache-2.0
"""The manual pages of the C API, made of the header: libmicrovmi(3) is all of it, and each function has its own."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from libmicrovmi_py._native.headertext import HeaderText, Item, Section
from libmicrovmi_py.version import __version__

OVERVIEW = "libmicrovmi"

_HEAD = '.\\" SPDX-License-Identifier: Apache-2.0\n.TH {title} 3 "" "libmicrovmi {version}" "C library"\n.SH NAME\n'
_SYNOPSIS = ".SH SYNOPSIS\n.nf\n.B #include <libmicrovmi.h>\n{code}.fi\n.PP\nLink with \\fI\\-lmicrovmi\\fP.\n"
_PARAMETER = re.compile(r"^([a-z]\w*(?:, [a-z]\w*)*): ")
_WIDTH = 70
"""Columns of a prototype."""
_COLUMNS = re.compile(r"\S {3,}\S")


def pages(header: HeaderText) -> dict[str, str]:
    """The text of each page by the name of its file."""
    found = {f"{item.name}.3": _function(item) for item in header.functions()}
    return {f"{OVERVIEW}.3": _overview(header), **found}


def _overview(header: HeaderText) -> str:
    (_, first), *rest = header.introduction
    name, _, summary = " ".join(first.split()).partition(" - ")
    text = _HEAD.format(title=OVERVIEW.upper(), version=__version__)
    text += f"{name} \\- {_escaped(summary.split(': ')[0])}\n" + _SYNOPSIS.format(code="")
    text += f".SH DESCRIPTION\n{_filled(summary[:1].upper() + summary[1:])}" + "".join(
        _introduced(title, body) for title, body in rest
    )
    return text + "".join(map(_section, header.sections)) + ".SH SEE ALSO\n.BR microvmi (1)\n"


def _introduced(title: str, body: str) -> str:
    """A part of the introduction; what has no title goes on with the one before."""
    if not title:
        return ".PP\n" + _filled(body)
    lines = [line.removeprefix("  ") for line in body.split("\n")]
    return f'.SS "{_escaped(title)}"\n' + _paragraph(lines)


def _section(section: Section) -> str:
    title = section.title.split(": ")[0]
    rest = section.title.removeprefix(title).removeprefix(": ")
    since = f"Since {section.since}.\n"
    text = f'.SH "{_escaped(title)}"\n{since}' + (_text(rest[:1].upper() + rest[1:] + ".") if rest else "")
    text += _text(section.text)
    return text + "".join(_listed(item) if item.kind == "function" else _type(item) for item in section.items)


def _listed(item: Item) -> str:
    """A function in the overview."""
    return f".TP\n.BR {item.name} (3)\n{_line(item.summary + '.')}"


def _type(item: Item) -> str:
    name = item.name if item.kind == "macro" else f"{item.kind} {item.name}"
    return f'.SS "{name}"\n{_text(item.comment, first="")}.PP\n{_verbatim(item.code.splitlines())}'


def _function(item: Item) -> str:
    """The page of a function."""
    body, _, errors = item.comment.rpartition("Errors: ") if "Errors: " in item.comment else (item.comment, "", "")
    text = _HEAD.format(title=item.name.upper(), version=__version__)
    text += f"{item.name} \\- {_escaped(item.summary[:1].lower() + item.summary[1:])}\n"
    code = textwrap.wrap(" ".join(item.code.split()), _WIDTH, subsequent_indent="    ")
    text += _SYNOPSIS.format(code=".PP\n" + "".join(f"\\fB{_escaped(line)}\\fP\n" for line in code))
    text += ".SH DESCRIPTION\n" + _text(body.strip(), first="")
    if errors:
        text += ".SH ERRORS\n" + _text("They are told by microvmi_last_error_code(): " + errors, first="")
    return text + f".SH HISTORY\nSince {item.since}.\n.SH SEE ALSO\n.BR {OVERVIEW} (3)\n"


def _text(text: str, first: str = ".PP\n") -> str:
    """Paragraphs between empty lines."""
    paragraphs = [paragraph.split("\n") for paragraph in text.split("\n\n") if paragraph.strip()]
    return "".join((".PP\n" if number else first) + _paragraph(lines) for number, lines in enumerate(paragraphs))


def _paragraph(lines: list[str]) -> str:
    """Lines of prose, parameters with what is indented below them, or an example, all of which is indented."""
    if all(line.startswith("  ") for line in lines):
        return _verbatim(lines)
    return "".join(_piece(piece) for piece in _pieces(lines))


def _pieces(lines: list[str]) -> Iterator[list[str]]:
    """Each parameter with its lines; all lines if they do not begin with one."""
    named = _PARAMETER.match(lines[0]) is not None
    piece: list[str] = []
    for line in lines:
        if piece and named and not line.startswith("  "):
            yield piece
            piece = []
        piece.append(line)
    yield piece


def _piece(lines: list[str]) -> str:
    named = _PARAMETER.match(lines[0])
    if named is None:
        return _mixed(lines)
    return f".TP\n.I {named[1]}\n" + _mixed([lines[0][named.end() :], *lines[1:]])


def _mixed(lines: list[str]) -> str:
    """Prose, but for a table, which begins where a line has columns: it stays as it is."""
    table = next((number for number, line in enumerate(lines) if _COLUMNS.search(line)), len(lines))
    prose, rows = lines[:table], lines[table:]
    return (_filled(" ".join(prose)) if prose else "") + (_verbatim(rows) if rows else "")


def _filled(text: str) -> str:
    """Prose that is broken into lines where it is shown."""
    return _line(" ".join(text.split()))


def _verbatim(lines: list[str]) -> str:
    return ".nf\n" + "".join(map(_line, lines)) + ".fi\n"


def _line(text: str) -> str:
    """A line of text, which is no request even if it begins as one."""
    escaped = _escaped(text)
    return (f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
