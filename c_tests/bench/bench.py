# SPDX-License-Identifier: Apache-2.0
"""Measures the library against what the operating system can do; how to read it: docs/benchmarks.md.

Boots guests under QEMU, runs the programs of this folder, prints the table and every promise with whether it holds, and
writes docs/benchmarks.md and docs/benchmarks.svg. What cannot be measured here is named with its reason. Needs the
built library with the Python of its build, and a C compiler.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

import chart
import guests
import idle
import report
from parts import ON_ONE, PARTS, WITH_GUESTS, Bench
from programs import ROOT, ProgramError, Programs
from promises import claims


def everything(bench: Bench) -> None:
    """All parts that are wanted, on guests of our own."""
    if bench.wants(*WITH_GUESTS):
        with bench.part("guests"):
            on_guests(bench)
    bench.without_guests()


def on_guests(bench: Bench) -> None:
    """The parts that need guests."""
    programs, results = bench.programs, bench.results
    boot = guests.boot(programs.directory)
    if bench.wants("idle", *ON_ONE):
        with bench.part("512 MiB, shared RAM"), guests.stopped("shared", 512, boot) as machine:
            if bench.wants("idle"):
                idle.measure(programs, results, machine, "512 MiB")
            bench.on_one(machine)
    if bench.wants("private"):
        with bench.part("512 MiB, private RAM"), guests.stopped("private", 512, boot) as machine:
            bench.columns(machine, "private")
    if bench.wants("idle"):
        with bench.part("4 GiB, mostly untouched"), guests.stopped("shared", 4096, boot) as machine:
            idle.measure(programs, results, machine, "4 GiB")
            idle.compare(results)
    for kind in ("shared", "private"):
        if bench.wants("virtual"):
            with bench.part(f"{kind} RAM: virtual memory"), guests.bare(kind) as machine:
                bench.virtual(machine, kind)
    if bench.wants("vcpus"):
        events = programs.directory / "events"
        with bench.part("64 vCPUs"), guests.many_vcpus(64, events) as machine:
            bench.vcpus(machine, events)
    if bench.wants("snapshots"):
        with bench.part("snapshots"):
            bench.snapshots()
    if bench.wants("events"):
        with bench.part("events"):
            bench.events()
    if bench.wants("opening"):
        with bench.part("opening"), guests.empty(512, 64 << 10) as machines:
            idle.openings(programs, results, machines)


def leechcore() -> str:
    """The path of LeechCore's library, if its Python package is installed."""
    spec = importlib.util.find_spec("leechcorepyc")
    places = spec.submodule_search_locations if spec else None
    return str(Path(places[0]) / "leechcore.so") if places else ""


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    known = "\n".join(f"  {name:10}{text}" for name, text in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="bench.py",
        description="Measure the library against memcpy, pread and what else is the least.",
        epilog=f"parts:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--library", type=Path, default=ROOT / "build" / "lib" / "libmicrovmi.so")
    parser.add_argument("--package", type=Path, default=ROOT, help="the folder of the libmicrovmi_py to measure")
    parser.add_argument("--image", type=Path, help="measure on this memory image: no guest is started")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each column (1)")
    text = "measure this part alone, print it and write nothing but to --output; any number"
    parser.add_argument("--only", action="append", default=[], choices=list(PARTS), metavar="PART", help=text)
    text = "another library with the ABI of libmicrovmi 0.4.0; any number"
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help=text)
    parser.add_argument(
        "--leechcore", default=leechcore(), metavar="PATH", help="leechcore.so, if not installed by pip"
    )
    parser.add_argument("--output", type=Path, help="where benchmarks.md and .svg go (docs)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a promise does not hold")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> Bench:
    """A whole run; raises where nothing at all can be measured, or something is read wrong."""
    if not options.library.exists():
        raise guests.Unavailable(f"{options.library} is not there: run make lib")
    options.package = options.package.resolve()
    image = guests.image(options.image) if options.image else None
    with tempfile.TemporaryDirectory(prefix="microvmi-bench-") as work:
        bench = Bench(options, Programs(Path(work), options.library.resolve()))
        if image is not None:
            bench.on_one(image)
            bench.without_guests()
        else:
            everything(bench)
    return bench


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        bench = measure(options)
    except (ProgramError, guests.Unavailable) as err:
        print(f"bench.py: {err}", file=sys.stderr)
        return 1
    results = bench.results
    found = [claim for claim in claims(results) if claim.holds is not None or not options.only]
    print(report.text(results, found))
    if not (found if options.only else results.cells):
        return 1
    output = options.output or (None if options.only else ROOT / "docs")
    if output:
        (output / "benchmarks.md").write_text(report.document(results, found))
        (output / "benchmarks.svg").write_text(chart.draw(results))
    return 1 if options.strict and not all(claim.holds for claim in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
