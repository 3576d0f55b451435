# SPDX-License-Identifier: Apache-2.0
"""One word for one thing (the glossary of docs/design.md): names of files, folders and classes use no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

INSTEAD = {
    "hot": "direct",
    "played": "simulator, or fake",
    "standin": "simulator, or fake",
    "standins": "simulators, or fakes",
}
"""Words that names had, and what the glossary has for them. ``stand_in`` and ``StandIn`` count as one word."""


def names() -> Iterator[str]:
    """Every file and folder of ours, and every class in them as ``FILE:CLASS``."""
    for top in ("libmicrovmi_py", "tests", "c_tests"):
        for path in sorted((ROOT / top).rglob("*")):
            name = str(path.relative_to(ROOT))
            if "__pycache__" in name or path.suffix in (".so", ".pyc"):
                continue
            yield name
            if path.suffix == ".py":
                nodes = ast.walk(ast.parse(path.read_text()))
                yield from (f"{name}:{node.name}" for node in nodes if isinstance(node, ast.ClassDef))


def words_of(name: str) -> set[str]:
    """The words of the last part of a name, in lower case."""
    last = re.split("[/:]", name)[-1].replace("_in", "in").replace("-in", "in").replace("In", "in")
    return {word.lower() for word in re.findall("[A-Z]?[a-z]+", last)}


def test_no_name_has_a_word_that_was_given_up() -> None:
    assert {name for name in names() if words_of(name) & INSTEAD.keys()} == set(), INSTEAD


def test_a_name_is_taken_apart_into_its_words() -> None:
    assert words_of("tests/stand_ins.py") == {"standins", "py"}
    assert words_of("tests/x.py:StandIn") == {"standin"}
    assert words_of("tests/played_qemu.py:PlayedQemu") == {"played", "qemu"}
    assert not words_of("tests/test_understanding.py") & INSTEAD.keys()
