# SPDX-License-Identifier: Apache-2.0
"""A played machine with KVMi, in a process of its own, behind our stand-in for libkvmi or the real one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from contract.target import Failing, Target
from drivers.kvm.library import library

TESTS = Path(__file__).resolve().parents[2]

PIECES = {0: 0xA0000, 0x100000: 0x80000, 0x200000: 0x3000, 0xFFFC0000: 0x40000}
"""Start -> bytes of it."""


def stand(folder: Path) -> Iterator[Target]:
    """Low memory, some behind a hole, and firmware below 4 GiB, which KVMi lets one write."""
    pieces = {start: _numbered(start, size) for start, size in PIECES.items()}
    with _played(folder, pieces) as uri:
        yield Target(uri, pieces, writable=True)


def failing(folder: Path) -> Iterator[Failing]:
    """Requests for two frames are refused."""
    pieces, unreadable, unwritable = {0: _numbered(0, 0x60000)}, 0x30000, 0x50000
    with _played(folder, pieces, f"unreadable:{unreadable}", f"unwritable:{unwritable}") as uri:
        yield Failing(uri, pieces, unreadable, unwritable)


@contextmanager
def _played(folder: Path, pieces: Mapping[int, bytes], *refused: str) -> Iterator[str]:
    for start, content in pieces.items():
        (folder / f"{start:x}").write_bytes(content)
    files = [f"{start}:{folder}/{start:x}" for start in pieces]
    socket = folder / "socket"
    command = [sys.executable, "-m", "drivers.kvm.simulator", str(socket), *files, *refused]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
    ) as machine:
        assert machine.stdout is not None
        assert machine.stdout.readline() == "ready\n"
        yield f"vmi://kvm/?kvm_unix_socket={socket}&library={library(folder)}&timeout=2"
        machine.communicate()


def _numbered(start: int, size: int) -> bytes:
    return b"".join((at // 8).to_bytes(8, "little") for at in range(start, start + size, 8))
