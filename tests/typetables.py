# SPDX-License-Identifier: Apache-2.0
"""BTF made by hand: types one after the other, as a kernel has them in its memory."""

from __future__ import annotations

import struct

from libmicrovmi_py.linux.btf import Kind

MAGIC = 0xEB9F


class TypeTable:
    """A table of types; each function that makes one returns its number."""

    def __init__(self) -> None:
        self._types: list[bytes] = []
        self._names = b"\0"

    def name(self, text: str) -> int:
        """Where a name is among the names; it is put there."""
        if not text:
            return 0
        at = len(self._names)
        self._names += text.encode() + b"\0"
        return at

    def add(self, kind: Kind, name: str, size_or_type: int, *words: int, items: int = 0, flag: bool = False) -> int:
        """Any type; ``words`` are what follows, of 32 bits each."""
        head = struct.pack("<III", self.name(name), items | kind << 24 | flag << 31, size_or_type)
        self._types.append(head + struct.pack(f"<{len(words)}I", *(word & 0xFFFFFFFF for word in words)))
        return len(self._types)

    def integer(self, name: str, size: int, *, signed: bool = False, is_bool: bool = False) -> int:
        """An integer."""
        return self.add(Kind.INT, name, size, (signed | is_bool << 2) << 24 | size * 8)

    def pointer(self, target: int) -> int:
        """A pointer."""
        return self.add(Kind.PTR, "", target)

    def array(self, element: int, count: int) -> int:
        """An array."""
        return self.add(Kind.ARRAY, "", 0, element, 0, count)

    def typedef(self, name: str, target: int) -> int:
        """Another name for a type."""
        return self.add(Kind.TYPEDEF, name, target)

    def structure(self, name: str, size: int, *members: tuple[str, int, int], kind: Kind = Kind.STRUCT) -> int:
        """A structure of members: name, type, and where it begins in bytes."""
        words = [word for member, number, at in members for word in (self.name(member), number, at * 8)]
        return self.add(kind, name, size, *words, items=len(members))

    def bit_fields(self, name: str, size: int, *members: tuple[str, int, int, int]) -> int:
        """A structure of bit fields: name, type, the bit it begins at, and its bits."""
        words = [word for member, number, at, bits in members for word in (self.name(member), number, bits << 24 | at)]
        return self.add(Kind.STRUCT, name, size, *words, items=len(members), flag=True)

    def enumeration(self, name: str, size: int, constants: dict[str, int], *, signed: bool = False) -> int:
        """An enumeration of 32 bits."""
        words = [word for constant, value in constants.items() for word in (self.name(constant), value)]
        return self.add(Kind.ENUM, name, size, *words, items=len(constants), flag=signed)

    def content(self) -> bytes:
        """The table as it is in memory."""
        types = b"".join(self._types)
        head = struct.pack("<HBBIIIII", MAGIC, 1, 0, 24, 0, len(types), len(types), len(self._names))
        return head + types + self._names
