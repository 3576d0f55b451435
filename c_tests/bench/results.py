# SPDX-License-Identifier: Apache-2.0
"""What a run measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

COLUMNS = ("8 B hot", "8 B random", "4 KiB random", "64 KiB", "1 MiB", "256 pages", "dump")
KINDS = ("shared", "private")
LOOPS = ("a loop over all addresses", "a loop from data to data")
OURS = "ours"
PREAD, READV = "pread /proc/PID/mem", "process_vm_readv"
LOAD = "a load of 8 bytes"
BUSY = 3
"""So many times what it can take is what a partner takes on a machine that has something else to do."""


class Value(NamedTuple):
    """Nanoseconds per call."""

    least: float
    median: float


class Pair(NamedTuple):
    """Ours and a partner that took turns.

    ``ours`` and ``partner`` are medians in nanoseconds (or rates); ``low``, ``middle`` and ``high`` are quartiles of
    the ratios of the rounds. The least of each comes last.
    """

    ours: float
    partner: float
    low: float
    middle: float
    high: float
    our_least: float
    partner_least: float

    @property
    def quickest(self) -> float:
        """The ratio of the minima."""
        return self.our_least / self.partner_least

    @property
    def busy(self) -> bool:
        """Whether others had so much of the machine that medians tell little."""
        return self.partner > BUSY * self.partner_least


@dataclass
class Results:
    """Everything one run measured.

    ``cells`` is by kind of RAM, subject and column; ``spreads`` has the quartiles of ours over a limit, by kind of RAM,
    limit and column. ``pairs`` and all other figures, ``numbers``, are by name; ``skipped`` says what could not be
    measured and why. ``size`` is what a reading of everything reads, in bytes.
    """

    size: int = 0
    cells: dict[tuple[str, str, str], Value] = field(default_factory=dict)
    spreads: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)
    pairs: dict[str, Pair] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def add(self, kind: str, lines: list[list[str]]) -> None:
        """Take in what a program printed; ``kind`` is that of the RAM, or empty where it does not matter."""
        for word, name, *fields in lines:
            if word == "cell":
                column, least, median = fields
                self.cells[kind, name, column] = Value(float(least), float(median))
            elif word == "spread":
                column, low, high = fields
                self.spreads[kind, name, column] = float(low), float(high)
            elif word == "pair":
                self.pairs[f"{kind} {name}".lstrip()] = Pair(*map(float, fields))
            elif word == "skipped":
                self.skipped.append(f"{name} ({kind} RAM): {fields[0]}")
            else:
                self.numbers[f"{kind} {name}".lstrip()] = float(fields[0])

    def subjects(self, kind: str) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(subject for found, subject, _ in self.cells if found == kind))

    def limit(self, kind: str, column: str) -> tuple[str, Value] | None:
        """The cheapest way there is: for shared RAM a copy, or a load; for private RAM the cheaper system call."""
        names = limits(kind, column)
        found = [(name, self.cells[kind, name, column]) for name in names if (kind, name, column) in self.cells]
        return min(found, key=lambda item: item[1].median) if found else None

    def ratio(self, kind: str, subject: str, column: str) -> float | None:
        """The median of a cell over that of its limit."""
        limit, value = self.limit(kind, column), self.cells.get((kind, subject, column))
        return value.median / limit[1].median if limit and value else None

    def bandwidth(self, value: Value) -> Value:
        """GB/s of a reading of everything: the best and the median."""
        return Value(self.size / value.least, self.size / value.median)


def limits(kind: str, column: str) -> tuple[str, ...]:
    """The subjects of which the cheapest is the limit."""
    if kind == "shared":
        return (LOAD,) if column.startswith("8 B") else ("memcpy",)
    return (READV,) if column in ("64 KiB", "1 MiB", "256 pages") else (PREAD, READV)


def duration(nanoseconds: float) -> str:
    """Short, with three digits that mean something."""
    for unit, size in (("ms", 1e6), ("us", 1e4)):
        if nanoseconds >= size:
            scaled = nanoseconds / (1e6 if unit == "ms" else 1e3)
            return f"{scaled:.3g} {unit}" if scaled < 1000 else f"{scaled:.0f} {unit}"
    return f"{nanoseconds:.3g}" if nanoseconds < 1000 else f"{nanoseconds:.0f}"
