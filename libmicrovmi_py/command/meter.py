# SPDX-License-Identifier: Apache-2.0
"""How far long work is, in one line of a terminal that is written anew."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

from libmicrovmi_py.errors import escaped

_EVERY = 0.1
"""Seconds between two lines."""

_FIRST = 0.3
"""Seconds that work may take without a line."""

_STEPS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def columns() -> int:
    """Of the terminal; 80 of one that does not tell, which Python before 3.11 has as 0."""
    return shutil.get_terminal_size().columns or 80


def amount(number: float, unit: str = "B") -> str:
    """So many bytes, ``1.5 GiB``, or of what else is counted: ``12 machines``."""
    if unit != "B":
        return f"{number:.0f} {unit}"
    step = 0
    while number >= 1024 and step < len(_STEPS) - 1:
        number, step = number / 1024, step + 1
    return f"{number:.1f} {_STEPS[step]}B" if step else f"{number:.0f} B"


def duration(seconds: float) -> str:
    """``4 s``, ``2:05``, ``1:02:03``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Meter:
    """As ``kit.progress`` says: a block that gets a function."""

    def __init__(self, total: int, what: str, unit: str = "B") -> None:
        self.total, self._what, self._unit = total, escaped(what), unit
        self._shown = sys.stderr.isatty()
        self._begin = time.monotonic()
        self._next = self._begin + _FIRST
        self._first: int | None = None
        self._width = 0

    def __enter__(self) -> Meter:
        return self

    def __call__(self, done: int) -> None:
        """So much of the total is done."""
        if self._first is None:
            self._first = done
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + _EVERY
            self._write(self._line(done, now - self._begin))

    def report(self, done: int, total: int) -> None:
        """As a call, where the total may change."""
        self.total = total
        self(done)

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        if self._width:
            self._write("")
            print("\r", end="", file=sys.stderr, flush=True)

    def _line(self, done: int, passed: float) -> str:
        """What was done before this run began tells nothing about the rate."""
        rate = (done - (self._first or 0)) / passed
        parts = [f"{self._what}: {amount(done, self._unit)}"]
        if self.total:
            parts[0] += f" of {amount(self.total, self._unit)}, {min(100, done * 100 // self.total)}%"
        parts.append(f"{amount(rate, self._unit)}/s")
        if self.total and rate > 0:
            parts.append(f"{duration(max(0, self.total - done) / rate)} left")
        return ", ".join(parts)

    def _write(self, line: str) -> None:
        line = line[: max(columns() - 1, 1)]
        print(f"\r{line:{self._width}}", end="", file=sys.stderr, flush=True)
        self._width = len(line)
