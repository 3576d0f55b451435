# SPDX-License-Identifier: Apache-2.0
"""The results as text for a terminal and as docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from results import COLUMNS, KINDS, LOOPS, Claim, Results

HEADINGS = (*COLUMNS[:-1], "dump, GB/s")
OURS = "ours"
TITLES = {
    "shared": "Shared RAM (a file or memfd that the library maps)",
    "private": "Private RAM (another process's memory)",
}

INTRODUCTION = """<!-- SPDX-License-Identifier: Apache-2.0 -->
# Benchmarks

`make bench` measures what a read of a guest costs through the C API, beside the least that any program can pay for the
same bytes. It boots QEMU guests (TCG, 512 MiB, stopped while they are measured), writes this page and the chart, and
takes about a minute. What counts is the ratio to the limit of the same run: nanoseconds depend on the machine, and on
what else it does.

![What a read costs, in multiples of the limit](benchmarks.svg)
"""

READING = """
## How it is measured

- All subjects are called in one process through a pointer of the same type, in turns of about 40 microseconds, another
  one first in each round. Cells are min / median, in nanoseconds per call where no unit is given. Before anything is
  timed, every subject's reads are compared with the memory itself; one that reads something else is left out.
- The limit for shared RAM, `memcpy`, is a C function of the same signature that does nothing but `memcpy()` from a
  mapping of the RAM file. For private RAM it is the cheaper of `pread()` on `/proc/PID/mem` and `process_vm_readv()`;
  for 1 MiB and the scattered pages it is `process_vm_readv()`.
- *hot* reads one address again and again, the others read random ones (8 bytes: aligned to 8, else to 4 KiB).
  *256 pages* are scattered pages in one `microvmi_read_physical_batch()`, one `process_vm_readv()`, or 256 calls where
  there is no such thing. *dump* is one reading of everything in pieces of 1 MiB, all of it touched before.
- Idle guests are dumped before anything else reads them: by `mem-dump`, by a loop over all addresses, and by one that
  reads what `SEEK_DATA` finds; of three times, as of 20 openings, the quickest counts. Growth is that of the blocks of
  the RAM file. Holes that a loop reads are filled with zeros, so the loop over all addresses takes time by the size as
  well.
- With two threads, or one that spins, the median of 15 short rounds counts. What `memcpy` reaches in the same rounds
  stands beside it, as it tells what the processors had to give.
- This page is of one run. Figures near their limits can miss them in other runs and on busier machines: two threads
  above all, wherever `memcpy` in the same rounds misses them as well. The limits for "time per byte of data" (1.5) and
  for opening (1.2) are our own.

## How to run it

```
make bench
build/venv/bin/python c_tests/bench/bench.py --seconds 3                        # longer and calmer
build/venv/bin/python c_tests/bench/bench.py --peer other=/path/other.so        # and a library with the ABI of 0.4.0
build/venv/bin/python c_tests/bench/bench.py --image memory.raw --output /tmp   # a memory image, without QEMU
```

It needs what the [live tests](testing.md) need, and 5 GiB free in `/dev/shm`. LeechCore is measured where it is
installed (`pip install leechcorepyc`). With `--strict` it fails if a promise does not hold or was not measured.
"""


def duration(nanoseconds: float) -> str:
    """Short, with three digits that mean something."""
    for unit, size in (("ms", 1e6), ("us", 1e4)):
        if nanoseconds >= size:
            scaled = nanoseconds / (1e6 if unit == "ms" else 1e3)
            return f"{scaled:.3g} {unit}" if scaled < 1000 else f"{scaled:.0f} {unit}"
    return f"{nanoseconds:.3g}" if nanoseconds < 1000 else f"{nanoseconds:.0f}"


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
    words = {True: "yes", False: "no", None: "not measured"}
    lines = [[claim.text, claim.limit, claim.measured, words[claim.holds], claim.note] for claim in found]
    return [["promise", "limit", "measured", "holds", "beside it"], *lines]


def other_rows(results: Results) -> list[list[str]]:
    """Figures without a promise of their own."""
    numbers = results.numbers
    known = [
        ("4 KiB reads a second, one thread, shared RAM", "shared rate ours 1", 1e6, "million"),
        ("4 KiB reads a second, two threads, shared RAM", "shared rate ours 2", 1e6, "million"),
        ("4 KiB reads a second, one thread, private RAM", "private rate ours 1", 1e6, "million"),
        ("4 KiB reads a second, two threads, private RAM", "private rate ours 2", 1e6, "million"),
        ("Python: readinto of 1 MiB", f"readinto {1 << 20}", 1e3, "us"),
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
        ("8 B random among 2 regions", "lookup 2", 1, "ns"),
        ("8 B random among 10,000 regions", "lookup 10000", 1, "ns"),
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
    return [("Promises", promise_rows(found)), *tables, ("Further figures", other_rows(results))]


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
