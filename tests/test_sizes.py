# SPDX-License-Identifier: Apache-2.0
"""No function is longer than 40 lines, no file of the library longer than 400: what is, is several things."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "libmicrovmi_py"
FUNCTION, FILE = 40, 400
ENDINGS = (".py", ".c", ".h")
SOURCES = sorted(path for path in PACKAGE.rglob("*") if path.suffix in ENDINGS and path.parent.name != "include")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def functions_in_python(text: str) -> Iterator[tuple[str, int]]:
    """Name and lines of every function, its decorators left out."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def functions_in_c(text: str) -> Iterator[tuple[str, int]]:
    """Head and lines of every function: its braces stand at the beginning of a line, its head follows an empty
    line or a comment."""
    head, body = 0, False
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if not body and (not line or line.endswith("*/")):
            head = at + 1
        elif line == "{":
            body = True
        elif line == "}" and body:
            yield lines[head], at - head + 1
            body = False


def functions_of(path: Path) -> list[tuple[str, int]]:
    return list((functions_in_python if path.suffix == ".py" else functions_in_c)(path.read_text()))


def test_no_function_is_longer_than_a_screen() -> None:
    found = [(name_of(path), *function) for path in SOURCES for function in functions_of(path)]
    assert [function for function in found if function[2] > FUNCTION] == []
    assert sum(not file.endswith(".py") for file, _, _ in found) > 200, "functions in C are not seen"


def test_no_file_is_longer_than_can_be_read_at_once() -> None:
    assert [name_of(path) for path in SOURCES if len(path.read_text().splitlines()) > FILE] == []


def test_lines_are_counted_from_the_head_to_the_last_brace() -> None:
    text = "/* One. */\nstatic int one(int a,\n    int b)\n{\n    struct s c = {\n    };\n\n}\n"
    text += "\nint x;\n\nint two(void)\n{\n}\n"
    assert list(functions_in_c(text)) == [("static int one(int a,", 7), ("int two(void)", 3)]
    assert list(functions_in_python("@a\ndef f(\n    x\n):\n    def g(): pass\n")) == [("f", 4), ("g", 1)]
