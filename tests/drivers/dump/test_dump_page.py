# SPDX-License-Identifier: Apache-2.0
"""The page of dumps has a row for each format and each wrapper that there is, and no other, with every cell filled."""

from __future__ import annotations

import re

import pytest
from drivers.dump.first_bytes import PAGE

from libmicrovmi_py.drivers.dump import formats, wrappers
from libmicrovmi_py.drivers.dump.probing import wanted

FORMATS = "| format | made by | what is read | registers | how it is proved | peers that read it too |"
WRAPPERS = "| wrapper | made by | how it is read |"
COMPARED = "| format | compared with |"


def rows(head: str) -> list[list[str]]:
    """The cells of the table with that first line."""
    text = PAGE.read_text()
    assert text.count(f"\n{head}\n") == 1, f"the page has no table, or two, that begin with {head}"
    lines = text.partition(f"\n{head}\n")[2].splitlines()[1:]
    table = lines[: next(number for number, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def test_every_format_has_one_row() -> None:
    assert sorted(row[0] for row in rows(FORMATS)) == [f"`{item.name}`" for item in wanted(formats.__name__)]


def test_every_wrapper_has_a_row() -> None:
    names = [item.name for item in wanted(wrappers.__name__)]
    for name in names:
        assert sum(bool(re.search(rf"\b{name}\b", row[0], re.IGNORECASE)) for row in rows(WRAPPERS)) == 1, name
    assert len(rows(WRAPPERS)) == len(names)


@pytest.mark.parametrize("head", [FORMATS, WRAPPERS, COMPARED])
def test_no_cell_is_empty(head: str) -> None:
    columns = head.count("|") - 1
    for row in rows(head):
        assert len(row) == columns, row
        assert all(row), row


def test_a_row_says_how_its_format_is_proved() -> None:
    compared = [row[0].partition(",")[0] for row in rows(COMPARED)]
    for name, _, _, _, proved, peers in rows(FORMATS):
        assert proved.startswith(("true samples: ", "description: ")), name
        if "true samples" not in proved and name not in compared:
            assert re.search(r"\w", peers), f"{name}: nobody proves it"
            assert not peers.startswith("nobody"), f"{name}: what its own builder was compared with is not told"
