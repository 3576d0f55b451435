# SPDX-License-Identifier: Apache-2.0
"""Where in a machine's memory the blocks of RAM are that a stream of QEMU has: it names them, and tells no addresses.

A board has main memory in a block of its own, or in one that the user made, or in several (nodes of NUMA). How much of
it is below 4 GiB is in the state of a PC's clock, where QEMU puts it for the firmware, and which blocks are which nodes
is in the table (SRAT) that QEMU made for the firmware.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.savedram import Block
from libmicrovmi_py.drivers.saved.sections import sections
from libmicrovmi_py.model import Architecture

_GIB, _4_GIB = 1 << 30, 1 << 32
_VIDEO, _BIOS_END = (0xA0000, 0xC0000), 0x100000
_CLOCK = 128
"""Bytes of the clock's memory, with which its state begins."""
_UNIT, _LEAST = 64 << 10, 16 << 20
"""The clock tells memory in such units: below 4 GiB without the first 16 MiB, and above."""
_TABLES = "/rom@etc/acpi/tables"
_LARGEST_TABLES = 16 << 20
_NO_MAIN_MEMORY = frozenset(
    ("pc.bios", "pc.rom", "isa-bios", "vga.vram", "system.flash0", "system.flash1", "virt.flash0", "virt.flash1")
)


class Board(NamedTuple):
    """Where a board has its memory: from ``start`` on; above 4 GiB as soon as there is ``most``, below it ``low``."""

    architecture: Architecture | None
    start: int = 0
    most: int = 1 << 52
    low: int = 1 << 52


class Placed(NamedTuple):
    """``size`` bytes of a block from ``offset`` on are memory from ``address`` on."""

    block: Block
    offset: int
    size: int
    address: int

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + self.size


class Layout(NamedTuple):
    """What is where, in ascending order, of what board, and what a user should know of how that was found.

    Main memory is in the blocks ``main``, and ends below ``end``, or goes on from 4 GiB on.
    """

    board: Board
    placed: Sequence[Placed]
    main: Sequence[Block]
    end: int
    said: str = ""


BOARDS = {
    "pc.ram": Board(Architecture.X86, 0, 0xE0000000, 0xC0000000),
    "microvm.ram": Board(Architecture.X86, 0, 0xE0000000, 0xC0000000),
    "mach-virt.ram": Board(Architecture.AARCH64, 1 << 30),
    "riscv_virt_board.ram": Board(None, 1 << 31),
}
_Q35 = Board(Architecture.X86, 0, 0xB0000000, 0x80000000)


def laid(
    blocks: Mapping[str, Block],
    machine: str,
    devices: bytes,
    content: Callable[[Block], bytes],
    addresses: Mapping[str, int],
) -> Layout | None:
    """``None`` if it cannot be told. ``devices`` is their state, ``b""`` if there is none.

    ``content`` gives the bytes of a block; ``addresses`` has where a block begins in the memory that it is a part of,
    of those for which the stream tells it.
    """
    made = [block for block in blocks.values() if _can_be_main(block.name)]
    own = next((blocks[name] for name in BOARDS if name in blocks), None)
    board = _board(own.name if own else "", machine)
    sizes = _told_by_clock(devices) if board.architecture is Architecture.X86 else None
    tables = blocks.get(_TABLES)
    nodes = _nodes(content(tables)) if tables and tables.size <= _LARGEST_TABLES else []
    said = ""
    if own or len(made) == 1:
        main = [own] if own else made
    else:
        main, said = _of_several(made, nodes, sizes, addresses)
    if not main:
        return None
    total = sum(block.size for block in main)
    low = _low(board, total, sizes)
    placed = [*_spread(main, board, low), *_firmware(blocks, board, low)]
    more, told = _plugged([block for block in made if block not in main], addresses, board, placed)
    return Layout(board, sorted([*placed, *more], key=lambda item: item.address), main, board.start + low, said or told)


def _can_be_main(name: str) -> bool:
    """The memory of devices has their places before its name."""
    return "/" not in name.removeprefix("/objects/") and name not in _NO_MAIN_MEMORY


def _board(block: str, machine: str) -> Board:
    if "q35" in machine:
        return _Q35
    if block in BOARDS:
        return BOARDS[block]
    return BOARDS["mach-virt.ram" if machine.startswith("virt") else "pc.ram"]


def _told_by_clock(devices: bytes) -> tuple[int, int] | None:
    """Bytes of main memory below and above 4 GiB, as QEMU put them into the clock of a PC; a guest can change them."""
    for section in sections(devices, "mc146818rtc") if devices else ():
        clock = devices[section.start : section.start + _CLOCK]
        if len(clock) == _CLOCK:
            low, high = int.from_bytes(clock[0x34:0x36], "little"), int.from_bytes(clock[0x5B:0x5E], "little")
            return low * _UNIT + _LEAST, high * _UNIT
    return None


def _low(board: Board, total: int, sizes: tuple[int, int] | None) -> int:
    """How much is below 4 GiB: as the clock says, if that makes up all there is; else by the board's rule."""
    if sizes is not None and sum(sizes) == total and sizes[0] < _4_GIB:
        return sizes[0]
    return total if total < board.most else board.low


def _nodes(tables: bytes) -> list[int]:
    """The sizes of the nodes of NUMA, in their order, by the table that QEMU makes for the firmware; none without."""
    at = tables.find(b"SRAT")
    if at < 0 or at + 48 > len(tables):
        return []
    rows = tables[at : at + int.from_bytes(tables[at + 4 : at + 8], "little")]
    found: dict[int, int] = {}
    position = 48
    while position + 2 <= len(rows) and rows[position + 1] >= 2:
        if rows[position] == 1 and position + 40 <= len(rows):
            node, first, size, flags = struct.unpack_from("<2xI2xQQ4xI", rows, position)
            if flags & 3 == 1:  # it is there, and was not plugged in
                shadow = _BIOS_END - _VIDEO[0] if first == 0 and size == _VIDEO[0] else 0
                found[node] = found.get(node, 0) + size + shadow
        position += rows[position + 1]
    return [found[node] for node in sorted(found) if found[node]]


def _of_several(
    made: Sequence[Block], nodes: Sequence[int], sizes: tuple[int, int] | None, addresses: Mapping[str, int]
) -> tuple[list[Block], str]:
    """The blocks that are main memory, in their order, and what is not sure of it; none if it cannot be told."""
    left, main = list(made), []
    for size in nodes:
        fits = [block for block in left if block.size == size]
        if not fits:
            return [], ""
        main.append(fits[0])
        left.remove(fits[0])
    if not nodes and sizes is not None and sum(block.size for block in made) == sum(sizes):
        main = list(made)
    if all(block.name in addresses for block in main):
        return sorted(main, key=lambda block: addresses[block.name]), ""
    same = len({block.size for block in main}) < len(main)
    names = ", ".join(block.name[:40] for block in main)
    return (
        main,
        f"main memory is taken to be {names}, in this order: nothing tells blocks of one size apart" if same else "",
    )


def _spread(main: Sequence[Block], board: Board, low: int) -> Iterator[Placed]:
    """Put main memory at its addresses."""
    total = sum(block.size for block in main)
    ranges = [(board.start, 0, min(low, total))]
    if board.architecture is Architecture.X86 and low > _VIDEO[1]:
        ranges = [(0, 0, _VIDEO[0]), (_VIDEO[1], _VIDEO[1], min(low, total) - _VIDEO[1])]
    if low < total:
        ranges.append((_4_GIB, low, total - low))
    for address, offset, size in ranges:
        yield from _pieces(main, address, offset, size)


def _pieces(main: Iterable[Block], address: int, offset: int, size: int) -> Iterator[Placed]:
    """``size`` bytes from ``offset`` on of the blocks, one after the other, are memory from ``address`` on."""
    begin = 0
    for block in main:
        first, end = max(offset, begin), min(offset + size, begin + block.size)
        if first < end:
            yield Placed(block, first - begin, end - first, address + first - offset)
        begin += block.size


def _firmware(blocks: Mapping[str, Block], board: Board, low: int) -> Iterator[Placed]:
    bios = blocks.get("pc.bios")
    if bios is not None and board.architecture is Architecture.X86 and bios.size <= _4_GIB - low:
        yield Placed(bios, 0, bios.size, _4_GIB - bios.size)


def _plugged(
    blocks: Sequence[Block], addresses: Mapping[str, int], board: Board, placed: Sequence[Placed]
) -> tuple[list[Placed], str]:
    """Memory that was plugged in: from the next GiB on, one after the other, and what is to be told of that."""
    if not blocks:
        return [], ""
    end = max(item.end for item in placed)
    start = -(-max(end, _4_GIB if board.architecture is Architecture.X86 else 0) // _GIB) * _GIB
    names = ", ".join(block.name[:40] for block in blocks)
    if all(block.name in addresses for block in blocks):
        return [Placed(block, 0, block.size, start + addresses[block.name]) for block in blocks], ""
    if len({block.size for block in blocks}) > 1:
        return [], f"memory that was plugged in is left out, as nothing tells where it was: {names}"
    found = []
    for block in blocks:
        found.append(Placed(block, 0, block.size, start))
        start += block.size
    place = f"where QEMU puts it by itself, from {found[0].address:#x} on"
    return found, f"memory that was plugged in is taken to be {place}: {names}"
