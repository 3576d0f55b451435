# SPDX-License-Identifier: Apache-2.0
"""The machine made of bytes, with holes and two vCPUs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from contract.target import Failing, Target

SIZE = 0x80000
HOLES = ((0x9000, 0xA000), (0x20000, 0x40000))
URI = f"vmi://fake/?size={SIZE:#x}&holes=" + ",".join(f"{start:#x}-{end:#x}" for start, end in HOLES)


def stand(folder: Path) -> Iterator[Target]:
    """Nothing has to be set up; ``folder`` stays empty."""
    yield Target(f"{URI}&vcpus=2", pieces(), writable=True)


def failing(folder: Path) -> Iterator[Failing]:
    """Frames that the machine was told to fail in."""
    yield Failing(f"{URI}&unreadable=0x58000-0x5a000&unwritable=0x70000-0x71000", pieces(), 0x58000, 0x70000)


def pieces() -> dict[int, bytes]:
    """All memory but the holes."""
    starts, ends = (0, *(end for _, end in HOLES)), (*(start for start, _ in HOLES), SIZE)
    return {start: numbered(start, end) for start, end in zip(starts, ends, strict=True)}


def numbered(start: int, end: int) -> bytes:
    """What the frames between two addresses hold: their number, every 8 bytes."""
    return b"".join((address >> 12).to_bytes(8, "little") * 512 for address in range(start, end, 4096))
