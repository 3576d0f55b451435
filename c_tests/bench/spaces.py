# SPDX-License-Identifier: Apache-2.0
"""What virtual memory costs through the Python classes, beside physical memory through the same.

spaces.py PACKAGE URI START SECONDS
    prints pairs (see bench.h), in ns per call; at START are the tables that virtual.c leaves: 64 MiB from FIRST on,
    each page of which begins with its number
spaces.py PACKAGE frames SECONDS
    the same of a driver that reads frame by frame, the one without a hypervisor, into which it writes such tables
"""

from __future__ import annotations

import importlib
import random
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pairs

PAGE = 4096
BATCH = 256
WORDS = 256
FIRST = 0xFFFF_8880_0000_0000
PAGES = (64 << 20) // PAGE
FRAMES = f"vmi://fake/?size={(PAGES + 64) * PAGE:#x}"


class Way(NamedTuple):
    """The same bytes by virtual and by physical addresses, ``calls`` calls; each gives what it read."""

    name: str
    calls: int
    ours: Callable[[], Any]
    partner: Callable[[], Any]


def words(read: Callable[[int, int], bytes], address: int) -> bytes:
    """A word again and again."""
    content = b""
    for _ in range(WORDS):
        content = read(address, 8)
    return content


def words_of_file(file: Any, address: int) -> bytes:
    """The same by a position."""
    content, seek, read = b"", file.seek, file.read
    for _ in range(WORDS):
        seek(address)
        content = read(8)
    return content


def ways(machine: Any, space: Any) -> list[Way]:
    """All that is compared."""
    chosen = random.sample(range(PAGES), BATCH)
    virtual = [FIRST + number * PAGE for number in chosen]
    physical = [space.translate(address).physical_address for address in virtual]
    pages = [bytearray(PAGE) for _ in range(BATCH)]

    def batch(read: Callable[[Any], Any], addresses: list[int]) -> list[bytes]:
        read(list(zip(addresses, pages, strict=True)))
        return [bytes(page[:8]) for page in (pages[0], pages[-1])]

    return [
        Way(
            "read_virtual of 8 B",
            WORDS,
            lambda: words(space.read_virtual, virtual[0]),
            lambda: words(machine.read_physical, physical[0]),
        ),
        Way(
            "seek and read of 8 B, virtual",
            WORDS,
            lambda: words_of_file(space, virtual[0]),
            lambda: words_of_file(machine.memory, physical[0]),
        ),
        Way(
            "256 virtual pages",
            1,
            lambda: batch(space.read_batch, virtual),
            lambda: batch(machine.read_physical_batch, physical),
        ),
    ]


def lay_tables(machine: Any) -> int:
    """Map all but the last 64 frames from FIRST on, in no order; the base of the tables, which lie in these."""
    frames = random.Random(3).sample(range(PAGES), PAGES)
    root, upper, middle, *lowest = ((PAGES + number) * PAGE for number in range(3 + PAGES // 512))
    _write_entries(machine, root + 8 * (FIRST >> 39 & 511), [upper])
    _write_entries(machine, upper + 8 * (FIRST >> 30 & 511), [middle])
    _write_entries(machine, middle + 8 * (FIRST >> 21 & 511), lowest)
    for number, table in enumerate(lowest):
        _write_entries(machine, table, [frame * PAGE for frame in frames[512 * number : 512 * (number + 1)]])
    return root


def _write_entries(machine: Any, address: int, places: list[int]) -> None:
    machine.write_physical(address, struct.pack(f"<{len(places)}Q", *(place | 3 for place in places)))


def measure(kind: str, machine: Any, start: int, seconds: float) -> None:
    """Print a pair of each way."""
    compared = ways(machine, machine.address_space(start))
    for way in compared:
        if way.ours() != way.partner():
            sys.exit(f"{way.name} does not read what is there")
        samples = pairs.take_turns(
            lambda way=way: pairs.timed(way.ours), lambda way=way: pairs.timed(way.partner), seconds / len(compared)
        )
        pairs.print_pair(f"{kind} {way.name}", samples, way.calls)


def main(package: str, uri: str, *rest: str) -> None:
    sys.path.insert(0, package)
    microvmi = importlib.import_module("libmicrovmi_py")
    if uri == "frames":
        with microvmi.Microvmi.open(FRAMES) as machine:
            measure("Python, frames:", machine, lay_tables(machine), float(rest[0]))
    else:
        with microvmi.Microvmi.open(uri) as machine:
            measure("Python", machine, int(rest[0]), float(rest[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
