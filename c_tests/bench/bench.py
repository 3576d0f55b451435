# SPDX-License-Identifier: Apache-2.0
"""Measures the library against what the operating system can do; how to read it: docs/benchmarks.md.

Boots guests under QEMU, runs the C programs of this folder, prints the table and every promise with whether it holds,
and writes docs/benchmarks.md and docs/benchmarks.svg. What cannot be measured here is named with its reason. Needs the
built library, a C compiler and the standard library.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import chart
import guests
import report
from guests import Machine
from programs import HERE, ROOT, ProgramError, Programs, run
from results import LOOPS, Results, claims

STARTS = 12
"""How often a program is started, if a column is given a second or more."""

OPENINGS = 20
DUMPS = 3
"""The quickest counts."""

FAKE = "vmi://fake/?size=0x200000"


class Bench:
    """One run: what it is to do, and what it has found out so far."""

    def __init__(self, options: argparse.Namespace, programs: Programs) -> None:
        self.options = options
        self.programs = programs
        self.results = Results()
        self._begin = time.monotonic()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of the run that may be impossible here; on a terminal its name is shown while it runs."""
        if sys.stderr.isatty():
            print(f"\r\033[K[{time.monotonic() - self._begin:3.0f} s] {name}", end="", file=sys.stderr, flush=True)
        try:
            yield
        except guests.Unavailable as err:
            self.results.skipped.append(f"{name}: {err}")
        finally:
            if sys.stderr.isatty():
                print("\r\033[K", end="", file=sys.stderr, flush=True)

    def everything(self) -> None:
        """All parts, on guests of our own."""
        with self.part("guests"):
            boot = guests.boot(self.programs.directory)
            with self.part("512 MiB, shared RAM"), guests.stopped("shared", 512, boot) as machine:
                self._sparse(machine, "512 MiB")
                self.on_one(machine)
            with self.part("512 MiB, private RAM"), guests.stopped("private", 512, boot) as machine:
                self._columns(machine, "private")
            with self.part("4 GiB, mostly untouched"), guests.stopped("shared", 4096, boot) as machine:
                self._sparse(machine, "4 GiB")
                self._compare_sparse()
            with self.part("opening"), guests.empty(512, 64 << 10) as machines:
                self._openings(machines)
        self._lookup()

    def on_one(self, machine: Machine) -> None:
        """What is measured on a machine whose memory is a file."""
        with self.part("shared RAM: columns"):
            self._columns(machine, "shared")
        with self.part("Python hosts"):
            self._hosts(machine)
        with self.part("start"):
            self._starts(machine)

    def _columns(self, machine: Machine, kind: str) -> None:
        options = self.options
        arguments = [f"library={self.programs.library}", f"seconds={options.seconds}", *machine.arguments()]
        if machine.name:
            arguments += [f"vm={machine.name}", *(f"peer={peer}" for peer in options.peer)]
        with guests.shared_memory_name(machine) as shm:
            if shm and options.leechcore:
                arguments += [f"leechcore={options.leechcore}", f"device=qemu://shm={shm},qmp={machine.monitor}"]
            self.results.size = machine.end - machine.start
            self.results.add(kind, self.programs.run("bench", *arguments))

    def _hosts(self, machine: Machine) -> None:
        scale = str(self.programs.directory / "libscale.so")
        host = [sys.executable, str(HERE / "host.py")]
        common = [scale, machine.uri, str(machine.ram), str(self.options.seconds), str(machine.start), str(machine.end)]
        self.results.add("", run([*host, "spin", str(self.programs.library), *common]))
        self.results.add("", run([*host, "classes", *common]))
        numbers = self.results.numbers
        numbers["readinto ratio"] = numbers[f"readinto {1 << 20}"] / numbers[f"memmove {1 << 20}"]

    def _starts(self, machine: Machine) -> None:
        """Milliseconds from before the start of a program to its main(), and to the first byte it reads."""
        columns: dict[str, list[float]] = {"link": [], "fake start": [], "python start": [], "cold start": []}
        for _ in range(max(2, round(STARTS * min(self.options.seconds, 1)))):
            columns["link"].append(self._start()[0])
            _, first, again = self._start(FAKE)
            columns["fake start"].append(first)
            columns["python start"].append(again)
            columns["cold start"].append(self._start(machine.uri)[1])
        self.results.numbers.update({name: statistics.median(values) for name, values in columns.items()})

    def _start(self, *uri: str) -> tuple[float, float, float]:
        """To main(), to the first byte, and how much longer the first opening took than the second: Python's start."""
        before = time.monotonic_ns()
        main, first, again, second = (int(field) for field in self.programs.run("start", *uri)[0])
        python = (first - main) - (second - again)
        return (main - before) / 1e6, (first - before) / 1e6, python / 1e6

    def _sparse(self, machine: Machine, size: str) -> None:
        """Dump an idle machine by ``mem-dump`` and by loops, and see what that did to its RAM file."""
        assert machine.ram is not None
        numbers = self.results.numbers
        data = numbers[f"data {size}"] = allocated(machine.ram)
        numbers[f"seconds mem-dump {size}"] = min(self._dump(machine) for _ in range(DUMPS))
        numbers[f"growth mem-dump {size}"] = growth(machine.ram, data)
        data = allocated(machine.ram)
        arguments = ["sparse", "dump", self.programs.library, machine.uri, machine.ram]
        runs = [self.programs.run(*map(str, arguments)) for _ in range(DUMPS)]
        for name, lines in zip(LOOPS, zip(*runs, strict=True), strict=True):
            numbers[f"seconds {name} {size}"] = min(float(seconds) for _, _, seconds in lines)
        numbers[f"growth loops {size}"] = growth(machine.ram, data)

    def _dump(self, machine: Machine) -> float:
        """Seconds that ``mem-dump`` took; what it wrote is compared."""
        assert machine.ram is not None
        output = machine.ram.with_name("dump")
        before = time.monotonic()
        self.programs.run("mem-dump", "-q", "-o", output, machine.uri)
        seconds = time.monotonic() - before
        compare(output, machine)
        output.unlink()
        return seconds

    def _compare_sparse(self) -> None:
        numbers = self.results.numbers
        data = numbers["data 4 GiB"] / numbers["data 512 MiB"]
        numbers["data ratio"] = data
        for name in ("mem-dump", *LOOPS):
            taken = numbers[f"seconds {name} 4 GiB"] / numbers[f"seconds {name} 512 MiB"]
            numbers[f"time ratio {name}"] = taken
            numbers[f"time per data {name}"] = taken / data

    def _openings(self, machines: list[Machine]) -> None:
        uris = [machine.uri for machine in machines]
        self.results.add("", self.programs.run("sparse", "open", self.programs.library, OPENINGS, *uris))
        numbers = self.results.numbers
        numbers["open ratio"] = numbers["open 1"] / numbers["open 0"]

    def _lookup(self) -> None:
        with self.part("lookup"):
            self.results.add("", self.programs.run("lookup", self.options.seconds))
        numbers = self.results.numbers
        numbers["lookup ratio"] = numbers["lookup 10000"] / numbers["lookup 2"]


def allocated(path: Path) -> int:
    """Bytes of the file that really exist."""
    return path.stat().st_blocks * 512


def growth(path: Path, before: float) -> float:
    """By how many percent of its size the file grew."""
    return 100 * (allocated(path) - before) / path.stat().st_size


def compare(dump: Path, machine: Machine) -> None:
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


def leechcore() -> str:
    """The path of LeechCore's library, if its Python package is installed."""
    spec = importlib.util.find_spec("leechcorepyc")
    places = spec.submodule_search_locations if spec else None
    return str(Path(places[0]) / "leechcore.so") if places else ""


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.py", description="Measure the library against memcpy and pread.")
    parser.add_argument("--library", type=Path, default=ROOT / "build" / "lib" / "libmicrovmi.so")
    parser.add_argument("--image", type=Path, help="measure on this memory image: no guest is started")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each column (1)")
    text = "another library with the ABI of libmicrovmi 0.4.0; any number"
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help=text)
    parser.add_argument(
        "--leechcore", default=leechcore(), metavar="PATH", help="leechcore.so, if not installed by pip"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="where benchmarks.md and .svg go (docs)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a promise does not hold")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> Bench:
    """A whole run; raises where nothing at all can be measured, or something is read wrong."""
    if not options.library.exists():
        raise guests.Unavailable(f"{options.library} is not there: run make lib")
    image = guests.image(options.image) if options.image else None
    with tempfile.TemporaryDirectory(prefix="microvmi-bench-") as work:
        bench = Bench(options, Programs(Path(work), options.library.resolve()))
        if image is not None:
            bench.on_one(image)
        else:
            bench.everything()
    return bench


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        bench = measure(options)
    except (ProgramError, guests.Unavailable) as err:
        print(f"bench.py: {err}", file=sys.stderr)
        return 1
    results = bench.results
    found = list(claims(results))
    print(report.text(results, found))
    if not results.cells:
        return 1
    (options.output / "benchmarks.md").write_text(report.document(results, found))
    (options.output / "benchmarks.svg").write_text(chart.draw(results))
    return 1 if options.strict and not all(claim.holds for claim in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
