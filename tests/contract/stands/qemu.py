# SPDX-License-Identifier: Apache-2.0
"""A process that looks like QEMU, with its RAM in a shared file and as its own; see ``qemu_simulators.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from contract.target import Failing, Target
from qemu_simulators import QemuSimulators

KIB = 1024
PIECES = {
    0: (0, 512),
    0x100000: (512, 512),
    0xFD000000: (0, 64),
    0x8000000000: (0, 64),
}
"""Start -> where in its block the memory lies, and how much it is, in KiB."""


def stand(folder: Path) -> Iterator[Target]:
    """Main memory, firmware that cannot be written, video memory and a device's; RAM is mapped."""
    yield from _machine(folder)


def stand_private(folder: Path) -> Iterator[Target]:
    """The same with RAM that has to be read from the process."""
    yield from _machine(folder, "-fake", "private")


def stand_unmapped(folder: Path) -> Iterator[Target]:
    """The same with shared RAM that is read and written by system calls."""
    yield from _machine(folder, parameters="&mapped=no")


def failing(folder: Path) -> Iterator[Failing]:
    """Memory that the process has no more."""
    lost = 0x28000
    with QemuSimulators(folder) as machines:
        uri = machines.start("-fake", "private", "-fake", f"lose={lost:#x}")
        yield Failing(uri, _pieces(), lost, lost, failing=machines.memory_lost)


def _machine(folder: Path, *options: str, parameters: str = "") -> Iterator[Target]:
    with QemuSimulators(folder) as machines:
        yield Target(machines.start(*options) + parameters, _pieces(), writable=True)


def _numbered(first: int, size: int) -> bytes:
    return b"".join(bytes([offset // 4096 % 251]) * 4096 for offset in range(first, first + size, 4096))


def _pieces() -> dict[int, bytes]:
    return {start: _numbered(first * KIB, size * KIB) for start, (first, size) in PIECES.items()}
