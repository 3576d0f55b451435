# SPDX-License-Identifier: Apache-2.0
"""A Python program that uses the C library through ctypes, beside busy threads of its own.

host.py spin LIBRARY SCALE URI RAM_FILE SECONDS START END
    prints: number, "kept memcpy" or "kept ours", the rate of 4 KiB reads beside a spinning Python thread over that
    without one; "kept ours low" and "high" are its quartiles
host.py beside LIBRARY BESIDE URI SECONDS
    prints: pair "latency Python" (see bench.h), as the program ``beside`` does
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import pairs

ROUNDS = 15
PAGE = 4096
LARGE = 16 << 20


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
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        for text, value in ((name, middle), (f"{name} low", low), (f"{name} high", high)):
            print(f"number\tkept {text}\t{value:.4f}")


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


class Beside:
    """Reads of 8 bytes through one context while a thread reads 16 MiB through another, when it is told to."""

    def __init__(self, library_path: str, latency_path: str, uri: str) -> None:
        self._library = ctypes.CDLL(library_path)
        self._latency = ctypes.CDLL(latency_path).beside_latency
        self._latency.restype, self._latency.argtypes = ctypes.c_double, [*2 * [ctypes.c_void_p], ctypes.c_double]
        self._small, self._large = (open_machine(self._library, uri) for _ in range(2))
        self._wanted, self._at_work, self._ended = False, False, False
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        buffer, read = (ctypes.c_uint8 * LARGE)(), self._library.microvmi_read_physical
        size, address = ctypes.c_size_t(LARGE), ctypes.c_uint64(0)
        while not self._ended:
            self._at_work = self._wanted
            if self._at_work:
                read(self._large, address, buffer, size, None)
            else:
                time.sleep(0.0002)

    def latency(self, seconds: float, beside: bool) -> float:
        """The median of a read, in nanoseconds."""
        self._wanted = beside
        while self._at_work is not beside:
            time.sleep(0.0001)
        read = ctypes.cast(self._library.microvmi_read_physical, ctypes.c_void_p)
        return float(self._latency(read, self._small, seconds))

    def end(self) -> None:
        """Let the thread end."""
        self._ended = True
        self._thread.join()


def beside(library_path: str, latency_path: str, uri: str, seconds: float) -> None:
    """How long a small read takes beside large ones of another thread of Python."""
    both = Beside(library_path, latency_path, uri)
    try:
        rounds = [
            (both.latency(seconds / ROUNDS, True), both.latency(seconds / ROUNDS / 4, False)) for _ in range(ROUNDS)
        ]
    finally:
        both.end()
    ours, partner = map(list, zip(*rounds, strict=True))
    pairs.print_pair("latency Python", pairs.Samples(ours, partner))


def main() -> None:
    if sys.argv[1] == "beside":
        library, latency, uri, seconds = sys.argv[2:]
        beside(library, latency, uri, float(seconds))
    else:
        library, scale, uri, ram, seconds, start, end = sys.argv[2:]
        spin(library, Task(scale, uri, ram, float(seconds), int(start), int(end)))


if __name__ == "__main__":
    main()
