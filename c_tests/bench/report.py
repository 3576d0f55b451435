# SPDX-License-Identifier: Apache-2.0
"""The results as text for a terminal and as docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from page import INTRODUCTION, READING
from promises import NO_LIMIT, Claim
from results import COLUMNS, KINDS, LOOPS, OURS, Results, duration

HEADINGS = (*COLUMNS[:-1], "dump, GB/s")
TITLES = {
    "shared": "Shared RAM (a file or memfd that the library maps)",
    "private": "Private RAM (another process's memory)",
}


def cell(results: Results, kind: str, subject: str, column: str) -> str:
    """One cell of the table."""
    value = results.cells.get((kind, subject, column))
    if value is None:
        return "-"
    if column == "dump":
        best, middle = results.bandwidth(value)
        return f"{best:.3g} / {middle:.3g}"
    return f"{duration(value.least)} / {duration(value.median)}"


def rows(results: Results, kind: str) -> list[list[str]]:
    """The table of one kind of RAM, with a heading and the ratio at the end."""
    table = [["ns per call, min / median", *HEADINGS]]
    for subject in results.subjects(kind):
        table.append([subject, *(cell(results, kind, subject, column) for column in COLUMNS)])
    ratios = [results.ratio(kind, OURS, column) for column in COLUMNS]
    table.append(["ours, times the limit", *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios)])
    return table


def promise_rows(found: Sequence[Claim]) -> list[list[str]]:
    """Every promise with its limit and whether it holds."""
    lines = [[claim.text, claim.limit, claim.measured, _holds(claim), claim.note] for claim in found]
    return [["promise", "limit", "measured", "holds", "beside it"], *lines]


def _holds(claim: Claim) -> str:
    if claim.holds is None:
        return "not measured"
    return "-" if claim.limit == NO_LIMIT else "yes" if claim.holds else "no"


def other_rows(results: Results) -> list[list[str]]:
    """Figures without a promise of their own."""
    numbers = results.numbers
    known = [
        ("4 KiB reads a second, one thread, shared RAM", "shared rate ours 1", 1e6, "million"),
        ("4 KiB reads a second, two threads, shared RAM", "shared rate ours 2", 1e6, "million"),
        ("4 KiB reads a second, one thread, private RAM", "private rate ours 1", 1e6, "million"),
        ("4 KiB reads a second, two threads, private RAM", "private rate ours 2", 1e6, "million"),
        ("a program that links the library, to its main()", "link", 1, "ms"),
        ("a program that reads a byte of vmi://fake", "fake start", 1, "ms"),
        ("of that, the start of Python", "python start", 1, "ms"),
        ("opening a guest of 512 MiB, Python being up", "open 0", 1e6, "ms"),
        ("opening a guest of 64 GiB, Python being up", "open 1", 1e6, "ms"),
        ("data of the idle guest of 512 MiB", "data 512 MiB", 1 << 20, "MiB"),
        ("data of the idle guest of 4 GiB", "data 4 GiB", 1 << 20, "MiB"),
        ("mem-dump of 512 MiB", "seconds mem-dump 512 MiB", 1e-3, "ms"),
        ("mem-dump of 4 GiB", "seconds mem-dump 4 GiB", 1e-3, "ms"),
        *((f"{name}, {size}", f"seconds {name} {size}", 1e-3, "ms") for name in LOOPS for size in ("512 MiB", "4 GiB")),
    ]
    lines = [[text, f"{numbers[name] / unit:.3g} {word}"] for text, name, unit, word in known if name in numbers]
    return [["figure", "measured"], *lines]


def aligned(table: list[list[str]]) -> str:
    """A table for a terminal."""
    widths = [max(len(row[index]) for row in table) for index in range(len(table[0]))]
    lines = (map(str.ljust, row, widths) for row in table)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown(table: list[list[str]]) -> str:
    """A table for a page."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    return "\n".join(lines)


def sections(results: Results, found: Sequence[Claim]) -> list[tuple[str, list[list[str]]]]:
    """Headings and tables, in order."""
    tables = [(TITLES[kind], rows(results, kind)) for kind in KINDS if results.subjects(kind)]
    others = [("Further figures", other_rows(results))] if results.numbers else []
    return [("Promises", promise_rows(found)), *tables, *others]


def text(results: Results, found: Sequence[Claim]) -> str:
    """All of it for a terminal; the promises last."""
    first, *others = sections(results, found)
    parts = [f"{title}\n\n{aligned(table)}" for title, table in (*others, first)]
    parts += [f"not measured: {line}" for line in results.skipped]
    return "\n\n".join(parts)


def machine() -> str:
    """What it was measured on, in one line."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    release = ".".join(platform.release().split(".")[:2])
    return f"Measured on: {model}, {os.cpu_count()} processors, Linux {release}."


def document(results: Results, found: Sequence[Claim]) -> str:
    """docs/benchmarks.md."""
    parts = [INTRODUCTION + "\n" + machine()]
    parts += [f"## {title}\n\n{markdown(table)}" for title, table in sections(results, found)]
    if results.skipped:
        parts.append("## Not measured\n\n" + "\n".join(f"- {line}" for line in results.skipped))
    return "\n\n".join(parts) + "\n" + READING
