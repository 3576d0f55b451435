# SPDX-License-Identifier: Apache-2.0
"""A picture as one page of HTML to zoom and point into, which needs nothing else and lets nothing else in."""

from __future__ import annotations

import array
import base64
import hashlib
import json
import sys
import zlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from libmicrovmi_py.tools.picture.contents import Content, Owner, Picture
from libmicrovmi_py.tools.picture.palette import LOOKS, amount, columns, share

MOST_NAMES = 65535
"""So many names of owners there are at the most; the rest is not told."""

_HERE = Path(__file__).parent


def chart(picture: Picture, title: str) -> str:
    """The text of an HTML file.

    What a guest or a user says gets into it as text only: escaped, or in a block of JSON that no browser runs. No
    script runs but the page's own, by its hash, and nothing is fetched.
    """
    script, style = _part("page.js"), _part("page.css")
    return Template(_part("page.html")).substitute(
        SCRIPT=script,
        SCRIPT_HASH=_hash(script),
        STYLE=style,
        STYLE_HASH=_hash(style),
        TITLE=escape(title),
        ABOUT=escape(
            f"{amount(picture.size)}, {amount(picture.cell)} a dot, {amount(columns(picture) * picture.cell)} a row"
        ),
        DATA=_block(_document(picture)),
    )


def _part(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _block(document: object) -> str:
    """JSON that ends no element and begins none."""
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _document(picture: Picture) -> dict[str, object]:
    totals = picture.totals()
    contents = [
        {
            **{"name": content.name.lower(), "meaning": LOOKS[content].meaning},
            **{"light": LOOKS[content].light, "dark": LOOKS[content].dark},
            **{"bytes": totals.get(content, 0), "share": share(totals.get(content, 0), picture.size)},
        }
        for content in Content
    ]
    names, owners = _owners(picture)
    return {
        **{"size": picture.size, "cell": picture.cell, "columns": columns(picture), "contents": contents},
        **{"cells": _packed(picture.cells), "names": names, "owners": _packed(owners) if owners else ""},
        "ranges": [[item.start, item.size, item.kind.name.lower()] for item in picture.ranges],
    }


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


def _owners(picture: Picture) -> tuple[Sequence[str], bytes]:
    """The names, and for each cell the number of one in two bytes; that of number 0 is empty."""
    names: dict[str, int] = {"": 0}
    numbers = array.array("H", bytes(2 * len(picture.cells)))
    for owner in picture.owners:
        number = names.setdefault(owner.name, len(names)) if len(names) < MOST_NAMES else names.get(owner.name, 0)
        first, last = _cells_of(owner, picture)
        if first < last:
            numbers[first:last] = array.array("H", [number]) * (last - first)
    if sys.byteorder == "big":
        numbers.byteswap()
    return list(names), numbers.tobytes() if picture.owners else b""


def _cells_of(owner: Owner, picture: Picture) -> tuple[int, int]:
    """From which cell on, and up to which."""
    return owner.start // picture.cell, min(-(-owner.end // picture.cell), len(picture.cells))
