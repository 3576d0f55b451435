# SPDX-License-Identifier: Apache-2.0
"""The table of first bytes as docs/drivers/dump.md shows it; run this file to write it there."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from libmicrovmi_py.drivers.dump.known import KNOWN, Known

PAGE = Path(__file__).resolve().parents[3] / "docs" / "drivers" / "dump.md"
_BEGIN, _END = "<!-- first bytes: begin -->\n", "<!-- first bytes: end -->\n"


def table() -> str:
    """The rows of the table, those of one kind of file as one."""
    lines = ["| is | begins with | way out |", "|---|---|---|"]
    for (what, way_out), items in itertools.groupby(KNOWN, lambda item: (item.what, item.way_out)):
        begins = ", ".join(dict.fromkeys(_shown(item) for item in items))
        lines.append(f"| {what} | {begins} | {way_out} |")
    return "\n".join(lines) + "\n"


def _shown(item: Known) -> str:
    text = "".join(chr(byte) if 33 <= byte < 127 and chr(byte) not in "|`" else f"\\x{byte:02x}" for byte in item.magic)
    return f"`{text}`" + (f" at {item.offset:#x}" if item.offset else "")


def documented(text: str) -> str:
    """The table in the page's text."""
    found = re.search(f"{_BEGIN}(.*){_END}", text, re.DOTALL)
    assert found, "the page has no place for the table"
    return found[1]


if __name__ == "__main__":
    before = PAGE.read_text()
    PAGE.write_text(before.replace(documented(before), table()))
