# SPDX-License-Identifier: Apache-2.0
"""Guests that are mostly untouched: dumping them, and opening large ones."""

from __future__ import annotations

import time
from pathlib import Path

from guests import Machine
from programs import ProgramError, Programs
from results import LOOPS, Results

OPENINGS = 20
DUMPS = 3
"""The quickest counts."""


def measure(programs: Programs, results: Results, machine: Machine, size: str) -> None:
    """Dump an idle machine by ``mem-dump`` and by loops, and see what that did to its RAM file."""
    assert machine.ram is not None
    numbers = results.numbers
    data = numbers[f"data {size}"] = allocated(machine.ram)
    numbers[f"seconds mem-dump {size}"] = min(dump(programs, machine) for _ in range(DUMPS))
    numbers[f"growth mem-dump {size}"] = growth(machine.ram, data)
    data = allocated(machine.ram)
    arguments = ["sparse", "dump", programs.library, machine.uri, machine.ram]
    runs = [programs.run(*map(str, arguments)) for _ in range(DUMPS)]
    for name, lines in zip(LOOPS, zip(*runs, strict=True), strict=True):
        numbers[f"seconds {name} {size}"] = min(float(seconds) for _, _, seconds in lines)
    numbers[f"growth loops {size}"] = growth(machine.ram, data)


def dump(programs: Programs, machine: Machine) -> float:
    """Seconds that ``mem-dump`` took; what it wrote is compared."""
    assert machine.ram is not None
    output = machine.ram.with_name("dump")
    before = time.monotonic()
    programs.run("mem-dump", "-q", "-o", output, machine.uri)
    seconds = time.monotonic() - before
    same(output, machine)
    output.unlink()
    return seconds


def compare(results: Results) -> None:
    """What the larger guest took, by the data of both."""
    numbers = results.numbers
    data = numbers["data 4 GiB"] / numbers["data 512 MiB"]
    numbers["data ratio"] = data
    for name in ("mem-dump", *LOOPS):
        taken = numbers[f"seconds {name} 4 GiB"] / numbers[f"seconds {name} 512 MiB"]
        numbers[f"time ratio {name}"] = taken
        numbers[f"time per data {name}"] = taken / data


def openings(programs: Programs, results: Results, machines: list[Machine]) -> None:
    """Open each again and again."""
    uris = [machine.uri for machine in machines]
    results.add("", programs.run("sparse", "open", programs.library, OPENINGS, *uris))
    numbers = results.numbers
    numbers["open ratio"] = numbers["open 1"] / numbers["open 0"]


def allocated(path: Path) -> int:
    """Bytes of the file that really exist."""
    return path.stat().st_blocks * 512


def growth(path: Path, before: float) -> float:
    """By how many percent of its size the file grew."""
    return 100 * (allocated(path) - before) / path.stat().st_size


def same(dump: Path, machine: Machine) -> None:
    """See that the dump holds what the RAM file holds; read() allocates nothing."""
    assert machine.ram is not None
    piece = 4 << 20
    with dump.open("rb") as ours, machine.ram.open("rb") as ram:
        for address in range(machine.start, machine.end, piece):
            ours.seek(address)
            ram.seek(address)
            size = min(piece, machine.end - address)
            if ours.read(size) != ram.read(size):
                raise ProgramError(f"mem-dump: what it wrote for {address:#x} is not what is there")
