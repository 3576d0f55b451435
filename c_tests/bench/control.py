# SPDX-License-Identifier: Apache-2.0
"""What control of a QEMU guest costs, beside the commands that QEMU itself needs for it, over an open connection.

control.py PACKAGE URI MONITOR SECONDS
    prints pairs (see bench.h), in ns per call; the guest is stopped, and runs only to be paused
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import pairs
from live.monitor import Monitor

Commands = Callable[[Any], object]


def _human(connection: Any, line: str) -> object:
    return connection.execute("human-monitor-command", **{"command-line": line})


PAUSE = "pause and resume"

BARE: dict[str, Commands] = {
    PAUSE: lambda connection: (connection.execute("stop"), connection.execute("cont")),
    "read_registers": lambda connection: _human(connection, "info registers"),
    "vCPU count": lambda connection: connection.execute("query-cpus-fast"),
}
"""What is sent for each; opening is told apart."""


def _over_a_connection(monitor: Monitor, commands: Commands) -> float:
    with monitor.held() as connection:
        return pairs.timed(lambda: commands(connection))


def _connect(monitor: Monitor) -> float:
    """A connection, and what there is of memory."""
    before = time.perf_counter_ns()
    with monitor.held() as connection:
        connection.execute("query-status")
        _human(connection, "info mtree -f")
        return float(time.perf_counter_ns() - before)


def _open(microvmi: Any, uri: str) -> float:
    before = time.perf_counter_ns()
    machine = microvmi.open(uri)
    taken = float(time.perf_counter_ns() - before)
    machine.close()
    return taken


def _pause_and_resume(machine: Any) -> None:
    machine.pause()
    machine.resume()


def main(package: str, uri: str, path: str, seconds: str) -> None:
    sys.path.insert(0, package)
    microvmi: Any = importlib.import_module("libmicrovmi_py").Microvmi
    monitor, each = Monitor(Path(path)), float(seconds) / 4
    openings = pairs.take_turns(lambda: _open(microvmi, uri), lambda: _connect(monitor), each)
    pairs.print_pair("control open by name", openings)
    with microvmi.open(uri) as machine:
        ours: dict[str, Callable[[], object]] = {
            "read_registers": lambda: machine.read_registers(0),
            "vCPU count": machine.vcpu_count,
            PAUSE: lambda: _pause_and_resume(machine),
        }
        for name, call in ours.items():
            if name == PAUSE:
                monitor.execute("cont")
            _compare(name, call, monitor, each)
    monitor.execute("stop")


def _compare(name: str, call: Callable[[], object], monitor: Monitor, seconds: float) -> None:
    samples = pairs.take_turns(lambda: pairs.timed(call), lambda: _over_a_connection(monitor, BARE[name]), seconds)
    pairs.print_pair(f"control {name}", samples)


if __name__ == "__main__":
    main(*sys.argv[1:])
