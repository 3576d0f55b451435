# SPDX-License-Identifier: Apache-2.0
"""The tour of docs/design.md leads through every folder of the library, and the glossary has the words to use."""

from __future__ import annotations

import re
from pathlib import Path

from test_words import INSTEAD

ROOT = Path(__file__).resolve().parents[1]
DESIGN = (ROOT / "docs" / "design.md").read_text()
BUILT = {"__pycache__", "include", "lib"}


def section(title: str) -> str:
    """The text of a section of the second level."""
    return DESIGN.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_folder_is_in_the_tour() -> None:
    tour = section("A tour")
    folders = {path.name for path in (ROOT / "libmicrovmi_py").iterdir() if path.is_dir()} - BUILT
    assert {name for name in folders if f"**`{name}/`**" not in tour} == set()


def test_the_glossary_is_sorted_and_has_the_words_to_use() -> None:
    words = re.findall(r"^\| ([a-z, ]+) \|", section("Glossary"), re.MULTILINE)[1:]
    assert words == sorted(words)
    wanted = {word.removesuffix("s") for text in INSTEAD.values() for word in text.split(", or ")}
    assert wanted <= {word for text in words for word in text.split(", ")}
