# SPDX-License-Identifier: Apache-2.0
"""What reads of a kdump-compressed file cost, beside what zlib needs for the pages in it.

It leaves whole.kdump, holed.kdump and large.kdump in the folder, for what a C program measures.

kdump.py PACKAGE FOLDER SECONDS
    writes a file into the folder; prints pairs (see bench.h), in ns per call
"""

from __future__ import annotations

import functools
import importlib
import random
import sys
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "drivers" / "dump"))

import builders
import pairs

PAGE = 4096
PAGES = 2048
COPIES = 8
"""So many of all pages are in a file of which others keep 1024 pages."""
CALLS = 64
PIECES, PIECE, STEP = 5000, 3, 52
"""So many pieces of memory, of so many pages each; one is in each so many pages."""
FEW_VALUES = bytes(value % 16 for value in range(256))
"""Random bytes of so few values become half as long."""


def main(package: str, folder: str, seconds: str) -> None:
    sys.path.insert(0, package)
    microvmi: Any = importlib.import_module("libmicrovmi_py").Microvmi
    path, each = Path(folder) / "memory.kdump", float(seconds) / 3
    content = random.Random(3).randbytes(PAGES * PAGE).translate(FEW_VALUES)
    path.write_bytes(builders.kdump({0: content}))
    (Path(folder) / "whole.kdump").write_bytes(
        builders.kdump({0: content * COPIES}, pack=functools.lru_cache(PAGES)(zlib.compress))
    )
    for name, gibibytes in (("holed", 1), ("large", 64)):
        (Path(folder) / f"{name}.kdump").write_bytes(holed(gibibytes << 30, content[:PAGE]))
    # Every fifth page is not compressed in such a file.
    pages = {at: zlib.compress(content[at : at + PAGE]) for at in range(0, len(content), PAGE) if at // PAGE % 5 != 4}
    uri = f"vmi://dump/?path={path}&cache=0"
    with microvmi.open(uri) as machine:
        if machine.read_physical(0, PAGES * PAGE) != content:
            sys.exit("kdump: what is read is not what is there")
        for name, size in (("8 B", 8), ("4 KiB", PAGE)):
            compare(name, machine, bytearray(size), pages, each)
    one = next(iter(pages.values()))
    openings = pairs.take_turns(
        lambda: pairs.timed(lambda: microvmi.open(uri).close()), lambda: pairs.timed(lambda: zlib.decompress(one)), each
    )
    pairs.print_pair("kdump open", openings)


def holed(end: int, page: bytes) -> bytes:
    """A kdump file of a machine with memory up to ``end``, of which pages that are all the same are there in pieces.

    It has the note that makedumpfile goes by, as long as one of a kernel is.
    """
    places, packed = random.Random(5), zlib.compress(page)
    memory = {(place * STEP + places.randrange(STEP - PIECE)) * PAGE: page * PIECE for place in range(PIECES)}
    memory[end - PAGE] = page
    text = "".join(f"SYMBOL(name_{number})=ffffffff{number:08x}\n" for number in range(60))
    notes = builders.prstatus(builders.values(0)) + builders.note(b"VMCOREINFO", 0, text.encode())
    low = min(end, 3 << 30)
    exists = [(0, low), *([(4 << 30, end - (4 << 30))] if end > low else [])]
    return builders.kdump(memory, notes, pack=lambda _: packed, exists=exists)


def compare(name: str, machine: Any, buffer: bytearray, pages: dict[int, bytes], seconds: float) -> None:
    """Reads at the beginnings of pages, beside zlib for the same pages."""
    places = list(pages)

    def ours() -> float:
        chosen, read = random.choices(places, k=CALLS), machine.read_physical_into
        return pairs.timed(lambda: [read(at, buffer) for at in chosen])

    def partner() -> float:
        chosen = [pages[at] for at in random.choices(places, k=CALLS)]
        return pairs.timed(lambda: [len(zlib.decompress(page)) for page in chosen])

    pairs.print_pair(f"kdump {name}", pairs.take_turns(ours, partner, seconds), CALLS)


if __name__ == "__main__":
    main(*sys.argv[1:])
