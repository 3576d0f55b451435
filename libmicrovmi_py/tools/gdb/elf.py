# SPDX-License-Identifier: Apache-2.0
"""Files of symbols: an ELF executable with sections that are somewhere else, names for what is in them, and DWARF."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from libmicrovmi_py.declare import NamedTuple

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")

_EXECUTABLE = 2
_PROGBITS, _SYMTAB, _STRTAB, _NOBITS = 1, 2, 3, 8
_WRITE, _ALLOCATED, _EXECUTED = 1, 2, 4
_ABSOLUTE = 0xFFF1
_OBJECT, _FUNCTION = 1, 2
_LOCAL, _GLOBAL, _WEAK = 0, 1, 2

MACHINES = {"x86_64": 62, "aarch64": 183}
"""ELF's numbers of architectures."""


class Section(NamedTuple):
    """Memory that has symbols, from ``start`` up to and without ``end``."""

    name: str
    start: int
    end: int
    code: bool


class Symbol(NamedTuple):
    """``letter`` is as ``nm`` has it."""

    address: int
    letter: str
    name: str


def file_of_symbols(
    architecture: str, sections: Sequence[Section], symbols: Iterable[Symbol], more: Mapping[str, bytes]
) -> bytes:
    """The file. ``sections`` are ascending and do not overlap; ``more`` are sections of content, by their name."""
    table, names = _symbols(sections, sorted(symbols))
    parts = [(".symtab", _SYMTAB, table), (".strtab", _STRTAB, names)]
    parts += [(name, _PROGBITS, content) for name, content in more.items()]
    titles, places = _texts([*(section.name for section in sections), *(name for name, _, _ in parts), ".shstrtab"])
    parts.append((".shstrtab", _STRTAB, titles))
    rows = [_SECTION.pack(*[0] * 10)]
    for section, title in zip(sections, places, strict=False):
        flags = _ALLOCATED | (_EXECUTED if section.code else _WRITE)
        size = section.end - section.start
        rows.append(_SECTION.pack(title, _NOBITS, flags, section.start, _HEADER.size, size, 0, 0, 16, 0))
    body = bytearray()
    strings = len(sections) + 2
    for (_, kind, content), title in zip(parts, places[len(sections) :], strict=True):
        link, one, size = (strings, 1, _SYMBOL.size) if kind == _SYMTAB else (0, 0, 0)
        rows.append(_SECTION.pack(title, kind, 0, 0, _HEADER.size + len(body), len(content), link, one, 8, size))
        body += content + bytes(-len(content) % 8)
    where = _HEADER.size + len(body)
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    about = (_HEADER.size, 0, 0, _SECTION.size, len(rows), len(rows) - 1)
    head = _HEADER.pack(ident, _EXECUTABLE, MACHINES[architecture], 1, 0, 0, where, 0, *about)
    return b"".join((head, body, *rows))


def _texts(names: Iterable[str]) -> tuple[bytes, list[int]]:
    """A table of texts, and where in it each is."""
    pieces, places, at = [b""], [], 1
    for name in names:
        piece = name.encode("ascii")
        pieces.append(piece)
        places.append(at)
        at += len(piece) + 1
    return b"\0".join(pieces) + b"\0", places


def _symbols(sections: Sequence[Section], symbols: Sequence[Symbol]) -> tuple[bytes, bytes]:
    names, places = _texts(symbol.name for symbol in symbols)
    starts = [section.start for section in sections]
    rows = [_SYMBOL.pack(0, 0, 0, 0, 0, 0)]
    ends = _ends(symbols)
    for symbol, place, end in zip(symbols, places, ends, strict=True):
        number = bisect_right(starts, symbol.address) - 1
        inside = number >= 0 and symbol.address < sections[number].end
        limit = sections[number].end if inside else symbol.address
        kind = _FUNCTION if inside and sections[number].code else _OBJECT
        binding = _WEAK if symbol.letter in "wWvV" else _GLOBAL if symbol.letter.isupper() else _LOCAL
        size = max(min(end, limit) - symbol.address, 0)
        section = number + 1 if inside else _ABSOLUTE
        rows.append(_SYMBOL.pack(place, binding << 4 | kind, 0, section, symbol.address, size))
    return b"".join(rows), names


def _ends(symbols: Sequence[Symbol]) -> list[int]:
    """Where the next symbol is that is not at the same address; the last ends where it begins."""
    ends, after, last = [], 0, 0
    for symbol in reversed(symbols):
        if symbol.address != last:
            after, last = last or symbol.address, symbol.address
        ends.append(after)
    return ends[::-1]
