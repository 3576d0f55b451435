# SPDX-License-Identifier: Apache-2.0
"""Page tables of every mode, laid into a ``bytearray`` that is guest memory from address 0 on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pagewalk import (
    AARCH64,
    EVERYTHING,
    KERNEL_EXECUTE,
    KERNEL_WRITE,
    NO_LARGE_PAGES,
    USER_EXECUTE,
    USER_READ,
    USER_WRITE,
    X86_4_LEVELS,
    X86_5_LEVELS,
    X86_32,
    X86_PAE,
    Space,
)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclasses.dataclass(frozen=True)
class Mode:
    """How tables look. ``shifts`` and ``index_bits`` are from the smallest pages' level up."""

    paging: int
    shifts: tuple[int, ...]
    index_bits: tuple[int, ...]
    page_sizes: tuple[int, ...]
    control: int = 0
    entry_size: int = 8

    @property
    def virtual_bits(self) -> int:
        return self.shifts[-1] + self.index_bits[-1]

    @property
    def high(self) -> int:
        """The lowest address of the upper half; 0 where there is none."""
        if self.paging in (X86_32, X86_PAE):
            return 0
        return (1 << 64) - (1 << (self.virtual_bits - (0 if self.paging == AARCH64 else 1)))


def _tcr(given: int, lower: int, upper: int, physical: int = 5) -> int:
    """TCR_EL1: both halves with the same size field and granule; physical addresses of 48 bits."""
    return given | lower << 14 | given << 16 | upper << 30 | physical << 32


_NINE = (9, 9, 9, 9, 9)
MODES = {
    "x86-32": Mode(X86_32, (12, 22), (10, 10), (4 * KIB,), NO_LARGE_PAGES, 4),
    "x86-32-pse": Mode(X86_32, (12, 22), (10, 10), (4 * KIB, 4 * MIB), 0, 4),
    "x86-pae": Mode(X86_PAE, (12, 21, 30), (9, 9, 2), (4 * KIB, 2 * MIB)),
    "x86-4": Mode(X86_4_LEVELS, (12, 21, 30, 39), _NINE[:4], (4 * KIB, 2 * MIB, GIB)),
    "x86-5": Mode(X86_5_LEVELS, (12, 21, 30, 39, 48), _NINE, (4 * KIB, 2 * MIB, GIB)),
    "aarch64-4k": Mode(AARCH64, (12, 21, 30, 39), _NINE[:4], (4 * KIB, 2 * MIB, GIB), _tcr(16, 0, 2)),
    "aarch64-4k-39": Mode(AARCH64, (12, 21, 30), _NINE[:3], (4 * KIB, 2 * MIB, GIB), _tcr(25, 0, 2)),
    "aarch64-16k": Mode(AARCH64, (14, 25, 36), (11, 11, 11), (16 * KIB, 32 * MIB), _tcr(17, 2, 1)),
    "aarch64-64k": Mode(AARCH64, (16, 29, 42), (13, 13, 6), (64 * KIB, 512 * MIB), _tcr(16, 1, 3)),
}
"""By name, what the tests run over."""


class Tables:
    """Tables of one address space. ``start`` is where they begin in memory; they take pages from there upwards.

    ``map`` maps pages, ``entry_address`` and ``poke`` are for what no good guest does.
    """

    def __init__(self, memory: bytearray, mode: str, start: int, *, physical_bits: int = 0) -> None:
        self.memory, self.mode = memory, MODES[mode]
        self._next, self._physical_bits = start, physical_bits
        self.base = self.table()
        self.upper_base = self.table() if self.mode.paging == AARCH64 else 0

    @property
    def space(self) -> Space:
        return Space(self.mode.paging, self.base, self.upper_base, self.mode.control, self._physical_bits)

    @property
    def end(self) -> int:
        """One past the tables that were made so far."""
        return self._next

    def table(self) -> int:
        """Room for one more table, all zeros; its address."""
        size = max(1 << self.mode.shifts[0], 4096)
        at = -(-self._next // size) * size
        assert at + size <= len(self.memory), "no room for tables"
        self.memory[at : at + size] = bytes(size)
        self._next = at + size
        return at

    def map(self, virtual: int, physical: int, size: int = 0, rights: int = EVERYTHING) -> None:
        """Map one page; by default the smallest. All levels above allow everything."""
        size = size or self.mode.page_sizes[0]
        level = self.mode.shifts.index(size.bit_length() - 1) + 1
        assert size in self.mode.page_sizes
        assert virtual % size == physical % size == 0
        self.poke(virtual, level, _page(self.mode, level, physical, rights))

    def map_range(self, virtual: int, physical: int, size: int, rights: int = EVERYTHING) -> None:
        """Map so many bytes by the smallest pages, in one piece."""
        page = self.mode.page_sizes[0]
        for offset in range(0, size, page):
            self.map(virtual + offset, physical + offset, page, rights)

    def poke(self, virtual: int, level: int, entry: int) -> None:
        """Make an entry what one likes; the tables above are made where they are not there."""
        at, size = self.entry_address(virtual, level), self.mode.entry_size
        self.memory[at : at + size] = entry.to_bytes(size, "little")

    def peek(self, virtual: int, level: int) -> int:
        at = self.entry_address(virtual, level)
        return int.from_bytes(self.memory[at : at + self.mode.entry_size], "little")

    def entry_address(self, virtual: int, level: int) -> int:
        """Where the entry of that level stands; the tables above are made where they are not there."""
        mode, count = self.mode, len(self.mode.shifts)
        table = self.upper_base if mode.paging == AARCH64 and virtual >> 63 else self.base
        for number in range(count, level, -1):
            table = self._below(self._index(table, virtual, number), number)
        return self._index(table, virtual, level)

    def _index(self, table: int, virtual: int, number: int) -> int:
        mode = self.mode
        index = virtual >> mode.shifts[number - 1] & ((1 << mode.index_bits[number - 1]) - 1)
        return table + index * mode.entry_size

    def _below(self, at: int, number: int) -> int:
        size = self.mode.entry_size
        entry = int.from_bytes(self.memory[at : at + size], "little")
        if not entry & 1:
            entry = table_entry(self.mode, number, self.table())
            self.memory[at : at + size] = entry.to_bytes(size, "little")
        return entry & 0x0000_FFFF_FFFF_F000 & ~((1 << self.mode.shifts[0]) - 1)


def table_entry(mode: Mode, level: int, table: int) -> int:
    """An entry of that level that leads to a table, and allows everything."""
    if mode.paging == AARCH64:
        return table | 3
    if mode.paging == X86_PAE and level == 3:
        return table | 1
    return table | 0x67


def _page(mode: Mode, level: int, physical: int, rights: int) -> int:
    encode: Callable[[int, int, int], int] = _arm_page if mode.paging == AARCH64 else _x86_page
    entry = encode(level, physical, rights)
    if mode.paging == X86_32:
        assert rights & KERNEL_EXECUTE, "32-bit tables cannot forbid execution"
        return entry & 0xFFFF_FFFF | (physical >> 32 & 0xFF) << 13
    return entry


def _x86_page(level: int, physical: int, rights: int) -> int:
    entry = physical | 0x61 | (0x80 if level > 1 else 0)
    entry |= 2 if rights & KERNEL_WRITE else 0
    entry |= 4 if rights & USER_READ else 0
    return entry if rights & KERNEL_EXECUTE else entry | 1 << 63


def _arm_page(level: int, physical: int, rights: int) -> int:
    entry = physical | 0x401 | (2 if level == 1 else 0)
    entry |= 1 << 6 if rights & USER_READ else 0
    entry |= 0 if rights & KERNEL_WRITE or rights & USER_WRITE else 1 << 7
    entry |= 0 if rights & KERNEL_EXECUTE else 1 << 53
    return entry if rights & USER_EXECUTE else entry | 1 << 54


def kpti_pair(memory: bytearray, mode: str, start: int) -> tuple[Tables, Tables]:
    """A kernel's tables and, 4096 bytes above, its user's twin, both empty; ``start`` is a multiple of 8192.

    :func:`finish_kpti` makes the twin's lower half that of the kernel's.
    """
    kernel = Tables(memory, mode, start)
    user = Tables(memory, mode, start + 4096)
    assert (kernel.base, user.base) == (start, start + 4096)
    kernel._next = start + 8192
    return kernel, user


def finish_kpti(kernel: Tables, user: Tables) -> None:
    """What user space has is in both top tables; the kernel's forbids its execution there."""
    user_space = 24 if kernel.mode.paging == X86_PAE else 2048
    for at in range(kernel.base, kernel.base + user_space, 8):
        entry = int.from_bytes(kernel.memory[at : at + 8], "little")
        kernel.memory[at + 4096 : at + 4104] = entry.to_bytes(8, "little")
        if entry & 5 == 5 and kernel.mode.paging != X86_PAE:
            kernel.memory[at : at + 8] = (entry | 1 << 63).to_bytes(8, "little")
