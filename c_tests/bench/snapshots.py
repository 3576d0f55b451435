# SPDX-License-Identifier: Apache-2.0
"""How long a QEMU guest stands for a snapshot, by QEMU's own account: for one by a pause, and one in the background.

The partner is the bare copy: as many threads read the same data of the guest, which stands, into memory that was
touched before. What is around it (stopping, the memory map, registers, what else may hold something, running) is the
snapshot's.

snapshots.py PACKAGE DIRECTORY SECONDS
    prints pairs (see bench.h), in ns per snapshot
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import pairs

MIB = 1 << 20
START = 4 * MIB

SHARED = ("-object", "memory-backend-memfd,id=ram,share=on,size=512M", "-machine", "memory-backend=ram")
GUESTS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "private 512 MiB": (512, 300, ()),
    "shared 512 MiB": (512, 300, SHARED),
    "private 4 GiB": (4096, 1024, ()),
}
"""MiB of RAM, MiB of data, and what else QEMU is told."""


IN_BACKGROUND = ("private 512 MiB", "private 4 GiB")


def _stood(machine: Any, connection: Any, *, pause_only: bool = True) -> float:
    """Nanoseconds between QEMU's words that the guest stands and that it runs again."""
    machine.snapshot(pause_only=pause_only).close()
    stop, resume = connection.told_at("STOP"), connection.told_at("RESUME")
    return float(resume - stop) * 1000


def _copier(machine: Any, data: int) -> Callable[[], None]:
    """What copies all data, by threads that are made anew, as those of a snapshot are."""
    threads = min(4, len(os.sched_getaffinity(0)))
    size = data // threads
    buffers = [bytearray(size) for _ in range(threads)]

    def copy() -> None:
        running = [
            threading.Thread(target=machine.read_physical_into, args=(START + number * size, buffer))
            for number, buffer in enumerate(buffers)
        ]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    copy()
    return copy


def _bare(machine: Any, copy: Callable[[], None], connection: Any) -> float:
    machine.pause()
    taken = pairs.timed(copy)
    machine.resume()
    for event in ("STOP", "RESUME"):
        connection.told_at(event)
    return taken


def main(package: str, directory: str, seconds: str) -> None:
    sys.path.insert(0, package)
    microvmi: Any = importlib.import_module("libmicrovmi_py").Microvmi
    counting: Any = importlib.import_module("live.counting").counting
    block = os.urandom(MIB)
    for name, (mib, data, options) in GUESTS.items():
        with counting(Path(directory), mib, options) as guest, microvmi.open(guest.uri) as machine:
            for start in range(START, START + data * MIB, MIB):
                machine.write_physical(start, block)
            copy = _copier(machine, data * MIB)
            with guest.monitor.held() as connection:
                ours = functools.partial(_stood, machine, connection)
                partner = functools.partial(_bare, machine, copy, connection)
                pairs.print_pair(f"snapshot {name}", pairs.take_turns(ours, partner, float(seconds)))
                if name in IN_BACKGROUND:
                    behind = functools.partial(_stood, machine, connection, pause_only=False)
                    pairs.print_pair(f"background {name}", pairs.take_turns(behind, partner, float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
