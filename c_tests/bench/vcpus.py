# SPDX-License-Identifier: Apache-2.0
"""What all registers of a QEMU guest with many vCPUs cost, and how long the guest stands for them.

The partner is the text that QEMU prints of all of them, over a connection of its own, see control.py; of how long the
guest stands, how long it does so while QEMU saves the state of its devices for nobody.

vcpus.py PACKAGE URI MONITOR EVENTS SECONDS
    prints pairs (see bench.h), in ns per call; EVENTS is a second monitor, which tells when the guest stood. The guest
    runs, then stands
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import pairs
from live.monitor import Monitor

ALL = "all registers of 64 vCPUs"
SETTLED = 2.0
"""Seconds in which firmware has every vCPU wait."""


def _stands(call: Callable[[], object], events: Any) -> float:
    """Nanoseconds between QEMU's words that the guest stands and that it runs again, of a call."""
    call()
    stop, resume = events.told_at("STOP"), events.told_at("RESUME")
    return float(resume - stop) * 1000


def _save(monitor: Monitor) -> None:
    monitor.execute("xen-save-devices-state", filename="/dev/null", live=False)


def main(package: str, uri: str, path: str, events: str, seconds: str) -> None:
    sys.path.insert(0, package)
    microvmi: Any = importlib.import_module("libmicrovmi_py").Microvmi
    monitor, each = Monitor(Path(path)), float(seconds) / 2

    def partner() -> float:
        return pairs.timed(lambda: monitor.human("info registers -a"))

    with microvmi.open(uri) as machine:
        monitor.execute("cont")
        time.sleep(SETTLED)
        with Monitor(Path(events)).held() as connection:
            ours = functools.partial(_stands, machine.read_states, connection)
            theirs = functools.partial(_stands, functools.partial(_save, monitor), connection)
            pairs.print_pair("control stands", pairs.take_turns(ours, theirs, each))
        monitor.execute("stop")
        pairs.print_pair(f"control {ALL}", pairs.take_turns(lambda: pairs.timed(machine.read_states), partner, each))


if __name__ == "__main__":
    main(*sys.argv[1:])
