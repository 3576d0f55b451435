# SPDX-License-Identifier: Apache-2.0
"""BTF: the types of a kernel, as it carries them for its own tracers.

Records of 12 bytes and more, one a type, numbered from 1. Where each is is found once; what it says is read when
somebody asks.
"""

from __future__ import annotations

import enum
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import IoError, NotSupportedError

MOST_BYTES = 64 << 20
_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_LONGEST_NAME = 511
_MOST_VALUES = 0xFFFF
"""Of one enumeration: more a record could not tell for years."""

MOST_CONSTANTS = 500_000
"""Of all enumerations. A kernel has a fifth of it, but names may overlap, and each be 511 bytes."""

_DEPTH = 32
"""Names for another type, qualifiers, arrays of arrays, structures in structures that are followed, one in another."""


class NoSuchTypeError(NotSupportedError, KeyError):
    """A kernel that has no type, or member, of that name: it is newer, or older, than what is known of kernels."""

    def __str__(self) -> str:
        return str(self.args[0])


class Kind(enum.IntEnum):
    """What a record is."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_EXTRA = {
    Kind.INT: (1, 0),
    Kind.ARRAY: (3, 0),
    Kind.STRUCT: (0, 3),
    Kind.UNION: (0, 3),
    Kind.ENUM: (0, 2),
    Kind.FUNC_PROTO: (0, 2),
    Kind.VAR: (1, 0),
    Kind.DATASEC: (0, 3),
    Kind.DECL_TAG: (1, 0),
    Kind.ENUM64: (0, 3),
}
"""Words of 32 bits that a record has behind its first three: in all, and for each of its items."""

NAMES_OF_OTHERS = (Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG)
"""Kinds that say something of another type, and are as big as that one."""

_COMPOUND = (Kind.STRUCT, Kind.UNION)
_NAMED = {Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.TYPEDEF, Kind.INT}


class Record(NamedTuple):
    """One type. ``size_or_type``: bytes, or the number of the type it is about. ``words``: what follows, 32 bits each.

    ``flag``: of a structure: members tell bits; of an enumeration: its values have signs; of FWD: it is a union.
    """

    number: int
    kind: Kind
    name: str
    size_or_type: int
    flag: bool
    items: int
    words: Sequence[int]


class Member(NamedTuple):
    """A member. ``bit_offset`` is from the structure's start; ``bits`` is the width of a bit field, 0 for others."""

    name: str
    type: int
    bit_offset: int
    bits: int


class Field(NamedTuple):
    """Where a member is: bytes from the start of the structure, bytes, and whether it has a sign."""

    offset: int
    size: int
    signed: bool
    type: int


class Types:
    """The types of a kernel. Raises ``IoError`` for what is no BTF."""

    def __init__(self, content: bytes) -> None:
        self._words, self._strings = _sections(content)
        self._positions: list[int] = [0]
        self._by_name: dict[int, list[int]] = {}
        self._structures: dict[str, Structure] = {}
        self._walk()

    def __len__(self) -> int:
        return len(self._positions) - 1

    def __iter__(self) -> Iterator[Record]:
        return (self.record(number) for number in range(1, len(self._positions)))

    def of(self, *kinds: Kind) -> Iterator[Record]:
        """The types that are of some kinds, without a look at what others say."""
        words = self._words
        for number, position in enumerate(self._positions[1:], 1):
            if words[position + 1] >> 24 & 0x7F in kinds:
                yield self.record(number)

    def _walk(self) -> None:
        words, positions, by_name = self._words, self._positions, self._by_name
        fixed = [_EXTRA.get(kind, (0, 0))[0] + 3 for kind in Kind]
        each = [_EXTRA.get(kind, (0, 0))[1] for kind in Kind]
        named = [kind in _NAMED for kind in Kind]
        position, end = 0, len(words)
        try:
            while position < end:
                info = words[position + 1]
                kind = info >> 24 & 0x7F
                if named[kind] and (name := words[position]):
                    by_name.setdefault(name, []).append(len(positions))
                positions.append(position)
                position += fixed[kind] + each[kind] * (info & 0xFFFFFF)
        except IndexError:
            raise IoError(f"type {len(positions)} of the kernel's BTF is of a kind that is not known") from None
        if position != end:
            raise IoError("the kernel's BTF ends within a type")

    @cached_property
    def _tells_signs(self) -> bool:
        """Whether enumerations say if their values have signs: before 6.0 none does, and all have."""
        infos = (self._words[position + 1] for position in self._positions[1:])
        return any(info >> 31 and info >> 24 & 0x7F in (Kind.ENUM, Kind.ENUM64) for info in infos)

    def record(self, number: int) -> Record:
        """A type by its number; 0 is ``void``. ``IoError`` without one."""
        if number == 0:
            return Record(0, Kind.VOID, "void", 0, False, 0, ())
        if not 0 < number < len(self._positions):
            raise IoError(f"the kernel's BTF has no type {number}")
        position = self._positions[number]
        following = self._positions[number + 1] if number + 1 < len(self._positions) else len(self._words)
        name, info, size = self._words[position : position + 3]
        kind = Kind(info >> 24 & 0x7F)
        words = self._words[position + 3 : following]
        return Record(number, kind, self.text(name), size, bool(info >> 31), info & 0xFFFFFF, words)

    def text(self, offset: int) -> str:
        """A name by its offset."""
        end = self._strings.find(b"\0", offset, offset + _LONGEST_NAME + 1)
        if end < 0:
            raise IoError(f"the kernel's BTF has no name at {offset:#x}")
        return self._strings[offset:end].decode("utf-8", "replace")

    def numbers(self, name: str) -> list[int]:
        """The numbers of structures, unions, enumerations, integers and names for types that have a name."""
        wanted, found = b"\0" + name.encode() + b"\0", []
        at = self._strings.find(wanted)
        while name and at >= 0:
            found += self._by_name.get(at + 1, [])
            at = self._strings.find(wanted, at + 1)
        return found

    def find(self, name: str, *kinds: Kind) -> Record:
        """The first type of a name that is of one of these kinds; ``NoSuchTypeError``, a ``KeyError``, without one."""
        for number in self.numbers(name):
            if (record := self.record(number)).kind in kinds:
                return record
        raise NoSuchTypeError(f"the kernel has no type {name}")

    def struct(self, name: str) -> Structure:
        """A structure or union by its name, or one that stands for it; ``NoSuchTypeError``, a ``KeyError``, else."""
        if (known := self._structures.get(name)) is not None:
            return known
        record = self.find(name, Kind.STRUCT, Kind.UNION, Kind.TYPEDEF)
        found = self._structures[name] = self.structure(record.number)
        return found

    def structure(self, number: int) -> Structure:
        """A structure or union by its number; ``NoSuchTypeError`` for another type."""
        record = self.resolved(number)
        if record.kind not in _COMPOUND:
            raise NoSuchTypeError(f"type {number} of the kernel is no structure")
        return Structure(self, record)

    def enum(self, name: str) -> dict[str, int]:
        """The values of an enumeration by their names; ``NoSuchTypeError``, a ``KeyError``, without one."""
        return self.values(self.find(name, Kind.ENUM, Kind.ENUM64))

    def values(self, record: Record) -> dict[str, int]:
        """The values of an enumeration's record by their names. ``IoError`` for more than any kernel has."""
        if record.items > _MOST_VALUES:
            raise IoError(f"an enumeration of the kernel's BTF has more than {_MOST_VALUES} values")
        words = record.words
        if record.kind is Kind.ENUM64:
            pairs = [(words[at], words[at + 1] | words[at + 2] << 32) for at in range(0, len(words), 3)]
        else:
            pairs = [(words[at], words[at + 1]) for at in range(0, len(words), 2)]
        top = 1 << (63 if record.kind is Kind.ENUM64 else 31)
        signed = record.flag or not self._tells_signs
        return {self.text(name): value - 2 * top if signed and value >= top else value for name, value in pairs}

    def constants(self) -> Iterator[tuple[str, int, int]]:
        """Those of all enumerations: name, number of the type, value. ``IoError`` for more than any kernel has."""
        told = 0
        for record in self.of(Kind.ENUM, Kind.ENUM64):
            told += record.items
            if told > MOST_CONSTANTS:
                raise IoError(f"the kernel's BTF has more than {MOST_CONSTANTS} constants")
            for name, value in self.values(record).items():
                yield name, record.number, value

    def resolved(self, number: int) -> Record:
        """A type without names for it and qualifiers. ``IoError`` for one that leads nowhere."""
        for _ in range(_DEPTH):
            record = self.record(number)
            if record.kind not in NAMES_OF_OTHERS:
                return record
            number = record.size_or_type
        raise IoError(f"type {number} of the kernel's BTF leads from name to name")

    def size_of(self, number: int) -> int:
        """Bytes of a type; 0 for what has none."""
        factor = 1
        for _ in range(_DEPTH):
            record = self.resolved(number)
            if record.kind is not Kind.ARRAY:
                return factor * (8 if record.kind is Kind.PTR else record.size_or_type if has_size(record.kind) else 0)
            factor *= record.words[2]
            number = record.words[0]
        raise IoError(f"type {number} of the kernel's BTF is an array of arrays without an end")

    def is_signed(self, record: Record) -> bool:
        """Whether values of a type have a sign."""
        if record.kind is Kind.INT:
            return bool(record.words[0] >> 24 & 1)
        return record.kind in (Kind.ENUM, Kind.ENUM64) and (record.flag or not self._tells_signs)


def has_size(kind: Kind) -> bool:
    """Whether ``size_or_type`` of a record of a kind is its size in bytes."""
    return kind in (Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.FLOAT, Kind.DATASEC)


class Structure:
    """A structure or union: its size in bytes, and where its members are."""

    def __init__(self, types: Types, record: Record) -> None:
        self.types, self.record = types, record
        self.name, self.size = record.name, record.size_or_type
        self._fields: dict[str, Field] = {}
        self._missing: set[str] = set()

    def members(self) -> Iterator[Member]:
        """The members in their order; those of structures without a name are within a member without one."""
        words, with_bits = self.record.words, self.record.flag
        for at in range(0, len(words), 3):
            offset = words[at + 2]
            bits = offset >> 24 if with_bits else 0
            yield Member(self.types.text(words[at]), words[at + 1], offset & 0xFFFFFF if with_bits else offset, bits)

    def __contains__(self, path: str) -> bool:
        if path in self._missing:
            return False
        try:
            self.field(path)
        except NoSuchTypeError:
            self._missing.add(path)
            return False
        return True

    def offset(self, path: str) -> int:
        """Where ``member``, or ``member.member``, is, in bytes; ``NoSuchTypeError``, a ``KeyError``, without one."""
        return self.field(path).offset

    def field(self, path: str) -> Field:
        """As :meth:`offset`, with the size. Members of structures without a name count as the structure's own."""
        if (known := self._fields.get(path)) is not None:
            return known
        structure, bits = self, 0
        *outer, last = path.split(".")
        for name in outer:
            member, at = structure._member(name)
            bits += at
            structure = self.types.structure(member.type)
        member, at = structure._member(last)
        record = self.types.resolved(member.type)
        size = self.types.size_of(member.type)
        found = Field((bits + at) // 8, size, self.types.is_signed(record), member.type)
        self._fields[path] = found
        return found

    def _member(self, name: str) -> tuple[Member, int]:
        """A member, and where it is in bits; structures without a name are looked into, each once."""
        waiting, seen = [(self, 0)], {self.record.number}
        while waiting:
            structure, start = waiting.pop(0)
            for member in structure.members():
                if member.name == name and name:
                    return member, start + member.bit_offset
                if member.name or (inner := self.types.resolved(member.type)).kind not in _COMPOUND:
                    continue
                if inner.number not in seen:
                    seen.add(inner.number)
                    waiting.append((Structure(self.types, inner), start + member.bit_offset))
        raise NoSuchTypeError(f"{self.name or 'a structure'} of the kernel has no member {name}")


def _sections(content: bytes) -> tuple[array[int], bytes]:
    """The words of the types, and the names."""
    if len(content) < _HEADER.size:
        raise IoError("the kernel's BTF is shorter than its header")
    magic, _, _, head, types_at, types_size, names_at, names_size = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        raise IoError("the kernel's BTF does not begin as BTF does")
    types_at, names_at = types_at + head, names_at + head
    if types_at + types_size > len(content) or names_at + names_size > len(content) or types_size % 4:
        raise IoError("the kernel's BTF is longer than what the kernel has of it")
    words = array("I", content[types_at : types_at + types_size])
    if sys.byteorder == "big":
        words.byteswap()
    return words, content[names_at : names_at + names_size]
