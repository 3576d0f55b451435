# SPDX-License-Identifier: Apache-2.0
"""Tables of kallsyms and of BTF as kernels have them, made of a few symbols and types by another way than ours."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

LAYOUTS = ("5.10", "6.1", "6.12", "7.2")
"""Kernels whose tables are in another order, or mean another thing, than those before."""

PIECES = ["function_", "init_", "sched", "_task", "er", "in", "_n", "on"]
"""What some packed bytes stand for, beside characters."""


@cache
def tokens() -> tuple[str, ...]:
    """Characters of names stand for themselves, everything else for pieces."""
    names = "_.$" + "".join(map(chr, [*range(48, 58), *range(65, 91), *range(97, 123)]))
    found = [chr(byte) if chr(byte) in names else "" for byte in range(256)]
    free = [byte for byte, token in enumerate(found) if not token]
    for number, byte in enumerate(free):
        found[byte] = PIECES[number] if number < len(PIECES) else f"zz{number}"
    return tuple(found)


@cache
def packed(name: str) -> bytes:
    """A name with its letter in front: its size, and what stands for it."""
    table = tokens()
    numbers = sorted(range(256), key=lambda byte: -len(table[byte]))
    content, at = bytearray(), 0
    while at < len(name):
        byte = next(byte for byte in numbers if name.startswith(table[byte], at))
        content.append(byte)
        at += len(table[byte])
    size = len(content)
    return bytes([size] if size < 128 else [size & 0x7F | 0x80, size >> 7]) + bytes(content)


class Kallsyms(NamedTuple):
    """The tables, one behind the other, and where each is among them."""

    content: bytes
    places: dict[str, int]


def kallsyms(
    rows: Sequence[tuple[int, str]], layout: str, address: int, base: int, *, per_cpu: bool = True
) -> Kallsyms:
    """Tables that lie at ``address``; a row is an address and a name with its letter in front.

    ``per_cpu``: addresses below 2**31 are places of a CPU's memory, as x86 kernels until 6.15 have them.
    """
    table, names, markers = tokens(), b"", b""
    for number, (_, name) in enumerate(rows):
        if number % 256 == 0:
            markers += struct.pack("<I", len(names))
        names += packed(name)
    texts = b"".join(token.encode() + b"\0" for token in table)
    index = struct.pack("<256H", *(len("".join(table[:byte])) + byte for byte in range(256)))
    align = 4 if layout == "7.2" else 8
    made = {"num_syms": struct.pack("<I", len(rows)), "names": names, "markers": markers}
    made |= {"token_table": texts, "token_index": index, "offsets": bytes(4 * len(rows)), "relative_base": bytes(8)}
    made["seqs"] = b"\1" * 3 * len(rows)
    content, places = b"", {}
    for name in _order(layout):
        content += bytes(-len(content) % align)
        places[name] = address + len(content)
        content += made[name]
    offsets = [_offset(at, row, layout, places["offsets"], base, per_cpu) for at, row in enumerate(rows)]
    content = _put(content, places["offsets"] - address, struct.pack(f"<{len(rows)}I", *offsets))
    if "relative_base" in places:
        content = _put(content, places["relative_base"] - address, struct.pack("<Q", base))
    return Kallsyms(content, places)


def _order(layout: str) -> tuple[str, ...]:
    names, text = ("num_syms", "names", "markers"), ("token_table", "token_index")
    if layout == "5.10":
        return ("offsets", "relative_base", *names, *text)
    if layout == "6.1":
        return ("offsets", "relative_base", *names, "seqs", *text)
    if layout == "6.12":
        return (*names, *text, "offsets", "relative_base", "seqs")
    return (*names, *text, "offsets", "seqs")


def _offset(number: int, row: tuple[int, str], layout: str, place: int, base: int, per_cpu: bool) -> int:
    if layout == "7.2":
        return row[0] - place - 4 * number & 0xFFFFFFFF
    if not per_cpu:
        return row[0] - base
    return row[0] if row[0] < 1 << 31 else base - 1 - row[0] & 0xFFFFFFFF


def _put(content: bytes, at: int, piece: bytes) -> bytes:
    return content[:at] + piece + content[at + len(piece) :]


class Btf:
    """Types, one after the other; every method returns the number of what it made."""

    def __init__(self) -> None:
        self._types, self._names, self._count = b"", b"\0", 0
        self._known: dict[str, int] = {"": 0}

    def _name(self, name: str) -> int:
        if name not in self._known:
            self._known[name] = len(self._names)
            self._names += name.encode() + b"\0"
        return self._known[name]

    def add(
        self, kind: int, name: str, size_or_type: int, words: Sequence[int] = (), count: int = 0, flag: int = 0
    ) -> int:
        """A type as it is written."""
        head = (self._name(name), flag << 31 | kind << 24 | count, size_or_type)
        self._types += struct.pack(f"<{3 + len(words)}I", *head, *words)
        self._count += 1
        return self._count

    def integer(self, name: str, size: int, signed: bool = False) -> int:
        return self.add(1, name, size, [int(signed) << 24 | size * 8])

    def pointer(self, to: int = 0) -> int:
        return self.add(2, "", to)

    def array(self, of: int, index: int, count: int) -> int:
        return self.add(3, "", 0, [of, index, count])

    def struct(self, name: str, size: int, members: Mapping[str, tuple[int, int]], kind: int = 4) -> int:
        """Members by name: type, and bytes from the start."""
        words = [word for member, (type_, at) in members.items() for word in (self._name(member), type_, at * 8)]
        return self.add(kind, name, size, words, len(members))

    def content(self) -> bytes:
        """All of it."""
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self._types), len(self._types), len(self._names))
        return head + self._types + self._names
