# SPDX-License-Identifier: Apache-2.0
"""The pages in a saved machine of QEMU (section ``ram``, version 4): where the last state of each one is.

A record is a number of 8 bytes, big-endian: an offset in a block of RAM and flags; then the block's name, unless it is
that of the record before, and the page: its bytes, one byte that it consists of, or what changed since it was told.
The first two kinds come by the million, and are read in C (``_native/saved.c``).
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.drivers.dump.codecs import CODECS, ZLIB
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.pages import PackedPages, words
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE, PHYSICAL_BITS
from libmicrovmi_py.transport.native import give_way, native

if TYPE_CHECKING:
    from array import array

FILL, _SIZES, FULL, _OVER, CONTINUE, _CHANGES, _HOOK, _DEFLATED, _FLUSH = (1 << bit for bit in range(1, 10))
_PLAIN = FILL | FULL
_HEAD, _CHANGE = struct.Struct(">Q"), struct.Struct("=3Q")
_WINDOW = 256 << 10
"""So many bytes of the file are read at once to find records in."""
_MOST_HEAD = 300
"""Bytes of a record, but for the page in it: it is whole in what is looked at. So is a block's name with its sizes."""
_MOST_BLOCKS = 1 << 12
_SLACK, _AHEAD = 1 << 21, 64
"""Pages that may be far ahead: so many, and so many for each record before."""
_STEP = 1 << 16
_MOST_CHANGES = 1 << 22
_DEEPEST = 4096
"""So many changes of one page are followed."""

_AS_IT_IS, _BYTE, _PACKED, _CHANGED = range(1, 5)
"""What the lowest bits of an entry say that the others are: an offset, a byte, an offset, a number of a change."""


class Block(NamedTuple):
    """A block of RAM: its name, its size in bytes, and the number of its first page among all."""

    name: str
    size: int
    first: int


class Change(NamedTuple):
    """What changed of a page: where it is told, how long that is, and what the page was before."""

    offset: int
    size: int
    before: int


class SavedPages(PackedPages):
    """The pages of all blocks; one that the stream does not have is not there.

    ``shared_left_out`` is whether the memory that QEMU shares with others was left out (x-ignore-shared): the stream
    then tells where each block begins in the memory that it is a part of, ``addresses``. ``behind_name`` reads what
    else a block has behind its name, and says where that ends.
    """

    def __init__(self, image: Image) -> None:
        super().__init__(image, PAGE_SIZE)
        self.blocks: dict[str, Block] = {}
        self.addresses: dict[str, int] = {}
        self.shared_left_out = False
        self.behind_name: Callable[[Block, int], int] = lambda block, position: position
        self._entries: array[int] = words("Q")
        self._changes: list[Change] = []
        self._last: Block | None = None
        self._count = 0
        self._window, self._begin = b"", 0
        self._walk = native().ffi.new("struct mvi_saved_walk *", {"end": image.size})

    def read_section(self, position: int) -> int:
        """Read the records of a section; where it ends. Raises ``ValueError`` where the file is cut, or lies."""
        while True:
            position = self._read_plain(position)
            place, data = self._look(position, _MOST_HEAD)
            (word,) = _HEAD.unpack_from(data, place)
            flags, offset = word & PAGE_SIZE - 1, word & -PAGE_SIZE
            if flags & _OVER:
                return position + 8
            position += 8
            if flags & _SIZES:
                position = self._read_sizes(position, offset)
            elif flags & (_PLAIN | _CHANGES | _DEFLATED):
                block, length = self._block_of(flags, data, place + 8)
                position = self._read_page(flags & ~CONTINUE, block, offset, position + length)
            elif flags not in (_FLUSH, _HOOK | CONTINUE):
                raise ValueError(f"a record at {position - 8:#x} of a kind that is not known, {flags:#x}")

    def _read_plain(self, position: int) -> int:
        """Read records in C as far as it reads them; where the next one is."""
        walk = self._walk
        walk.position = position
        while True:
            before = walk.position
            self._look(before, 8)
            size = min(len(self._window), self.image.size - self._begin)
            native().lib.mvi_saved_walk(walk, self._window, self._begin, size)
            give_way()
            if walk.position == before:
                return int(before)

    def _look(self, position: int, size: int) -> tuple[int, bytes]:
        """Where in ``self._window`` the file's bytes from ``position`` on are: as many as that, or zeros at its end."""
        place = position - self._begin
        if place < 0 or place + size > len(self._window):
            self._check(position, 8)
            length = min(_WINDOW, self.image.size - position)
            at_end = position + length == self.image.size
            self._window = self.image.read(position, length, "pages").ljust(length + at_end * _MOST_HEAD, b"\0")
            self._begin, place = position, 0
        return place, self._window

    def _block_of(self, flags: int, data: bytes, place: int) -> tuple[Block, int]:
        """The block of a record, and how long its name is."""
        if flags & CONTINUE:
            if self._last is None:
                raise ValueError("the first page is of no block")
            return self._last, 0
        size = data[place]
        name = data[place + 1 : place + 1 + size].decode("utf-8", "replace")
        if name not in self.blocks:
            raise ValueError(f"a page of a block of RAM that there is not, {name[:80]!r}")
        self._last = block = self.blocks[name]
        self._walk.first, self._walk.size = block.first, block.size
        return block, 1 + size

    def _read_sizes(self, position: int, total: int) -> int:
        """The names and sizes of all blocks."""
        while total > 0:
            place, data = self._look(position, _MOST_HEAD)
            size = data[place]
            name = data[place + 1 : place + 1 + size].decode("utf-8", "replace")
            (length,) = _HEAD.unpack_from(data, place + 1 + size)
            block = self._add_block(name, length, total)
            position, total = position + 1 + size + 8, total - length
            if self.shared_left_out:
                (self.addresses[name],) = _HEAD.unpack_from(data, place + 1 + size + 8)
                position += 8
            position = self.behind_name(block, position)
        return position

    def _add_block(self, name: str, size: int, most: int) -> Block:
        if not 0 < size <= most or size % PAGE_SIZE or len(self.blocks) == _MOST_BLOCKS or name in self.blocks:
            raise ValueError(f"a block of RAM {name[:80]!r} of {size:#x} bytes, of {most:#x} in all")
        block = self.blocks[name] = Block(name, size, self._count)
        self._count += size >> PAGE_SHIFT
        if self._count << PAGE_SHIFT > 1 << PHYSICAL_BITS:
            raise ValueError(f"{self._count:#x} pages are more than any machine's")
        return block

    def _make_room(self, number: int) -> None:
        """For the page of that number. Pages come in their order, so that many records go before a high one."""
        if number >= len(self._entries):
            if number > _SLACK + _AHEAD * self._walk.records:
                raise ValueError(f"page {number:#x} is the one that comes after {self._walk.records} others")
            self._add_entries(bytes(8 * (number + 1 - len(self._entries) + _STEP)))

    def _add_entries(self, content: memoryview | bytes) -> None:
        self._entries.frombytes(content)
        address, self._walk.room = self._entries.buffer_info()
        self._walk.entries = native().ffi.cast("uint64_t *", address)

    def kept(self) -> tuple[bytes, memoryview]:
        """What :meth:`take` takes besides the blocks: the changes of pages, and an entry for each page."""
        return b"".join(_CHANGE.pack(*change) for change in self._changes), memoryview(self._entries)[: self._count]

    def take(self, blocks: Sequence[tuple[str, int]], changes: memoryview, entries: memoryview) -> None:
        """What another has kept, names and sizes of blocks first. Raises ``ValueError`` for what cannot be."""
        for name, size in blocks:
            self._add_block(name, size, size)
        if len(changes) % _CHANGE.size or len(entries) % 8 or len(entries) // 8 > self._count:
            raise ValueError("it has no whole entries, or too many")
        self._changes = [Change(*row) for row in _CHANGE.iter_unpack(changes)]
        if any(change.size > PAGE_SIZE for change in self._changes):
            raise ValueError("more than a page was changed of one")
        self._add_entries(entries)

    def _read_page(self, kind: int, block: Block, offset: int, position: int) -> int:
        """Keep where a page is, or leave that to C; where what comes next is."""
        if offset >= block.size:
            raise ValueError(f"a page at {offset:#x} of the block {block.name[:80]!r} of {block.size:#x} bytes")
        number = block.first + (offset >> PAGE_SHIFT)
        self._make_room(number)
        if kind in (FULL, FILL):
            self._check(position, PAGE_SIZE if kind == FULL else 1)
            self._walk.word = offset | kind | CONTINUE
            return position
        entry, size = self._entry(kind, position, number)
        self._check(position, size)
        self._entries[number] = entry
        self._walk.records += 1
        return position + size

    def _check(self, position: int, size: int) -> None:
        if not self.image.has(position, size):
            raise ValueError(f"it ends at {self.image.size:#x}, in the middle of memory")

    def _entry(self, kind: int, position: int, number: int) -> tuple[int, int]:
        """What is kept of a page that is packed, or changes one, and how long that is."""
        place, data = self._look(position, 8)
        if kind == _DEFLATED:
            return position << 3 | _PACKED, 4 + int.from_bytes(data[place : place + 4], "big")
        size = int.from_bytes(data[place + 1 : place + 3], "big")
        if kind != _CHANGES or data[place] != 1 or not 0 < size <= PAGE_SIZE or len(self._changes) == _MOST_CHANGES:
            raise ValueError(f"changes at {position:#x} that cannot be")
        self._changes.append(Change(position + 3, size, self._entries[number]))
        return (len(self._changes) - 1) << 3 | _CHANGED, 3 + size

    def place(self, block: Block, offset: int, size: int, address: int) -> None:
        """These bytes of a block are memory from ``address`` on; in ascending order of addresses."""
        first, end = block.first + (offset >> PAGE_SHIFT), block.first + (offset + size >> PAGE_SHIFT)
        shift = (address >> PAGE_SHIFT) - first
        end = min(end, len(self._entries))
        following = native().lib.mvi_saved_next
        while first < end:
            gap = following(self._walk.entries, first, end, False)
            if first < gap:
                self.add(first + shift, gap + shift, first)
            first = following(self._walk.entries, gap, end, True)

    def all_placed(self) -> None:
        """From now on C reads the pages, but for those of which changes were told."""
        codecs = []
        with contextlib.suppress(DriverUnavailableError):
            codecs.append(CODECS[ZLIB].native(ZLIB))
        self.read_in_c(codecs, entries=self._entries)

    def zeros(self) -> int:
        """How many of the pages are told to be zeros, without their bytes."""
        runs = zip(self._starts, self._ends, self._indices, strict=True)
        return sum(self._entries[index : index + end - first].count(_BYTE) for first, end, index in runs)

    def page(self, index: int) -> bytes:
        """By its entry."""
        return self._content(self._entries[index])

    def bytes_of(self, block: Block) -> bytes:
        """All of a block; nothing if it is not there."""
        numbers = range(block.first, block.first + (block.size >> PAGE_SHIFT))
        if numbers.stop > len(self._entries) or not all(self._entries[numbers.start : numbers.stop]):
            return b""
        return b"".join(map(self.page, numbers))

    def _content(self, entry: int) -> bytes:
        changes: list[Change] = []
        while entry & 7 == _CHANGED:
            if entry >> 3 >= len(self._changes):
                raise ValueError("it is told as changed, and nobody tells how")
            changes.append(self._changes[entry >> 3])
            entry = changes[-1].before
            if len(changes) > _DEEPEST:
                raise ValueError(f"it was changed more than {_DEEPEST} times")
        kind, value = entry & 7, entry >> 3
        if kind == _AS_IT_IS:
            content = self.image.read(value, PAGE_SIZE, "a page")
        elif kind == _PACKED:
            content = self._inflated(value)
        else:
            content = bytes([value if kind == _BYTE else 0]) * PAGE_SIZE
        for change in reversed(changes):
            content = changed(content, self.image.read(change.offset, change.size, "what changed of a page"))
        return content

    def _inflated(self, offset: int) -> bytes:
        size = int.from_bytes(self.image.read(offset, 4, "a page"), "big")
        if size > 2 * PAGE_SIZE:
            raise ValueError(f"it has {size} bytes packed")
        try:
            return zlib.decompressobj().decompress(self.image.read(offset + 4, size, "a page"), PAGE_SIZE + 1)
        except zlib.error as err:
            raise ValueError(str(err)) from None


def changed(page: bytes, changes: bytes) -> bytes:
    """A page after changes (XBZRLE): in turn how many bytes stay, and how many others follow. Raises ``ValueError``."""
    result, place, position = bytearray(page), 0, 0
    while position < len(changes):
        stay, position = _number(changes, position)
        place += stay
        if position == len(changes):
            break
        size, position = _number(changes, position)
        if not size or place + size > len(page) or position + size > len(changes):
            raise ValueError("what changed is told beyond its end")
        result[place : place + size] = changes[position : position + size]
        place, position = place + size, position + size
    return bytes(result)


def _number(data: bytes, position: int) -> tuple[int, int]:
    """A number of one or two bytes, seven bits each, and where the next one begins."""
    if not data[position] & 0x80:
        return data[position], position + 1
    if position + 1 >= len(data):
        raise ValueError("a number is cut")
    return data[position] & 0x7F | data[position + 1] << 7, position + 2
