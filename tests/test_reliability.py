# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md names tests for every fault that it lists, other pages for their claims; they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
CLAIMS = "".join(
    (ROOT / "docs" / name).read_text() for name in ("virtual-memory.md", "diff.md", "snapshots.md", "command.md")
)
REFERENCES = sorted(set(re.findall(r"\b(tests/[\w/]+\.py)(?:::(\w+))?", PAGE + CLAIMS)))
LINES = [f"A.{n}" for n in range(1, 8)] + [f"B.{n}" for n in range(1, 7)] + [f"C.{n}" for n in range(1, 8)]
LINES += [f"D.{n}" for n in range(1, 5)] + ["E "] + [f"F.{n}" for n in range(1, 7)] + ["G "]


@pytest.mark.parametrize(("file", "name"), REFERENCES, ids="::".join)
def test_a_test_that_a_page_names_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert name in functions if name else any(word.startswith("test_") for word in functions)


@pytest.mark.parametrize("line", LINES)
def test_every_numbered_line_has_a_row_with_a_test(line: str) -> None:
    rows = [row for row in PAGE.splitlines() if row.startswith(f"| {line}")]
    assert rows
    assert all("tests/" in row.rpartition("|")[0].rpartition("|")[2] for row in rows)
