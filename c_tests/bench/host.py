# SPDX-License-Identifier: Apache-2.0
"""A Python program that uses the library: through ctypes beside a busy Python thread, and as Python classes.

host.py spin LIBRARY SCALE URI RAM_FILE SECONDS START END
    prints: number, "kept memcpy" or "kept ours", the rate of 4 KiB reads beside a spinning Python thread over that
    without one
host.py classes SCALE URI RAM_FILE SECONDS START END
    prints: number, "readinto BYTES" or "memmove BYTES", median in ns
"""

from __future__ import annotations

import ctypes
import importlib
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

ROUNDS = 15
PAGE = 4096
SIZES = {PAGE: 256, 1 << 20: 8}
"""Bytes of a read, and how many make a sample."""


class Limit(ctypes.Structure):
    """``struct limit`` of bench.h."""

    _fields_ = (
        ("bytes", ctypes.c_void_p),
        ("fd", ctypes.c_int),
        ("pid", ctypes.c_int),
        ("base", ctypes.c_uint64),
    )


def load_scale(path: str) -> ctypes.CDLL:
    """scale.c and limits.c as a library."""
    scale = ctypes.CDLL(path)
    scale.limit_map.restype = Limit
    scale.limit_map.argtypes = [ctypes.c_char_p, ctypes.c_uint64]
    scale.scale_rate.restype = ctypes.c_double
    scale.scale_rate.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),
        *(ctypes.c_double, ctypes.c_uint64, ctypes.c_uint64),
    ]
    return scale


class Task(NamedTuple):
    """What to read: opened through ``uri``, or the file ``ram`` between two addresses. ``scale`` is libscale.so."""

    scale: str
    uri: str
    ram: str
    seconds: float
    start: int
    end: int


def spin(library_path: str, task: Task) -> None:
    """How much of its rate a reader keeps beside a Python thread that computes without a pause."""
    scale = load_scale(task.scale)
    library = ctypes.CDLL(library_path)
    vm = open_machine(library, task.uri)
    limit = scale.limit_map(task.ram.encode(), task.end)
    subjects = {
        "memcpy": (ctypes.cast(scale.limit_memcpy, ctypes.c_void_p), ctypes.addressof(limit)),
        "ours": (ctypes.cast(library.microvmi_read_physical, ctypes.c_void_p), vm.value),
    }
    kept: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        alone = rates(scale, subjects, task)
        beside = beside_a_busy_thread(lambda: rates(scale, subjects, task))
        for name, values in kept.items():
            values.append(beside[name] / alone[name])
    library.microvmi_destroy(vm)
    for name, values in kept.items():
        print(f"number\tkept {name}\t{statistics.median(values):.4f}")


def open_machine(library: ctypes.CDLL, uri: str) -> ctypes.c_void_p:
    """A context of the C library."""
    library.microvmi_open.restype = ctypes.c_void_p
    error = ctypes.c_char_p()
    vm = library.microvmi_open(uri.encode(), ctypes.byref(error))
    if not vm:
        sys.exit(f"cannot open {uri}: {(error.value or b'no reason given').decode()}")
    return ctypes.c_void_p(vm)


def rates(scale: ctypes.CDLL, subjects: dict[str, tuple[ctypes.c_void_p, int | None]], task: Task) -> dict[str, float]:
    """Reads a second of each subject, by as many threads as leave a processor to the one that spins; at most two."""
    threads = min(2, max(1, len(os.sched_getaffinity(0)) - 1))
    seconds = task.seconds / ROUNDS / 2
    return {
        name: float(scale.scale_rate(read, context, threads, seconds, task.start, task.end))
        for name, (read, context) in subjects.items()
    }


def beside_a_busy_thread(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Do ``work`` while a Python thread computes without a pause."""
    ended = False

    def compute() -> None:
        while not ended:
            pass

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        return work()
    finally:
        ended = True
        thread.join()


class Stream(Protocol):
    """What a memory of ``libmicrovmi_py`` is here."""

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def readinto(self, buffer: bytearray, /) -> int: ...


class Reads:
    """Some reads of one size, one behind the other: by the library, and as plain copies."""

    def __init__(self, memory: Stream, origin: int, size: int, calls: int) -> None:
        self.size, self.calls = size, calls
        self.stretch = size * calls
        self._memory, self._origin = memory, origin
        self._buffer = bytearray(size)
        self._target = (ctypes.c_char * size).from_buffer(self._buffer)

    def readinto(self, begin: int) -> None:
        self._memory.seek(begin)
        for _ in range(self.calls):
            self._memory.readinto(self._buffer)

    def memmove(self, begin: int) -> None:
        first = self._origin + begin
        for address in range(first, first + self.stretch, self.size):
            ctypes.memmove(self._target, address, self.size)

    def touch(self, start: int, end: int) -> None:
        """Read everything once both ways, so that neither pays for the first look at a page."""
        for begin in range(start, end - self.stretch + 1, self.stretch):
            self.readinto(begin)
            self.memmove(begin)

    def check(self, begin: int) -> None:
        """Compare the last of the library's reads with the mapping."""
        self.readinto(begin)
        if self._buffer != ctypes.string_at(self._origin + begin + self.stretch - self.size, self.size):
            sys.exit(f"readinto of {self.size} bytes does not read what is there")


def classes(task: Task) -> None:
    """What reading through the Python classes costs."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    microvmi = importlib.import_module("libmicrovmi_py")
    origin = load_scale(task.scale).limit_map(task.ram.encode(), task.end).bytes
    with microvmi.Microvmi.open(task.uri) as machine:
        for size, calls in SIZES.items():
            reads = Reads(machine.memory, origin, size, calls)
            reads.check(task.start)
            reads.touch(task.start, task.end)
            for name, values in take_turns(reads, task).items():
                print(f"number\t{name} {size}\t{statistics.median(values) / calls:.1f}")


def take_turns(reads: Reads, task: Task) -> dict[str, list[int]]:
    """Nanoseconds of the samples, taken in turn; each reads another stretch of the memory."""
    subjects = {"readinto": reads.readinto, "memmove": reads.memmove}
    samples: dict[str, list[int]] = {name: [] for name in subjects}
    stop = time.monotonic() + task.seconds / len(SIZES)
    begin = task.start
    while time.monotonic() < stop or len(samples["memmove"]) < ROUNDS:
        for name, work in subjects.items():
            begin = begin + reads.stretch if begin + 2 * reads.stretch <= task.end else task.start
            before = time.perf_counter_ns()
            work(begin)
            samples[name].append(time.perf_counter_ns() - before)
    return samples


def main() -> None:
    kind, *paths, scale, uri, ram, seconds, start, end = sys.argv[1:]
    task = Task(scale, uri, ram, float(seconds), int(start), int(end))
    if kind == "spin":
        spin(paths[0], task)
    else:
        classes(task)


if __name__ == "__main__":
    main()
