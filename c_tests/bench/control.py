# SPDX-License-Identifier: Apache-2.0
"""What control of a QEMU guest costs, beside the commands that QEMU itself needs for it.

A connection counts as needed, one a call: QEMU serves one client a monitor, and others are to have their turn between
the calls. The partner connects, takes the greeting, leaves negotiation, asks, takes the answer and hangs up.

control.py PACKAGE URI MONITOR SECONDS
    prints pairs (see bench.h), in ns per call; the guest is stopped, and runs for all calls but the openings
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import pairs
from live.monitor import Monitor

Commands = Callable[[Any], object]


def _human(connection: Any, line: str) -> object:
    return connection.execute("human-monitor-command", **{"command-line": line})


PAUSE = "pause and resume"

BARE: dict[str, Sequence[Commands]] = {
    PAUSE: (lambda connection: connection.execute("stop"), lambda connection: connection.execute("cont")),
    "read_registers": (lambda connection: _human(connection, "info registers"),),
    "vCPU count": (lambda connection: connection.execute("query-cpus-fast"),),
    "open by name": (lambda connection: (connection.execute("query-status"), _human(connection, "info mtree -f")),),
}
"""What is sent for each, over how many connections."""

CROWD = 1000
OPENINGS = 40
LISTS = 20


def _bare(monitor: Monitor, name: str) -> None:
    for commands in BARE[name]:
        with monitor.held() as connection:
            commands(connection)


@contextmanager
def _crowd() -> Iterator[None]:
    """A block in which so many more processes run on this machine."""
    with ExitStack() as stack:
        for _ in range(CROWD):
            child = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
            stack.callback(child.wait)
            stack.callback(child.kill)
        yield


def _open(microvmi: Any, uri: str) -> float:
    before = time.perf_counter_ns()
    machine = microvmi.open(uri)
    taken = float(time.perf_counter_ns() - before)
    machine.close()
    return taken


def _scan() -> None:
    """What whoever looks for a machine among all processes cannot do without: each one's program and command line."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                os.readlink(f"/proc/{name}/exe")
                fd = os.open(f"/proc/{name}/cmdline", os.O_RDONLY)
            except OSError:  # a thread of the kernel's, or one that ended
                continue
            os.read(fd, 1 << 16)
            os.close(fd)


def _pause_and_resume(machine: Any) -> None:
    machine.pause()
    machine.resume()


def main(package: str, uri: str, path: str, seconds: str) -> None:
    sys.path.insert(0, package)
    microvmi: Any = importlib.import_module("libmicrovmi_py").Microvmi
    monitor, each = Monitor(Path(path)), float(seconds) / 4
    openings = pairs.take_turns(
        lambda: _open(microvmi, uri), lambda: pairs.timed(lambda: _bare(monitor, "open by name")), each
    )
    pairs.print_pair("control open by name", openings)
    with microvmi.open(uri) as machine:
        ours: dict[str, Callable[[], object]] = {
            "read_registers": lambda: machine.read_registers(0),
            "vCPU count": machine.vcpu_count,
            PAUSE: lambda: _pause_and_resume(machine),
        }
        monitor.execute("cont")
        for name, call in ours.items():
            _compare(name, call, monitor, each)
    monitor.execute("stop")
    alone = [_open(microvmi, uri) for _ in range(OPENINGS)]
    with _crowd():
        beside = [_open(microvmi, uri) for _ in range(OPENINGS)]
        list_vms: Any = importlib.import_module("libmicrovmi_py").list_vms
        turns = [(pairs.timed(list_vms), pairs.timed(_scan)) for _ in range(LISTS)]
    pairs.print_pair("control open in a crowd", pairs.Samples(beside, alone))
    pairs.print_pair("control list in a crowd", pairs.Samples(*map(list, zip(*turns, strict=True))))


def _compare(name: str, call: Callable[[], object], monitor: Monitor, seconds: float) -> None:
    samples = pairs.take_turns(lambda: pairs.timed(call), lambda: pairs.timed(lambda: _bare(monitor, name)), seconds)
    pairs.print_pair(f"control {name}", samples)


if __name__ == "__main__":
    main(*sys.argv[1:])
