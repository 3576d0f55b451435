# SPDX-License-Identifier: Apache-2.0
"""The tables of kallsyms by their shape, in a kernel that does not name them: before 6.0, or without a note.

Digits stand for themselves in the table of tokens, one behind the other; the index behind it says where it begins. In
front of it lie the places of every 256th name, and right in front of these the names with their number. The addresses
are in front of that number, or, since 6.4, behind the index.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.linux import kallsyms
from libmicrovmi_py.linux.kallsyms import Offsets, PackedSymbols

_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_MOST_PLACES = 16
"""How many texts that look like the digits of a table of tokens are looked at."""

_MOST_RUNS = 4096
"""How many that look like markers."""

_MOST_TRIED = 16
"""How many of these, and of the numbers of names that fit, are tried."""

_TOKENS = 256
_MARKED = 256
"""Names from one marker to the next."""

_MARKERS = re.compile(rb"\0{4}(?:(?!\0\0)..\0\0){4}", re.DOTALL)
"""The first of them."""

_LONGEST_TAIL = 1 << 16
"""Bytes of 256 packed names."""

_FARTHEST = 4 << 20
"""Bytes between the markers and the tokens; some kernels have the order of the names there, three bytes each."""

_BY_CHANCE = 3
"""Words that may look like markers behind the last."""


class _Tokens(NamedTuple):
    """Where the table of tokens begins and the index behind it ends, and the tokens."""

    start: int
    end: int
    tokens: list[str]


def found(image: bytearray, address: int) -> Iterator[PackedSymbols]:
    """The tables in a part of the kernel that lies at ``address``, which is a page's."""
    at = image.find(_DIGITS)
    for _ in range(_MOST_PLACES):
        if at < 0:
            return
        if (tokens := _tokens(image, at)) is not None:
            yield from _names(image, address, tokens)
        at = image.find(_DIGITS, at + 1)


def _tokens(image: bytearray, digits: int) -> _Tokens | None:
    """The table of tokens around the digits, if that is what they are in."""
    end = digits
    for _ in range(_TOKENS - ord("0")):
        end = image.find(b"\0", end) + 1
        if not 0 < end <= digits + kallsyms.TOKEN_TABLE_SIZE:
            return None
    for index_at in {end + 3 & ~3, end + 7 & ~7}:
        index = bytes(image[index_at : index_at + kallsyms.TOKEN_INDEX_SIZE])
        if len(index) < kallsyms.TOKEN_INDEX_SIZE:
            continue
        start = digits - struct.unpack_from("<H", index, 2 * ord("0"))[0]
        if start >= 0 and index[:2] == b"\0\0" and _is_index(bytes(image[start:end]), index):
            return _Tokens(
                start, index_at + kallsyms.TOKEN_INDEX_SIZE, kallsyms.tokens_of(bytes(image[start:end]), index)
            )
    return None


def _is_index(table: bytes, index: bytes) -> bool:
    """Whether every token begins where the one before it ends."""
    starts = struct.unpack(f"<{_TOKENS}H", index)
    ends = [*starts[1:], len(table)]
    return all(start < end and table.find(b"\0", start) == end - 1 for start, end in zip(starts, ends, strict=True))


def _markers(image: bytearray, tokens: int) -> list[tuple[int, list[int]]]:
    """What may be the places of every 256th name in front of the tokens: where they are, and the places; longest first.

    Some more may follow by chance.
    """
    starts = (start.start() for start in _MARKERS.finditer(image, max(tokens - _FARTHEST, 0), tokens))
    rows = [(at, _rising(memoryview(image)[at:tokens])) for at in islice(starts, _MOST_RUNS) if not at % 4]
    return sorted(rows, key=lambda row: len(row[1]), reverse=True)


def _rising(words: memoryview) -> list[int]:
    """Zero, and the words behind it as long as each is larger than the one before by what 256 names may have."""
    found = [0]
    most = min(len(words) // 4, kallsyms.MOST_SYMBOLS // _MARKED)
    for (value,) in islice(struct.iter_unpack("<I", words[: 4 * most]), 1, None):
        if not _MARKED <= value - found[-1] <= _LONGEST_TAIL:
            break
        found.append(value)
    return found


def _names(image: bytearray, address: int, tokens: _Tokens) -> Iterator[PackedSymbols]:
    """The names in front of the tokens, with each number of them that fits."""
    for behind, markers in _markers(image, tokens.start)[:_MOST_TRIED]:
        view = memoryview(image)[:behind]
        for at in islice(_numbers(image, behind, markers), _MOST_TRIED):
            number = int.from_bytes(image[at : at + 4], "little")
            for start in (at + 4, at + 8):
                if _are_names(view[start:], markers, number):
                    offsets = list(_offsets(image, address, at, number, tokens.end))
                    yield PackedSymbols(number, bytes(view[start:]), tokens.tokens, offsets)


def _numbers(image: bytearray, behind: int, markers: list[int]) -> Iterator[int]:
    """Where a number of names lies that goes with the markers behind these."""
    most, last = _MARKED * len(markers), (behind - markers[max(len(markers) - _BY_CHANCE, 0)] - 4) & ~3
    for at in range(last, max(behind - markers[-1] - _LONGEST_TAIL, 0), -4):
        if most - _BY_CHANCE * _MARKED < int.from_bytes(image[at : at + 4], "little") <= most:
            yield at


def _are_names(names: memoryview, markers: list[int], number: int) -> bool:
    """Whether the first 256 names end where the markers say, and the last where the markers begin."""
    block, rest = divmod(number - 1, _MARKED)
    if not 0 < block < len(markers) or _behind(names, 0, _MARKED) != markers[1]:
        return False
    return len(names) - 8 < _behind(names, markers[block], rest + 1) <= len(names)


def _behind(names: memoryview, position: int, count: int) -> int:
    """Where ``count`` names end; -1 if they do not."""
    try:
        for _ in range(count):
            size = names[position]
            position += 1
            if size & 0x80:
                size = size & 0x7F | names[position] << 7
                position += 1
            position += size
    except IndexError:
        return -1
    return position


def _offsets(image: bytearray, address: int, number_at: int, number: int, behind: int) -> Iterator[Offsets]:
    """Where the addresses may be: in front of the number of names, or behind the index; with a base or without."""
    size = 4 * number
    for base_at in (number_at - 8, number_at - 12):
        start = base_at - (size + 7 & ~7)
        if start >= 0:
            yield Offsets(bytes(image[start : start + size]), address + start, _base(image, base_at))
    base_at = behind + size + 7 & ~7
    content = bytes(image[behind : behind + size])
    if len(content) == size:
        yield Offsets(content, address + behind, _base(image, base_at))
        yield Offsets(content, address + behind, None)


def _base(image: bytearray, at: int) -> int:
    return int.from_bytes(image[at : at + 8], "little")
