# SPDX-License-Identifier: Apache-2.0
"""The kernel's own table of symbols, as it lies in memory, taken apart.

Names are packed: each has a length and that many bytes, each of which stands for a piece of text. Addresses are numbers
of 32 bits, whose meaning changed over the years; which it is is seen by whether a symbol leads to what it should.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import IoError, MicrovmiError, NotSupportedError
from libmicrovmi_py.model import U64_MAX

MOST_SYMBOLS = 1 << 20
MOST_NAMES = 32 << 20
"""Bytes of all packed names."""

TOKEN_INDEX_SIZE = 512
TOKEN_TABLE_SIZE = 1 << 16
_LONGEST_TOKEN = 64
_LONGEST_NAME = 1024
"""Bytes of a packed name."""

_MOST_TEXT = 64 << 20
"""Characters of all names together."""

_MOST_TABLES = 4
"""Tables that are tried; one is right."""

_BLOCK = 256
"""Names that are unpacked at once."""

_END = "\u0100"
"""Between packed names: no byte."""


class Offsets(NamedTuple):
    """The addresses of symbols as 32 bits each, where they lie, and what they count from; ``None``: from there."""

    content: bytes
    address: int
    base: int | None


class PackedSymbols(NamedTuple):
    """The tables of ``number`` symbols as they are in memory; ``offsets`` has all that may be the addresses."""

    number: int
    names: bytes
    tokens: Sequence[str]
    offsets: Sequence[Offsets]


class Symbols:
    """Names of the kernel's image and their addresses; a name may stand for several, the first is that of linking.

    Iteration gives (address, letter of ``nm``, name) in the kernel's order, by addresses.
    """

    def __init__(self, addresses: Sequence[int], names: Sequence[str]) -> None:
        """``names`` begin with the letter."""
        self._addresses = addresses
        self._names = names
        self._first = dict(zip(reversed([name[1:] for name in names]), reversed(addresses), strict=True))
        self._sorted: tuple[list[int], list[int]] | None = None

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[tuple[int, str, str]]:
        return ((address, name[:1], name[1:]) for address, name in zip(self._addresses, self._names, strict=True))

    def __contains__(self, name: str) -> bool:
        return name in self._first

    def address(self, name: str) -> int:
        """The address of a name; ``KeyError`` without one."""
        return self._first[name]

    def get(self, name: str) -> int | None:
        """The address of a name, ``None`` without one."""
        return self._first.get(name)

    def all(self, name: str) -> list[int]:
        """All addresses of a name."""
        return [address for address, _, other in self if other == name]

    def at(self, address: int) -> tuple[str, int]:
        """The symbol at or before an address within the kernel's image, and how many bytes behind it that is.

        ``KeyError`` for an address that is elsewhere.
        """
        if self._sorted is None:
            last = self._first.get("_end", U64_MAX)
            rows = sorted((item, index) for index, item in enumerate(self._addresses) if 1 << 63 <= item <= last)
            self._sorted = [row[0] for row in rows], [row[1] for row in rows]
        places, indices = self._sorted
        place = bisect_right(places, address) - 1
        if place < 0 or (address >= places[-1] and "_end" in self._first):
            raise KeyError(f"{address:#x} is not within the kernel's image")
        first = place
        while first and places[first - 1] == places[place]:
            first -= 1
        return self._names[indices[first]][1:], address - places[place]


def tokens_of(table: bytes, index: bytes) -> list[str]:
    """The 256 pieces that bytes stand for. Raises ``IoError`` for a table that cannot be."""
    tokens = []
    for start in struct.unpack(f"<{TOKEN_INDEX_SIZE // 2}H", index):
        end = table.find(b"\0", start, start + _LONGEST_TOKEN)
        if end < 0:
            raise IoError("the kernel's table of symbols is damaged: a token has no end")
        tokens.append(table[start:end].decode("ascii", "replace"))
    return tokens


def symbols_of(candidates: Iterable[PackedSymbols], is_right: Callable[[Callable[[str], int | None]], bool]) -> Symbols:
    """The symbols of the first table, in the first reading, of which ``is_right`` says so: it is asked by name.

    Raises ``IoError`` for tables that are damaged, or of a kind that is not known, ``NotSupportedError`` without any.
    """
    reason: MicrovmiError | None = None
    for packed in islice(candidates, _MOST_TABLES):
        try:
            names = unpacked_names(packed.names, packed.number, packed.tokens)
        except IoError as err:
            reason = err
            continue
        index = _Index(names)
        for addresses in chain.from_iterable(map(_readings, packed.offsets)):
            if is_right(partial(index.address, addresses)):
                return Symbols(addresses, names)
        reason = IoError("the kernel's table of symbols is damaged, or of a kind that is not known")
    raise reason or NotSupportedError("no table of symbols (CONFIG_KALLSYMS) is in the kernel's image")


class _Index:
    """Where a few names are among all, each looked for once."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._known: dict[str, int | None] = {}

    def address(self, addresses: Sequence[int], name: str) -> int | None:
        """The first address of a name."""
        if name not in self._known:
            self._known[name] = next((at for at, item in enumerate(self._names) if item[1:] == name), None)
        place = self._known[name]
        return None if place is None else addresses[place]


def unpacked_names(packed: bytes, count: int, tokens: Sequence[str]) -> list[str]:
    """``count`` names, each with its letter in front. Raises ``IoError`` for what no kernel has."""
    check_number(count)
    text = packed.decode("latin-1")
    table: dict[int, str | int] = {byte: token.replace("\n", "\ufffd") for byte, token in enumerate(tokens)}
    table[ord(_END)] = "\n"
    names: list[str] = []
    position = total = 0
    while len(names) < count:
        pieces, position = _block(packed, text, position, min(count - len(names), _BLOCK))
        block = _END.join(pieces).translate(table)
        total += len(block)
        if total > _MOST_TEXT:
            raise IoError(f"the kernel's table of symbols is damaged: its names are longer than {_MOST_TEXT} bytes")
        names += block.split("\n")
    return names


def check_number(number: int) -> None:
    """Raise ``IoError`` for a number of symbols that no kernel has."""
    if not 0 < number <= MOST_SYMBOLS:
        raise IoError(f"the kernel's table of symbols is damaged: it has {number} of them")


def _block(packed: bytes, text: str, position: int, count: int) -> tuple[list[str], int]:
    """The packed names of ``count`` symbols, and where the next one is."""
    pieces = []
    try:
        for _ in range(count):
            size = packed[position]
            position += 1
            if size & 0x80:
                size = size & 0x7F | packed[position] << 7
                position += 1
            if size > _LONGEST_NAME:
                raise IoError(f"the kernel's table of symbols is damaged: a name is packed into {size} bytes")
            pieces.append(text[position : position + size])
            position += size
    except IndexError:
        position = len(packed) + 1
    if position > len(packed):
        raise IoError("the kernel's table of symbols is damaged: it ends within its names")
    return pieces, position


def _readings(offsets: Offsets) -> Iterator[list[int]]:
    """What offsets may mean: from where each lies, or from a base, with places of a CPU's memory beside or without."""
    signed, base = array("i", offsets.content), offsets.base
    if sys.byteorder == "big":
        signed.byteswap()
    if base is None:
        first = offsets.address
        yield [(first + 4 * index + offset) & U64_MAX for index, offset in enumerate(signed)]
        return
    yield [offset if offset >= 0 else (base - 1 - offset) & U64_MAX for offset in signed]
    yield [(base + (offset & 0xFFFFFFFF)) & U64_MAX for offset in signed]
