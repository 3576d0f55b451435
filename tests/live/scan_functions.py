# SPDX-License-Identifier: Apache-2.0
"""Functions as a user writes them for ``microvmi scan``; the file is sent to workers, which do not import it."""

import os
import time
from pathlib import Path

from libmicrovmi_py import Microvmi

MARKED = 0x100000


def _name(machine: Microvmi) -> str:
    return machine.read_physical(MARKED, 64).partition(b"!")[0].decode()


def _resident(key: str) -> int:
    """KiB of memory that this process has (``VmRSS``), or had at the most (``VmHWM``)."""
    return int(Path("/proc/self/status").read_text().partition(f"{key}:")[2].split()[0])


def held(machine: Microvmi, log: str, gate: str, chosen: str) -> dict[str, object]:
    """Tell the log who scans what; with the chosen machine wait until the gate is there."""
    name = _name(machine)
    with open(log, "a") as file:
        file.write(f"{os.getpid()} {name}\n")
    while name == chosen and not os.path.exists(gate):
        time.sleep(0.01)
    filled = sum(machine.read_physical(at, 1 << 20).count(b"\xf1") for at in range(0, machine.max_addr, 1 << 20))
    return {"marked": name, "worker": os.getpid(), "filled": filled, "resident": _resident("VmRSS")}


def sleeping(machine: Microvmi, flag: str) -> int:
    """Tell that it has begun, and take long."""
    Path(flag).write_text(str(os.getpid()))
    time.sleep(60)
    return machine.max_addr


def waiting(machine: Microvmi) -> None:
    """Read a word, and take long."""
    machine.read_physical(0, 8)
    time.sleep(60)
