# SPDX-License-Identifier: Apache-2.0
"""What is told of the runs: each step while it runs and when it ended, and the table at the end."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|deselected)\b")
LAST = re.compile(r"\d+ (?:passed|failed|error|errors|skipped)\b.* in [\d.]+s")
TAIL = 8
"""Lines of a log that are shown when its step failed."""

HEADS = ("system", "Python", "QEMU", "tests", "demo", "passed", "failed", "skipped", "minutes")


@dataclass
class Row:
    """One Python of one system. ``counts`` are pytest's words with their numbers; empty before its tests have run.

    ``tests`` is a word of ``settings.SETS`` or what pytest was told; ``date`` the day (UTC); ``source`` the library's
    version; ``emulator`` what runs the system's programs, empty if the processor does.
    """

    system: str
    python: str
    qemu: str = "-"
    demo: str = "-"
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    ended: bool = False
    tests: str = "all"
    release: str = "-"
    processor: str = "-"
    emulator: str = ""
    glibc: str = "-"
    compiler: str = "-"
    date: str = ""
    source: str = ""

    @property
    def good(self) -> bool:
        """Whether everything ran to its end and passed."""
        return self.ended and self.demo == "ok" and self.counts.get("passed", 0) > 0 and not self.failed

    @property
    def failed(self) -> int:
        """Tests that failed, or could not be set up."""
        return sum(self.counts.get(word, 0) for word in ("failed", "error", "errors"))

    def cells(self) -> tuple[str, ...]:
        """The row as texts."""
        counts = (self.counts.get("passed", 0), self.failed, self.counts.get("skipped", 0))
        tests = map(str, counts) if self.counts else ("none", "-", "-")
        return (self.system, self.python, self.qemu, self.tests, self.demo, *tests, f"{self.seconds / 60:.1f}")


def counts(log: str) -> dict[str, int]:
    """The numbers of pytest's last line, by their words; empty if there is none."""
    lines = [line for line in log.splitlines() if LAST.search(line)]
    return {word: int(number) for number, word in COUNT.findall(lines[-1])} if lines else {}


def table(rows: Sequence[Row]) -> str:
    """All rows below their heads, in columns."""
    cells = [HEADS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADS))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


class Progress:
    """Tells of steps: on a terminal also while they run, in one line that is written over."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._name = ""
        self._began = 0.0

    def begin(self, name: str) -> None:
        """A step begins."""
        self._name, self._began = name, time.monotonic()
        self.running(Path())

    def running(self, log: Path) -> None:
        """It still runs; the last line of its log is shown."""
        if not self._terminal:
            return
        text = log.read_text(errors="replace")[-500:] if log.is_file() else ""
        last = (text.strip().splitlines() or [""])[-1]
        line = f"{self._name}, {time.monotonic() - self._began:.0f} s: {last}"
        self._stream.write("\r\033[K" + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()

    def end(self, good: bool, log: Path) -> None:
        """It ended; a failure is told with the end of its log."""
        start = "\r\033[K" if self._terminal else ""
        word = "ok" if good else "FAILED"
        self._stream.write(f"{start}{self._name}: {word}, {time.monotonic() - self._began:.0f} s\n")
        if not good:
            lines = log.read_text(errors="replace").splitlines()[-TAIL:] if log.is_file() else []
            self._stream.write("".join(f"    {line}\n" for line in lines) + f"    all of it: {log}\n")
        self._stream.flush()
