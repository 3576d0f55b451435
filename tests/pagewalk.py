# SPDX-License-Identifier: Apache-2.0
"""A reference walker of page tables in plain Python, written from the manuals: the oracle of the tests.

It shares no code with the library. ``walk`` translates one address, ``leaves`` tells every page that is mapped.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import NamedTuple

OFF, X86_32, X86_PAE, X86_4_LEVELS, X86_5_LEVELS, AARCH64 = range(6)
NO_LARGE_PAGES, NO_EXECUTE_DISABLE, NO_GIGABYTE_PAGES = 1, 2, 4
KERNEL_READ, KERNEL_WRITE, KERNEL_EXECUTE, USER_READ, USER_WRITE, USER_EXECUTE = 1, 2, 4, 16, 32, 64
EVERYTHING = KERNEL_READ | KERNEL_WRITE | KERNEL_EXECUTE | USER_READ | USER_WRITE | USER_EXECUTE
KERNEL = KERNEL_READ | KERNEL_WRITE | KERNEL_EXECUTE

Read = Callable[[int, int], "bytes | None"]
"""So many bytes at a physical address; ``None`` where there is no memory."""


class Space(NamedTuple):
    """What ``struct microvmi_address_space`` holds."""

    paging: int
    base: int
    upper_base: int = 0
    control: int = 0
    physical_bits: int = 0


class Failure(enum.IntEnum):
    """As ``enum microvmi_translation_failure``."""

    NONE = 0
    NOT_PRESENT = 1
    RESERVED_BITS = 2
    TABLE_NOT_MEMORY = 3
    NOT_CANONICAL = 4
    CHANGING = 5


class Walked(NamedTuple):
    """Where a walk ended. ``physical`` is ``None`` on failure; ``level`` 1 is that of the smallest pages."""

    failure: Failure
    physical: int | None
    page_size: int
    rights: int
    level: int
    entry: int
    entry_address: int | None


class _Step(NamedTuple):
    """What one entry says: a failure, the next table, or a page, with what is allowed so far."""

    failure: Failure
    is_page: bool = False
    address: int = 0
    rights: int = 0


class _Level(NamedTuple):
    """One level of tables: where its index stands in an address, how many bits it has, and how large an entry is."""

    number: int
    shift: int
    bits: int
    size: int
    decode: Callable[[int, _Level, int], _Step]


class _Root(NamedTuple):
    """Where a walk begins: the first table, its levels from the top, and the addresses that it is for."""

    table: int
    levels: tuple[_Level, ...]
    start: int
    end: int


def memory_reader(memory: bytes | bytearray) -> Read:
    """Memory that begins at 0 and ends with ``memory``."""

    def read(address: int, size: int) -> bytes | None:
        return bytes(memory[address : address + size]) if 0 <= address <= len(memory) - size else None

    return read


def walk(read: Read, space: Space, virtual: int) -> Walked:
    """Translate one address, by the rules of the processor's manual."""
    if space.paging == OFF:
        return Walked(Failure.NONE, virtual, 4096, EVERYTHING, 0, 0, None)
    root = next((root for root in _roots(space) if root.start <= _untagged(space, virtual) < root.end), None)
    if root is None:
        return Walked(Failure.NOT_CANONICAL, None, 0, 0, 0, 0, None)
    if root.table < 0:
        top = root.levels[0]
        return Walked(Failure.NOT_PRESENT, None, 1 << top.shift, 0, top.number, 0, None)
    return _descend(read, root, virtual)


def _descend(read: Read, root: _Root, virtual: int) -> Walked:
    table, rights = root.table, EVERYTHING
    for level in root.levels:
        covered = 1 << level.shift
        address = table + (virtual >> level.shift) % (1 << level.bits) * level.size
        raw = read(address, level.size)
        if raw is None:
            return Walked(Failure.TABLE_NOT_MEMORY, None, covered, 0, level.number, 0, address)
        entry = int.from_bytes(raw, "little")
        step = level.decode(entry, level, rights)
        if step.failure:
            return Walked(step.failure, None, covered, 0, level.number, entry, address)
        if step.is_page:
            physical = step.address + virtual % covered
            return Walked(Failure.NONE, physical, covered, step.rights, level.number, entry, address)
        table, rights = step.address, step.rights
    raise AssertionError("the last level ends a walk")


class Leaf(NamedTuple):
    """A page that is mapped."""

    start: int
    size: int
    physical: int
    rights: int


def leaves(read: Read, space: Space, start: int = 0, end: int = 1 << 64) -> Iterator[Leaf]:
    """Every page that is mapped and touches start to end, ascending; entries that are wrong map nothing."""
    for root in _roots(space):
        span = 1 << root.levels[0].shift + root.levels[0].bits
        wanted = max(start, root.start), min(end, root.end)
        if root.table >= 0 and wanted[0] < wanted[1]:
            yield from _below(read, root.levels, root.table, root.end - span if root.start else 0, EVERYTHING, wanted)


def _below(
    read: Read, levels: tuple[_Level, ...], table: int, base: int, rights: int, wanted: tuple[int, int]
) -> Iterator[Leaf]:
    level, covered = levels[0], 1 << levels[0].shift
    for index in range(1 << level.bits):
        virtual = base + (index << level.shift)
        if virtual + covered <= wanted[0] or virtual >= wanted[1]:
            continue
        raw = read(table + index * level.size, level.size)
        if raw is None:
            continue
        step = level.decode(int.from_bytes(raw, "little"), level, rights)
        if step.failure:
            continue
        if step.is_page:
            yield Leaf(virtual, covered, step.address, step.rights)
        else:
            yield from _below(read, levels[1:], step.address, virtual, step.rights, wanted)


def runs(found: Iterator[Leaf]) -> Iterator[tuple[int, int, int, int, int]]:
    """Neighbours in both spaces, of the same rights and page size, as one: start, size, physical, rights, page size."""
    run: tuple[int, int, int, int, int] | None = None
    for leaf in found:
        if run and (run[0] + run[1], run[2] + run[1], *run[3:]) == (leaf.start, leaf.physical, leaf.rights, leaf.size):
            run = (run[0], run[1] + leaf.size, *run[2:])
            continue
        if run:
            yield run
        run = (leaf.start, leaf.size, leaf.physical, leaf.rights, leaf.size)
    if run:
        yield run


# --------------------------------------------------------------------------------------------------------------- x86


def _bits(high: int, low: int) -> int:
    """A mask of the bits from ``low`` to ``high``, as manuals write them: 51:12."""
    return (1 << (high + 1)) - (1 << low) if high >= low else 0


def _untagged(space: Space, virtual: int) -> int:
    """The address without the top byte where that is ignored (AArch64)."""
    upper = virtual >> 55 & 1
    if space.paging != AARCH64 or not space.control >> (37 + upper) & 1:
        return virtual
    return virtual | _bits(63, 56) if upper else virtual & ~_bits(63, 56)


def _roots(space: Space) -> list[_Root]:
    width = space.physical_bits or 52
    if space.paging == X86_32:
        return [_Root(space.base & _bits(31, 12), _legacy_levels(space.control, width), 0, 1 << 32)]
    if space.paging == X86_PAE:
        return [_Root(space.base & _bits(31, 5), _pae_levels(space.control, width), 0, 1 << 32)]
    if space.paging == AARCH64:
        return [_arm_root(space, width, upper) for upper in (False, True)]
    count = 5 if space.paging == X86_5_LEVELS else 4
    levels = tuple(
        _Level(number, 3 + 9 * number, 9, 8, _long_entry(space.control, width)) for number in range(count, 0, -1)
    )
    half, table = 1 << (3 + 9 * count + 8), space.base & _bits(51, 12)
    # The upper half is the same table from its middle on; its addresses have ones above.
    return [_Root(table, levels, 0, half), _Root(table, levels, (1 << 64) - half, 1 << 64)]


def _x86_rights(entry: int, rights: int, nx: bool) -> int:
    if not entry & 2:
        rights &= ~(KERNEL_WRITE | USER_WRITE)
    if not entry & 4:
        rights &= KERNEL
    if nx:
        rights &= ~(KERNEL_EXECUTE | USER_EXECUTE)
    return rights


def _long_entry(control: int, width: int) -> Callable[[int, _Level, int], _Step]:
    reserved = _bits(51, width) | (1 << 63 if control & NO_EXECUTE_DISABLE else 0)

    def decode(entry: int, level: _Level, rights: int) -> _Step:
        large = bool(entry & 0x80) and level.number > 1
        too_large = level.number > 3 or (level.number == 3 and bool(control & NO_GIGABYTE_PAGES))
        if not entry & 1:
            return _Step(Failure.NOT_PRESENT)
        if entry & reserved or (large and (too_large or entry & _bits(level.shift - 1, 13))):
            return _Step(Failure.RESERVED_BITS)
        rights = _x86_rights(entry, rights, bool(entry >> 63))
        is_page = large or level.number == 1
        return _Step(Failure.NONE, is_page, entry & _bits(51, level.shift if is_page else 12), rights)

    return decode


def _pae_levels(control: int, width: int) -> tuple[_Level, ...]:
    reserved = _bits(62, width) | (1 << 63 if control & NO_EXECUTE_DISABLE else 0)

    def pointer(entry: int, level: _Level, rights: int) -> _Step:
        if not entry & 1:
            return _Step(Failure.NOT_PRESENT)
        if entry & (_bits(63, width) | _bits(8, 6) | _bits(2, 1)):  # QEMU's emulation sets bit 5
            return _Step(Failure.RESERVED_BITS)
        return _Step(Failure.NONE, False, entry & _bits(51, 12), rights)

    def decode(entry: int, level: _Level, rights: int) -> _Step:
        large = bool(entry & 0x80) and level.number == 2
        if not entry & 1:
            return _Step(Failure.NOT_PRESENT)
        if entry & reserved or (large and entry & _bits(20, 13)):
            return _Step(Failure.RESERVED_BITS)
        rights = _x86_rights(entry, rights, bool(entry >> 63))
        return _Step(Failure.NONE, large or level.number == 1, entry & _bits(51, 21 if large else 12), rights)

    return _Level(3, 30, 2, 8, pointer), _Level(2, 21, 9, 8, decode), _Level(1, 12, 9, 8, decode)


def _legacy_levels(control: int, width: int) -> tuple[_Level, ...]:
    def decode(entry: int, level: _Level, rights: int) -> _Step:
        large = bool(entry & 0x80) and level.number == 2 and not control & NO_LARGE_PAGES
        if not entry & 1:
            return _Step(Failure.NOT_PRESENT)
        rights = _x86_rights(entry, rights, False)
        if not large:
            return _Step(Failure.NONE, level.number == 1, entry & _bits(31, 12), rights)
        # Bits 20:13 are bits 39:32 of the address, as far as the processor has these; bit 21 is reserved.
        address = (entry >> 13 & 0xFF) << 32 | entry & _bits(31, 22)
        if entry & 1 << 21 or address >> max(width, 32):
            return _Step(Failure.RESERVED_BITS)
        return _Step(Failure.NONE, True, address, rights)

    return _Level(2, 22, 10, 4, decode), _Level(1, 12, 10, 4, decode)


# ----------------------------------------------------------------------------------------------------------- AArch64

_GRANULES = ({0: 12, 1: 16, 2: 14}, {1: 14, 2: 12, 3: 16})
"""By half: the field TG0 or TG1, and the bits of an offset in a page."""
_SIZES = (32, 36, 40, 42, 44, 48, 52, 52)
"""By the field IPS: bits of a physical address."""


def _arm_root(space: Space, width: int, upper: bool) -> _Root:
    control = space.control
    given = control >> (16 if upper else 0) & 63
    page = _GRANULES[upper][control >> (30 if upper else 14) & 3]
    virtual_bits, width = 64 - given, min(width, _SIZES[control >> 32 & 7])
    decode = _arm_entry(page, width, bool(control >> (42 if upper else 41) & 1))
    shifts = list(range(page, virtual_bits, page - 3))
    levels = tuple(
        _Level(index + 1, shift, min(page - 3, virtual_bits - shift), 8, decode) for index, shift in enumerate(shifts)
    )[::-1]
    base = space.upper_base if upper else space.base
    table = base & _bits(47, levels[0].bits + 3)
    if page == 16 and width == 52:
        table = base & _bits(47, max(levels[0].bits + 3, 6)) | (base >> 2 & 15) << 48
    if control >> (23 if upper else 7) & 1:
        table = -1  # walks of this half are disabled
    span = 1 << virtual_bits
    return _Root(table, levels, (1 << 64) - span if upper else 0, 1 << 64 if upper else span)


def _arm_entry(page: int, width: int, flat: bool) -> Callable[[int, _Level, int], _Step]:
    """``flat``: what tables say of rights is not regarded."""
    blocks = {12: (2, 3), 14: (2,), 16: (2, 3) if width == 52 else (2,)}[page]

    def decode(entry: int, level: _Level, rights: int) -> _Step:
        if not entry & 1:
            return _Step(Failure.NOT_PRESENT)
        is_page = level.number == 1 or not entry & 2
        if is_page and (not entry & 2 if level.number == 1 else level.number not in blocks):
            return _Step(Failure.RESERVED_BITS)
        address = entry & _bits(47, level.shift if is_page else page)
        if page == 16 and width == 52:
            address |= (entry >> 12 & 15) << 48
        if address >> width:
            return _Step(Failure.RESERVED_BITS)
        if is_page:
            return _Step(Failure.NONE, True, address, _arm_page(entry, rights))
        return _Step(Failure.NONE, False, address, rights if flat else _arm_table(entry, rights))

    return decode


def _arm_table(entry: int, rights: int) -> int:
    if entry >> 59 & 1:
        rights &= ~KERNEL_EXECUTE
    if entry >> 60 & 1:
        rights &= ~USER_EXECUTE
    if entry >> 61 & 1:
        rights &= ~(USER_READ | USER_WRITE)
    if entry >> 62 & 1:
        rights &= ~(KERNEL_WRITE | USER_WRITE)
    return rights


def _arm_page(entry: int, rights: int) -> int:
    if entry >> 53 & 1:
        rights &= ~KERNEL_EXECUTE
    if entry >> 54 & 1:
        rights &= ~USER_EXECUTE
    if not entry >> 6 & 1:
        rights &= ~(USER_READ | USER_WRITE)
    if entry >> 7 & 1:
        rights &= ~(KERNEL_WRITE | USER_WRITE)
    if rights & USER_WRITE:
        rights &= ~KERNEL_EXECUTE  # what a user can write the kernel never executes
    return rights
