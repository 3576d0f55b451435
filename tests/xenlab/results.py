# SPDX-License-Identifier: Apache-2.0
"""Reads what dom0 says of the checks, while it says it; ``inside/runner.py`` has the lines' form."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

FIGURE = "figure: "


@dataclass
class Result:
    """What became of one check: its output, how long it took in seconds, why it failed (``""`` if it passed)."""

    text: list[str] = field(default_factory=list)
    seconds: float = 0.0
    reason: str = ""

    @property
    def figures(self) -> list[str]:
        """What it measured."""
        return [line.removeprefix(FIGURE) for line in self.text if line.startswith(FIGURE)]


def parse(report: Path) -> dict[str, Result]:
    """The results that are complete so far, by the checks' names."""
    results: dict[str, Result] = {}
    text: list[str] = []
    content = report.read_text(errors="replace") if report.exists() else ""
    for line in content.rpartition("\n")[0].splitlines():
        word, _, rest = line.partition(" ")
        if word == "begin":
            text = []
        elif word == "|":
            text.append(rest)
        elif word in ("pass", "fail"):
            name, seconds, *reason = rest.split(" ", 2)
            results[name] = Result(text, float(seconds), (reason or ["no reason"])[0] if word == "fail" else "")
    return results
