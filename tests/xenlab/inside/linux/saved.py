# SPDX-License-Identifier: Apache-2.0
"""What ``xl save`` writes of a guest is what the driver reads of it afterwards: pages, kinds of memory, registers."""

from __future__ import annotations

import os
import subprocess
import time

from libmicrovmi_py import Microvmi
from libmicrovmi_py.model import MemoryKind, MemoryRange

FOLDER = "/tmp/room"
"""Dom0's root may fill half of its memory, which is too little."""
SAVED = f"{FOLDER}/linux"
PIECE = 4 << 20
SHARED_PAGES = 1
"""The page that Xen shares with its guest is one of Xen's own, which a saved domain leaves out."""


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def compare(live: Microvmi, saved: Microvmi, part: MemoryRange) -> None:
    for start in range(part.start, part.end, PIECE):
        size = min(PIECE, part.end - start)
        assert saved.read_physical(start, size) == live.read_physical(start, size), f"memory from {start:#x} on"


def check_memory(live: Microvmi, saved: Microvmi) -> None:
    there = saved.memory_map()
    assert saved.max_addr == live.max_addr
    missing = sum(part.size for part in live.memory_map()) - sum(part.size for part in there)
    assert missing == SHARED_PAGES << 12, f"{missing:#x} bytes are missing: {there}"
    for kind in (MemoryKind.RAM, MemoryKind.DEVICE):
        assert any(part.kind is kind for part in there)
    for part in there:
        assert any(one.start <= part.start < part.end <= one.end and one.kind is part.kind for one in live.memory_map())
        compare(live, saved, part)


def check_registers(live: Microvmi, saved: Microvmi) -> None:
    """A domain that goes on after it was saved is told so in rax."""
    assert saved.vcpu_count() == live.vcpu_count() == 1
    now, then = dict(live.read_state(0)), dict(saved.read_state(0))
    assert (now.pop("rax"), then.pop("rax")) == (1, 0)
    assert now == then


os.makedirs(FOLDER, exist_ok=True)
run("mount", "-t", "tmpfs", "-o", "size=80%", "room", FOLDER)
began = time.monotonic()
run("xl", "save", "-p", "linux", SAVED)
try:
    print(f"figure: a domain of {os.path.getsize(SAVED) >> 20} MiB saved in {time.monotonic() - began:.1f} s")
    with Microvmi("linux", driver="xen") as opened, Microvmi(driver="dump", path=SAVED) as file:
        opened.pause()
        check_memory(opened, file)
        check_registers(opened, file)
finally:
    os.unlink(SAVED)
    run("xl", "unpause", "linux")
