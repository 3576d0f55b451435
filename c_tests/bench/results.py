# SPDX-License-Identifier: Apache-2.0
"""What a run measured, and what the project promises about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

COLUMNS = ("8 B hot", "8 B random", "4 KiB random", "64 KiB", "1 MiB", "256 pages", "dump")
KINDS = ("shared", "private")
LOOPS = ("a loop over all addresses", "a loop from data to data")


class Value(NamedTuple):
    """Nanoseconds per call."""

    least: float
    median: float


class Claim(NamedTuple):
    """A promise: what is measured, its limit, whether it holds (None: not measured), and what else to know."""

    text: str
    limit: str
    measured: str
    holds: bool | None
    note: str = ""


@dataclass
class Results:
    """Everything one run measured.

    ``cells`` is by kind of RAM, subject and column. ``numbers`` are all other figures by name; ``skipped`` says what
    could not be measured and why. ``size`` is what a reading of everything reads, in bytes.
    """

    size: int = 0
    cells: dict[tuple[str, str, str], Value] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def add(self, kind: str, lines: list[list[str]]) -> None:
        """Take in what a program printed; ``kind`` is that of the RAM, or empty where it does not matter."""
        for word, *fields in lines:
            if word == "cell":
                subject, column, least, median = fields
                self.cells[kind, subject, column] = Value(float(least), float(median))
            elif word == "skipped":
                self.skipped.append(f"{fields[0]} ({kind} RAM): {fields[1]}")
            else:
                name, value = fields
                self.numbers[f"{kind} {name}".lstrip()] = float(value)

    def subjects(self, kind: str) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(subject for found, subject, _ in self.cells if found == kind))

    def limit(self, kind: str, column: str) -> tuple[str, Value] | None:
        """The cheapest way there is: for shared RAM a copy, for private RAM the cheaper system call."""
        names = ("memcpy",) if kind == "shared" else ("pread /proc/PID/mem", "process_vm_readv")
        if kind == "private" and column in ("1 MiB", "256 pages"):
            names = ("process_vm_readv",)
        found = [(name, self.cells[kind, name, column]) for name in names if (kind, name, column) in self.cells]
        return min(found, key=lambda item: item[1].median) if found else None

    def ratio(self, kind: str, subject: str, column: str) -> float | None:
        """The median of a cell over that of its limit."""
        limit, value = self.limit(kind, column), self.cells.get((kind, subject, column))
        return value.median / limit[1].median if limit and value else None

    def bandwidth(self, value: Value) -> Value:
        """GB/s of a reading of everything: the best and the median."""
        return Value(self.size / value.least, self.size / value.median)


RATIOS = {
    ("shared", "8 B hot"): 4.0,
    ("shared", "8 B random"): 1.5,
    ("shared", "4 KiB random"): 1.1,
    ("shared", "64 KiB"): 1.05,
    ("shared", "1 MiB"): 1.05,
    ("shared", "256 pages"): 1.1,
    ("shared", "dump"): 1 / 0.95,
    ("private", "8 B hot"): 1.1,
    ("private", "8 B random"): 1.1,
    ("private", "4 KiB random"): 1.1,
    ("private", "1 MiB"): 1.05,
    ("private", "256 pages"): 1.1,
}
"""How much of the limit a read may cost."""


def claims(results: Results) -> Iterator[Claim]:
    """Every promise, in the order of the documentation."""
    yield from _ratio_claims(results)
    yield _most(results, "private RAM, paused by the context: 8 B hot", "private cached", 20, "{:.1f} ns")
    yield from _thread_claims(results)
    yield from _python_claims(results)
    yield from _sparse_claims(results)


def _ratio_claims(results: Results) -> Iterator[Claim]:
    for (kind, column), most in RATIOS.items():
        ratio, limit = results.ratio(kind, "ours", column), results.limit(kind, column)
        name = limit[0] if limit else "the limit"
        if column == "dump":
            measured = f"{1 / ratio:.2f} x" if ratio else "-"
            yield Claim(f"{kind} RAM: bandwidth of a whole dump", f">= 0.95 x {name}", measured, _holds(ratio, most))
        else:
            measured = f"{ratio:.2f} x" if ratio else "-"
            yield Claim(f"{kind} RAM: {column}", f"<= {most:g} x {name}", measured, _holds(ratio, most))


def _holds(value: float | None, most: float) -> bool | None:
    return None if value is None else value <= most


def _most(results: Results, text: str, name: str, most: float, form: str, note: str = "") -> Claim:
    value = results.numbers.get(name)
    measured = "-" if value is None else form.format(value)
    return Claim(text, f"<= {form.format(most)}", measured, _holds(value, most), note)


def _thread_claims(results: Results) -> Iterator[Claim]:
    numbers = results.numbers
    gain = numbers.get("shared gain ours")
    yield Claim(
        "two threads on one context, 4 KiB reads",
        ">= 1.9 x one thread",
        "-" if gain is None else f"{gain:.2f} x",
        _reaches(gain, 1.9),
        _other(numbers, "shared gain memcpy", "memcpy: {:.2f} x"),
    )
    kept, best = numbers.get("kept ours"), numbers.get("kept memcpy", 0.0)
    yield Claim(
        "the same beside a spinning Python thread",
        "< 10 % lost",
        "-" if kept is None else f"{100 * (1 - kept):.1f} %",
        _reaches(kept, 0.9),
        "" if kept is None else f"memcpy: {100 * (1 - best):.1f} %",
    )


def _reaches(value: float | None, least: float) -> bool | None:
    return None if value is None else value >= least


def _other(numbers: dict[str, float], name: str, form: str) -> str:
    return form.format(numbers[name]) if name in numbers else ""


def _python_claims(results: Results) -> Iterator[Claim]:
    yield _most(results, "Python: readinto of 1 MiB", "readinto ratio", 1.1, "{:.2f} x memmove")
    yield _most(results, "Python: readinto of 4 KiB", f"readinto {4 << 10}", 1000, "{:.0f} ns")
    note = _other(results.numbers, "python start", "Python's start: {:.0f} ms")
    yield _most(results, "process start to the first byte of a guest", "cold start", 150, "{:.0f} ms", note)


def _sparse_claims(results: Results) -> Iterator[Claim]:
    for name, text in (("mem-dump", "mem-dump"), ("loops", "reading loops")):
        yield _most(results, f"idle 4 GiB guest, {text}: growth of its RAM file", f"growth {name} 4 GiB", 2, "{:.2f} %")
    data = _other(results.numbers, "data ratio", "{:.2f} x the data")
    for name in ("mem-dump", LOOPS[1]):
        text = f"idle 4 GiB guest, {name}: time per byte of data"
        note = _other(results.numbers, f"time ratio {name}", f"{{:.2f}} x the time for {data}")
        yield _most(results, text, f"time per data {name}", 1.5, "{:.2f} x 512 MiB's", note)
    yield _most(results, "opening a guest of 64 GiB", "open ratio", 1.2, "{:.2f} x one of 512 MiB")
    yield _most(results, "8 B random among 10,000 regions", "lookup ratio", 2, "{:.2f} x among 2")
