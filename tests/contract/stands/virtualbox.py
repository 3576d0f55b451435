# SPDX-License-Identifier: Apache-2.0
"""A played VirtualBox machine behind a stand-in for libFDP, or the real one; see ``drivers/virtualbox/played.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from contract.target import Failing, Target
from drivers.virtualbox.played import addresses, build, played

RANGES = {0x10000: 0x30000, 0x50000: 0x40000}


def stand(folder: Path) -> Iterator[Target]:
    """A machine of two ranges; below the first and between them nothing exists."""
    with played(build(folder), RANGES) as machine:
        yield Target(machine.uri, {start: addresses(start, size) for start, size in RANGES.items()}, writable=True)


def failing(folder: Path) -> Iterator[Failing]:
    """A write is refused: what does not exist is all that FDP tells of a read."""
    with played(build(folder), {0x10000: 0x40000}, unwritable=0x30000) as machine:
        yield Failing(machine.uri, {0x10000: addresses(0x10000, 0x40000)}, unwritable=0x30000, exact=False)
