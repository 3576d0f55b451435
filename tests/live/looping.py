# SPDX-License-Identifier: Apache-2.0
"""A guest of 512 bytes that counts in a loop, for ever: up in a second, and every turn of it comes by one address."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .guest import Config, Guest

COUNTER = 0x8000
"""Where it counts, 4 bytes, guest-virtual and guest-physical."""

LOOP = 0x7C05
"""What is executed once a turn: the instruction that counts."""

_CODE = b"\xfa\x31\xc0\x8e\xd8\x66\xff\x06\x00\x80\xeb\xf9"
"""cli; ds = 0; LOOP: inc dword [COUNTER]; jmp LOOP."""

SECONDS = 30.0


def boot_sector(folder: Path) -> Path:
    """A disk with it."""
    path = folder / "loop"
    path.write_bytes((_CODE.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
    return path


@contextmanager
def looping(folder: Path, options: Sequence[str] = ()) -> Iterator[Guest]:
    """A guest that loops; ``options`` are further ones for QEMU."""
    drive = ["-drive", f"file={boot_sector(folder)},format=raw,if=ide"]
    with Guest(Config("private", 64), options=[*drive, *options]) as guest:
        guest.monitor.execute("cont")
        wait_for_turns(guest)
        yield guest


def turns(guest: Guest) -> int:
    """How often it counted, by QEMU's own word."""
    return int(guest.monitor.human(f"xp /1wx {COUNTER:#x}").split()[-1], 16)


def wait_for_turns(guest: Guest) -> None:
    """Until it has counted once more."""
    before, end = turns(guest), time.monotonic() + SECONDS
    while turns(guest) == before:
        assert time.monotonic() < end, guest.monitor.human("info registers")
        time.sleep(0.02)
