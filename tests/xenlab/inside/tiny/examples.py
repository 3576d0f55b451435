# SPDX-License-Identifier: Apache-2.0
"""The example programs, on a domain that is called by its name alone."""

from __future__ import annotations

import subprocess
import tempfile
from array import array
from pathlib import Path

import layout

SIZE = 0x100000


def run(program: str, *arguments: str) -> str:
    done = subprocess.run([f"/lab/examples/{program}", *arguments], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, f"{program}: exit code {done.returncode}: {done.stderr}"
    return done.stdout


def check_mem_dump(folder: Path) -> None:
    dump = folder / "dump"
    run("mem-dump", "-o", str(dump), "tiny")
    with dump.open("rb") as file:
        file.seek(layout.PATTERN_ADDRESS)
        content = file.read(SIZE)
    assert content == array("Q", range(layout.PATTERN_ADDRESS, layout.PATTERN_ADDRESS + SIZE, 8)).tobytes()


def check_regs_dump() -> None:
    text = run("regs-dump", "tiny")
    for name in ("RBX", "RBP", "R8", "R12", "R15", "LSTAR"):
        value = getattr(layout, f"KNOWN_{name}")
        assert f"{value:x}" in text.lower(), f"{name} is not {value:#x}: {text}"


def check_events() -> None:
    lines = run("events", "-n", "10", "tiny", "cr3", f"msr:{layout.MSR_SYSENTER_CS:#x}").splitlines()
    assert len(lines) == 10
    assert any(line.startswith("vcpu 0 cr3 0x11") for line in lines), lines
    assert any(line.startswith("vcpu 0 msr:0x174 ") for line in lines), lines


with tempfile.TemporaryDirectory() as name:
    check_mem_dump(Path(name))
check_regs_dump()
check_events()
