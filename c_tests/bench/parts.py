# SPDX-License-Identifier: Apache-2.0
"""The parts of a run: each measures something, on guests, on an image or on neither."""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import guests
import simulators
from guests import Machine
from programs import Programs, run_python
from results import Pair, Results

STARTS = 12
"""How often a program is started, if a column is given a second or more."""

FAKE = "vmi://fake/?size=0x200000"

PARTS = {
    "shared": "every column on shared RAM, and two threads",
    "private": "every column on private RAM, and pages that are kept",
    "idle": "dumping guests of 512 MiB and 4 GiB that are mostly untouched",
    "opening": "opening a guest of 512 MiB and one of 64 GiB",
    "virtual": "virtual memory beside physical memory and bare walks, on shared and private RAM",
    "python": "the Python classes; C reads beside a Python thread that spins",
    "start": "from a program's start to the first byte",
    "control": "pause, registers, vCPUs and open of a QEMU guest",
    "vcpus": "all registers of a QEMU guest with 64 vCPUs",
    "events": "changes of the address space and breakpoints of a QEMU guest, beside a bare loop at its stub",
    "snapshots": "how long a guest stands for a snapshot, beside a bare copy",
    "frames": "the drivers that read frames: fake, and kvm and virtualbox on the tests' simulators",
    "latency": "small reads beside large ones of another context",
    "kdump": "a compressed dump",
    "lookup": "a table of 10,000 regions",
    "diff": "two copies of 4 GiB that are mostly holes",
}
"""What --only takes, and what it means."""

ON_ONE = ("shared", "python", "start", "control")
WITH_GUESTS = (*ON_ONE, "private", "idle", "opening", "virtual", "vcpus", "snapshots", "events")


class Bench:
    """One run: what it is to do, and what it has found out so far."""

    def __init__(self, options: argparse.Namespace, programs: Programs) -> None:
        self.options = options
        self.programs = programs
        self.results = Results()
        self._begin = time.monotonic()

    def wants(self, *names: str) -> bool:
        """Whether any of these parts is to be measured."""
        return not self.options.only or bool({*names}.intersection(self.options.only))

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

    def on_one(self, machine: Machine) -> None:
        """What is measured on a machine whose memory is a file."""
        if self.wants("shared"):
            with self.part("shared RAM: columns"):
                self.columns(machine, "shared")
        if self.wants("python"):
            with self.part("Python hosts"):
                self._hosts(machine)
        if self.wants("start"):
            with self.part("start of a program on a guest"):
                self._starts(machine)
        if self.wants("control") and machine.monitor:
            with self.part("control"):
                self._control(machine)

    def without_guests(self) -> None:
        """What needs no guest."""
        seconds, programs, add = self.options.seconds, self.programs, self.results.add
        if self.wants("start"):
            with self.part("start of a program"):
                self._image_start()
        for name, measure in (
            ("fake", simulators.measure_fake),
            ("virtualbox", simulators.measure_virtualbox),
            ("kvm", simulators.measure_kvm),
        ):
            if self.wants("frames"):
                with self.part(name):
                    add("", measure(programs, seconds / 2))
        if self.wants("frames"):
            with self.part("address spaces of frames"):
                add("", run_python("spaces.py", self.options.package, "frames", seconds))
        if self.wants("latency"):
            with self.part("latency"):
                add("", programs.run("beside", programs.library, simulators.FAKE, 2 * seconds))
                beside = programs.path("libbeside.so")
                add("", run_python("host.py", "beside", programs.library, beside, simulators.FAKE, 2 * seconds))
        if self.wants("kdump"):
            with self.part("kdump"):
                add("", run_python("kdump.py", self.options.package, programs.directory, 2 * seconds))
                files = [programs.directory / f"{name}.kdump" for name in ("whole", "holed", "large")]
                add("", programs.run("packed", programs.library, "libkdumpfile", *files, 6 * seconds))
        if self.wants("lookup"):
            with self.part("lookup"):
                add("", programs.run("lookup", seconds))
        if self.wants("diff"):
            with self.part("diff"):
                add("", programs.run("differ", programs.library, seconds))

    def columns(self, machine: Machine, kind: str) -> None:
        """All ways to read, in all sizes."""
        options = self.options
        machine.stop()
        arguments = [f"library={self.programs.library}", f"seconds={options.seconds}", *machine.arguments()]
        if machine.name:
            arguments += [f"vm={machine.name}", *(f"peer={peer}" for peer in options.peer)]
        with guests.shared_memory_name(machine) as shm:
            if shm and options.leechcore:
                arguments += [f"leechcore={options.leechcore}", f"device=qemu://shm={shm},qmp={machine.monitor}"]
            self.results.size = machine.end - machine.start
            self.results.add(kind, self.programs.run("bench", *arguments))

    def virtual(self, machine: Machine, kind: str) -> None:
        """Virtual memory by tables that are written into the guest."""
        arguments = [f"library={self.programs.library}", f"seconds={self.options.seconds / 2}", *machine.arguments()]
        for program in ("ranges", "virtual"):
            self.results.add(kind, self.programs.run(program, *arguments))
        if kind == "shared":
            arguments = [self.options.package, machine.uri, machine.start, self.options.seconds]
            self.results.add("", run_python("spaces.py", *arguments))

    def vcpus(self, machine: Machine, events: Path) -> None:
        """All registers of many vCPUs; ``events`` is another monitor of the machine."""
        uri = f"{machine.uri}&qmp={machine.monitor}"
        arguments = [self.options.package, uri, machine.monitor, events, 2 * self.options.seconds]
        self.results.add("", run_python("vcpus.py", *arguments))

    def snapshots(self) -> None:
        """Of guests that count, which are started for it."""
        arguments = [self.options.package, self.programs.directory, 2 * self.options.seconds]
        self.results.add("", run_python("snapshots.py", *arguments))

    def events(self) -> None:
        """Of a guest that is started for it."""
        loops = [self.programs.path(name) for name in ("stub_loop", "listen")]
        arguments = [self.options.package, self.programs.directory, *loops, 4 * self.options.seconds]
        self.results.add("", run_python("listening.py", *arguments))

    def _hosts(self, machine: Machine) -> None:
        seconds = self.options.seconds
        common = [machine.uri, machine.ram, seconds, machine.start, machine.end]
        scale = self.programs.path("libscale.so")
        self.results.add("", run_python("host.py", "spin", self.programs.library, scale, *common))
        common[2] = 3 * seconds
        self.results.add("", run_python("classes.py", self.options.package, *common))

    def _control(self, machine: Machine) -> None:
        machine.stop()
        arguments = [self.options.package, machine.uri, machine.monitor, 2 * self.options.seconds]
        self.results.add("", run_python("control.py", *arguments))

    # -------------------------------------------------------------------------------------------------------- start

    def _starts(self, machine: Machine) -> None:
        """Milliseconds from before the start of a program to its main(), and to the first byte it reads."""
        columns: dict[str, list[float]] = {"link": [], "fake start": [], "python start": []}
        for _ in range(self._rounds()):
            columns["link"].append(self._start()[0])
            _, first, again = self._start(FAKE, "again")
            columns["fake start"].append(first)
            columns["python start"].append(again)
        self.results.numbers.update({name: statistics.median(values) for name, values in columns.items()})
        self.results.pairs["start guest"] = self._start_pair(machine.uri)

    def _rounds(self) -> int:
        seconds: float = self.options.seconds
        return max(2, round(STARTS * min(seconds, 1)))

    def _start(self, *uri: str) -> tuple[float, float, float]:
        """To main(), to the first byte, and how much longer the first opening took than the second: Python's start."""
        before = time.monotonic_ns()
        main, first, again, second = (int(field) for field in self.programs.run("start", *uri)[0])
        python = (first - main) - (second - again)
        return (main - before) / 1e6, (first - before) / 1e6, python / 1e6

    def _image_start(self) -> None:
        image = self.programs.directory / "image.raw"
        image.write_bytes(random.Random(2).randbytes(4 << 20))
        self.results.pairs["start image"] = self._start_pair(str(image))

    def _start_pair(self, uri: str) -> Pair:
        """A program that reads a byte, and a Python that does nothing: the CPU time of the quickest of each."""
        python = [sys.executable, "-I", "-S", "-c", "pass"]
        start = [str(self.programs.path("start")), uri]
        both = [(cpu_time(start), cpu_time(python)) for _ in range(self._rounds() + 1)][1:]
        ours, partner = min(first for first, _ in both), min(second for _, second in both)
        low, middle, high = statistics.quantiles([first / second for first, second in both], n=4, method="inclusive")
        return Pair(ours, partner, low, middle, high, ours, partner)


def cpu_time(command: list[str]) -> float:
    """Nanoseconds of the processor, the kernel's part included, that a command without an environment took."""
    process = subprocess.Popen(command, env={}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise guests.Unavailable(f"{Path(command[0]).name} ended with {process.returncode}")
    return (usage.ru_utime + usage.ru_stime) * 1e9
