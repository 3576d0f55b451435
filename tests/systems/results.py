# SPDX-License-Identifier: Apache-2.0
"""The results that are kept, ``kept.json``, and the page that is made of them, ``docs/systems.md``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from .leftout import EMULATED, OLD_QEMU, Tests
from .report import Row
from .settings import ROOT, SETS

LICENCE = {"licence": "SPDX-License-Identifier: Apache-2.0"}
DATA = Path(__file__).with_name("kept.json")
PAGE = ROOT / "docs" / "systems.md"

HEADS = (
    *("date", "system", "processor", "glibc", "compiler", "Python", "QEMU", "tests"),
    *("demo", "passed", "failed", "skipped", "left out", "minutes", "library"),
)
INTRODUCTION = """\
<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- made of tests/systems/kept.json by make test-systems -->
# What ran where

Each line is the last run of [`make test-systems`](testing.md#other-systems) with one Python and one compiler on one
system: `make demo` and the tests, in a fresh clone. A run replaces the line that it repeats; the others stay, with
their dates.
"""
WORDS = {
    "all": "`make test`, with the live tests; nothing is skipped but what is told there",
    "no-live": "`make test` without the live tests",
    "library": "what depends on the processor: no live tests, and none of texts, packages and other people's tools",
}


def load(data: Path = DATA) -> list[Row]:
    """The rows that are kept."""
    return [Row(**row) for row in json.loads(data.read_text())["runs"]]


def merged(kept: Iterable[Row], new: Row) -> list[Row]:
    """The rows with a new one in the place of that which it repeats, in order."""
    rows = {_same(row): row for row in kept}
    rows[_same(new)] = new
    return [rows[key] for key in sorted(rows)]


def keep(new: Row, data: Path = DATA, made: Path = PAGE) -> None:
    """Write a row into the data, and the page anew."""
    write(merged(load(data), new), data, made)


def write(rows: Sequence[Row], data: Path = DATA, made: Path = PAGE) -> None:
    """Write the data, and the page that is made of them."""
    runs = [dataclasses.asdict(row) for row in rows]
    data.write_text(json.dumps({**LICENCE, "runs": runs}, indent=1) + "\n")
    made.write_text(page(rows))


def page(rows: Sequence[Row]) -> str:
    """The page: the table, what its words mean, and what was left out."""
    lines = [HEADS, tuple("---" for _ in HEADS), *map(_cells, rows)]
    left_out = [
        *_left_out("Where qemu-user runs a system's programs,", EMULATED),
        *_left_out("With QEMU 5.2 (`bookworm-qemu5`)", OLD_QEMU),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([INTRODUCTION, table, "", *_meaning({row.tests for row in rows}), *left_out])


def _meaning(used: set[str]) -> list[str]:
    """What the words for tests are, of those that the table has."""
    lines = [f"| {word} | {text} |" for word, text in WORDS.items() if word in used]
    lines += ["| folders | these alone |"] if used - WORDS.keys() else []
    return ["\n".join(["| tests | are |", "|---|---|", *lines]), ""] if lines else []


def _left_out(where: str, left_out: Tests) -> list[str]:
    """Which tests are left out, and why."""
    reasons = [f"| {reason} | {', '.join(f'`{test}`' for test in tests)} |" for reason, tests in left_out.items()]
    return [f"{where} these tests are left out:\n", "\n".join(["| why | tests |", "|---|---|", *reasons]), ""]


def _same(row: Row) -> tuple[object, ...]:
    """What a run repeats of another: system, minor version of Python, name of the compiler, tests."""
    minor = tuple(int(part) for part in row.python.split(".")[:2])
    return row.system, minor, row.compiler.split()[0], [*SETS, row.tests].index(row.tests), row.tests


def _cells(row: Row) -> tuple[str, ...]:
    processor = f"{row.processor}, by {row.emulator}" if row.emulator else row.processor
    tests = row.tests if row.tests in WORDS else f"`{row.tests}`"
    made_of = (f"{row.system}: {row.release}", processor, row.glibc, row.compiler, row.python, row.qemu)
    counts = (row.counts.get("passed", 0), row.failed, row.counts.get("skipped", 0), row.counts.get("deselected", 0))
    return (row.date, *made_of, tests, row.demo, *map(str, counts), f"{row.seconds / 60:.0f}", row.source)
