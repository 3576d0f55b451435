# SPDX-License-Identifier: Apache-2.0
"""Guests of a few bytes with page tables of our own in each mode of x86: every page size, holes, rights of every kind.

The firmware switches paging on and halts. It stays in 16-bit code, whose segment has a base, so nothing has to jump.
The tables, and around them numbers that are their own addresses, are laid into memory by QEMU's loader.
"""

from __future__ import annotations

import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .tiny import GO, Tiny, tiny, wait_for

RAM = 16 << 20
LOADED = 1 << 20
"""Guest-physical address from which on memory is ours: the top table, the others behind it, then numbers."""

PRESENT, WRITE, USER, LARGE, NX = 1, 2, 4, 0x80, 1 << 63
SUPERVISOR, ALL = PRESENT | WRITE, PRESENT | WRITE | USER
CODE = 0xF0000
"""Where the firmware runs, which has to be mapped there."""

PSE, PAE, LA57 = 0x10, 0x20, 0x1000
EFER, LME, NXE = 0xC0000080, 0x100, 0x800
PROTECTION_AND_PAGING = 0x80000001

Table = dict[int, int]
"""Entries by index."""


class Mode(NamedTuple):
    """How a guest pages: its CPU for QEMU, CR4, EFER, and the tables, the top one first."""

    cpu: str
    cr4: int
    efer: int
    tables: list[Table]


def table(number: int) -> int:
    """Guest-physical address of a table, by its place in the list."""
    return LOADED + 0x1000 * number


def _chain(first: int, count: int, index: int, page: int) -> list[Table]:
    """Tables, one below the other, with one entry each; that of the last one is a page."""
    return [{index: table(first + number + 1) | ALL} for number in range(count - 1)] + [{index: page | ALL}]


SMALL_PAGES: Table = {
    0x10: 0x200000 | SUPERVISOR,
    0x11: 0x201000 | SUPERVISOR,  # goes on where the last one ends
    0x12: 0x202000 | PRESENT,
    0x13: 0x203000 | ALL,
    0x14: 0x204000 | PRESENT | USER,
    0x16: 0x209000 | ALL,  # behind a hole
    0x17: 0x208000 | ALL,
    0x18: (RAM - 0x1000) | SUPERVISOR,  # the last page of memory
    0x19: RAM | SUPERVISOR,  # and then none
    CODE >> 12: CODE | PRESENT,
}


def _pages_with_nx(first: int) -> list[Table]:
    """Two tables, with 2 MiB pages and with 4 KiB pages, at ``first`` and behind it."""
    large: Table = {
        0: table(first + 1) | ALL,
        1: 0x400000 | ALL | LARGE,
        2: 0x600000 | PRESENT | LARGE | NX,
        3: 0x800000 | PRESENT | LARGE | NX,
        5: table(first + 1) | PRESENT | NX,  # the same pages, of which less may be done
        6: table(first) | SUPERVISOR,  # the table as one of small pages
    }
    return [large, {**SMALL_PAGES, 0x20: 0x210000 | SUPERVISOR | NX, 0x21: 0x211000 | ALL | NX}]


def _long(levels: int) -> list[Table]:
    """Tables of long mode, with pages at both sides of the addresses that there are not, and one that maps itself."""
    upper = levels - 3
    last = upper + 3
    top = {0: table(1) | ALL, 255: table(last) | ALL, 510: table(0) | SUPERVISOR, 511: table(last) | SUPERVISOR}
    return [
        {**top, 256: table(last + levels - 1) | SUPERVISOR},
        *({0: table(number + 2) | ALL} for number in range(upper - 1)),
        {0: table(upper + 1) | ALL, 1: ALL | LARGE, 2: (1 << 30) | PRESENT | LARGE | NX},
        *_pages_with_nx(upper + 1),
        *_chain(last, levels - 1, 511, 0x300000),
        *_chain(last + levels - 1, levels - 1, 0, 0x302000),
    ]


THIRTY_TWO: list[Table] = [
    {
        0: table(1) | ALL,
        1: 0x400000 | ALL | LARGE,
        2: 0x800000 | PRESENT | LARGE,
        3: 0xC00000 | PRESENT | USER | LARGE,
        5: table(1) | PRESENT,
        1022: table(0) | SUPERVISOR,
        1023: table(2) | SUPERVISOR,
    },
    SMALL_PAGES,
    {1023: 0x300000 | SUPERVISOR},
]

MODES = {
    "32-bit": Mode("qemu64", PSE, 0, THIRTY_TWO),
    "32-bit, small pages": Mode("qemu64", 0, 0, THIRTY_TWO),  # what were large pages are tables then, without entries
    "pae": Mode(
        "qemu64",
        PAE,
        NXE,
        [
            {0: table(1) | PRESENT, 3: table(3) | PRESENT},
            *_pages_with_nx(1),
            *_chain(3, 2, 511, 0x300000),
        ],
    ),
    "4 levels": Mode("max,la57=off", PAE, LME | NXE, _long(4)),
    "5 levels": Mode("max,la57=on", PAE | LA57, LME | NXE, _long(5)),
}


def memory(mode: Mode) -> bytes:
    """All of memory from ``LOADED`` on: the tables in zeros, and numbers of 8 bytes that are their own addresses."""
    content = bytearray(array.array("Q", range(LOADED, RAM, 8)).tobytes())
    content[: len(mode.tables) << 12] = bytes(len(mode.tables) << 12)
    width = 8 if mode.cr4 & PAE else 4
    for number, entries in enumerate(mode.tables):
        for index, entry in entries.items():
            at = (number << 12) + index * width
            content[at : at + width] = entry.to_bytes(width, "little")
    return bytes(content)


def _act(mode: Mode) -> bytes:
    """Registers for paging, EFER among them, then a halt without interrupts; 16-bit code."""
    efer = b"\x66\xb9" + EFER.to_bytes(4, "little") + b"\x66\x31\xd2" + _into_eax(mode.efer) + b"\x0f\x30"
    control = _into_eax(LOADED) + b"\x0f\x22\xd8" + _into_eax(mode.cr4) + b"\x0f\x22\xe0"
    return control + efer + _into_eax(PROTECTION_AND_PAGING) + b"\x0f\x22\xc0\xfa\xf4\xeb\xfc"


def _into_eax(value: int) -> bytes:
    return b"\x66\xb8" + value.to_bytes(4, "little")


@contextmanager
def paged(folder: Path, mode: Mode, options: Sequence[str] = ()) -> Iterator[Tiny]:
    """Start one; it is stopped with paging on. ``options`` are further ones of QEMU."""
    image = folder / "memory"
    image.write_bytes(memory(mode))
    loaders = (f"loader,file={image},addr={LOADED:#x},force-raw=on", f"loader,addr={GO:#x},data=1,data-len=1")
    devices = [part for loader in loaders for part in ("-device", loader)]
    with tiny(folder, _act(mode), ["-cpu", mode.cpu, *devices, *options]) as guest:
        wait_for(lambda: "HLT=1" in guest.monitor.human("info registers"), "a guest that halts")
        guest.monitor.execute("stop")
        yield guest
