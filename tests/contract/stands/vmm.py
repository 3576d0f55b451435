# SPDX-License-Identifier: Apache-2.0
"""Processes that have memory as Firecracker and as Cloud Hypervisor have it; see ``drivers/vmm_program.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from contract.target import Target
from vmm_simulators import VmmSimulators, numbered

SIZE = 13 << 20


def stand(folder: Path) -> Iterator[Target]:
    """A machine of Firecracker's: its memory is private."""
    config = folder / "config"
    config.write_text(json.dumps({"machine-config": {"vcpu_count": 1, "mem_size_mib": SIZE >> 20}}))
    yield from _machine(folder, "firecracker", "private", "--no-api", "--config-file", str(config))


def stand_mapped(folder: Path) -> Iterator[Target]:
    """A machine of Cloud Hypervisor's, with shared memory."""
    options = ("--kernel", "vmlinux", "--memory", f"size={SIZE},shared=on")
    yield from _machine(folder, "cloud-hypervisor", "memfd", *options)


def _machine(folder: Path, program: str, kind: str, *options: str) -> Iterator[Target]:
    with VmmSimulators(folder) as simulators:
        process = simulators.start(program, f"{kind}:{SIZE:x}", *options)
        yield Target(f"vmi://vmm/?vm_name={process.pid}", {0: numbered(0, SIZE)}, writable=True)
