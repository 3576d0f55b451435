# SPDX-License-Identifier: Apache-2.0
"""A symbol file of volatility (Intermediate Symbol Format 6.2) out of what a kernel knows of itself: BTF and kallsyms.

All of it is a guest's word. Names and numbers are kept as they are, what is built of them is bounded, and members of
structures without a name are members of the structure around them, so that volatility has nothing to follow.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from libmicrovmi_py.errors import IoError
from libmicrovmi_py.linux.btf import Kind, Record, Types
from libmicrovmi_py.tools.declarations import Declarations
from libmicrovmi_py.tools.variables import VARIABLES
from libmicrovmi_py.version import __version__

MOST_MEMBERS = 500_000
"""Members and constants of all types together; kernels of distributions have some 70,000."""

MOST_SYMBOLS = 2_000_000

DEPTH = 32
"""Pointers to pointers, arrays of arrays and structures within structures that are followed."""

_COMPOUND = {Kind.STRUCT: "struct", Kind.UNION: "union"}
_ENUMS = (Kind.ENUM, Kind.ENUM64)
_ALIASED = (*_COMPOUND, *_ENUMS)
_CHARS = ("char", "signed char", "unsigned char")
_VOID = {"kind": "base", "name": "void"}
_INTEGERS = {
    (1, False): "unsigned char",
    (1, True): "signed char",
    (2, False): "short unsigned int",
    (2, True): "short int",
    (4, False): "unsigned int",
    (4, True): "int",
    (8, False): "long unsigned int",
    (8, True): "long int",
}

Described = dict[str, Any]
"""A type, a member or a symbol, in the format's words."""


def symbol_file(
    types: Types, symbols: Iterable[tuple[int, str]], banner: bytes, source: str, *, most: int = MOST_MEMBERS
) -> Described:
    """The file's content. ``symbols``: addresses and names without KASLR; ``banner``: ``linux_banner`` with its NUL.

    ``source`` says of what it was made; ``most`` members and constants are told.
    Raises ``IoError`` for types that lead nowhere or are too many.
    """
    converter = Converter(types, most)
    user_types = converter.user_types()
    where = [{"kind": "symtab", "name": source, "hash_type": "sha256", "hash_value": ""}]
    return {
        "metadata": {
            "linux": {"symbols": where, "types": []},
            "producer": {"name": "microvmi", "version": __version__},
            "format": "6.2.0",
        },
        "symbols": _symbols(symbols, converter, banner),
        "enums": converter.enums(),
        "user_types": user_types,
        "base_types": converter.base_types,
    }


class Converter:
    """One pass over the types of a kernel."""

    def __init__(self, types: Types, most: int) -> None:
        self._types = types
        self._room, self._most = most, most
        self._described: dict[int, Described] = {0: _VOID}
        self._steps: dict[int, int] = {}  # how many types are within each of these
        self.base_types: dict[str, Described] = {"void": _base(0, "void", signed=False)}
        self.base_types["pointer"] = _base(8, "int", signed=False)
        for (size, signed), name in _INTEGERS.items():
            self.base_types[name] = _base(size, "char" if name in _CHARS else "int", signed=signed)
        self._compounds: list[Record] = []
        self._enums: list[Record] = []
        self._variables: list[Record] = []
        self._aliases: list[tuple[str, Record]] = []
        self._sort()
        self._names = self._nameless()

    def _sort(self) -> None:
        """Keep the records that are wanted; integers are told at once."""
        for record in self._types.of(*_COMPOUND, *_ENUMS, Kind.TYPEDEF, Kind.INT, Kind.FLOAT, Kind.VAR):
            if record.kind in _COMPOUND:
                self._compounds.append(record)
            elif record.kind in _ENUMS:
                self._enums.append(record)
            elif record.kind is Kind.TYPEDEF:
                target = self._types.record(record.size_or_type)
                if target.kind in _ALIASED:
                    self._aliases.append((record.name, target))
            elif record.kind is Kind.INT:
                encoding = record.words[0] >> 24
                kind = "bool" if encoding & 4 else "char" if record.name in _CHARS else "int"
                self.base_types[record.name] = _base(record.size_or_type, kind, signed=bool(encoding & 1))
            elif record.kind is Kind.FLOAT:
                self.base_types[record.name] = _base(record.size_or_type, "float", signed=True)
            elif record.kind is Kind.VAR:
                self._variables.append(record)

    def _nameless(self) -> dict[int, str]:
        """What types without a name are called: as the first name that stands for them, which nobody else has."""
        taken = {record.name for record in (*self._compounds, *self._enums)}
        names: dict[int, str] = {}
        for name, target in self._aliases:
            if not target.name and name not in taken and target.number not in names:
                names[target.number] = name
                taken.add(name)
        return names

    def _name(self, record: Record) -> str:
        return record.name or self._names.get(record.number) or f"unnamed_{record.number}"

    def user_types(self) -> dict[str, Described]:
        """All structures and unions by their names; of several with one name the first."""
        found: dict[str, Described] = {}
        for record in self._compounds:
            if (name := self._name(record)) not in found:
                fields: dict[str, Described] = {}
                self._fill(fields, record, 0, 0)
                found[name] = {"size": record.size_or_type, "fields": fields, "kind": _COMPOUND[record.kind]}
        for alias, target in self._aliases:
            if target.kind in _COMPOUND and alias not in found:
                found[alias] = found[self._name(target)]
                self._spend(len(found[alias]["fields"]))  # the file has them again
        return found

    def _fill(self, fields: dict[str, Described], record: Record, start: int, depth: int) -> None:
        """Put the members of a structure that begins at bit ``start`` of another, or of itself, into ``fields``."""
        if depth > DEPTH:
            raise IoError("a structure of the kernel's BTF is in itself")
        for member in self._types.structure(record.number).members():
            self._spend()
            bit = start + member.bit_offset
            if member.name:
                fields[member.name] = self._field(member.type, bit, member.bits)
            elif (inner := self._types.resolved(member.type)).kind in _COMPOUND:
                self._fill(fields, inner, bit, depth + 1)

    def _field(self, number: int, bit: int, bits: int) -> Described:
        described = self.described(number)
        if not bits:
            return {"type": described, "offset": bit // 8}
        unit = 8 * (self._types.size_of(number) or 4)
        place = bit // unit * unit
        field = {"kind": "bitfield", "bit_position": bit - place, "bit_length": bits, "type": described}
        return {"type": field, "offset": place // 8}

    def enums(self) -> dict[str, Described]:
        """All enumerations by their names; of several with one name the first."""
        found: dict[str, Described] = {}
        for record in self._enums:
            if (name := self._name(record)) not in found:
                constants = self._types.values(record)
                self._spend(len(constants))
                signed = any(value < 0 for value in constants.values())
                base = _INTEGERS.get((record.size_or_type, signed), "unsigned int")
                found[name] = {"size": record.size_or_type, "base": base, "constants": constants}
        return found

    def variables(self) -> dict[str, Described]:
        """The types of those variables of which the kernel tells them, by name: those that each vCPU has."""
        return {record.name: self.described(record.size_or_type) for record in self._variables}

    def declared(self, name: str, room: int) -> Described | None:
        """The type of a variable of the table, ``None`` for others and for types that the kernel has not.

        ``room``: bytes until the next symbol.
        """
        if name not in VARIABLES:
            return None
        number, stars, count = Declarations(self._types).find(VARIABLES[name])
        if number is None:
            return None
        described = self.described(number)
        for _ in range(stars):
            described = {"kind": "pointer", "subtype": described}
        if count is None:
            return described
        size = 8 if stars else self._types.size_of(number)
        elements = count if count >= 0 else min(room, 1 << 20) // max(size, 1)
        return {"kind": "array", "count": elements, "subtype": described}

    def described(self, number: int, depth: int = 0) -> Described:
        """A type by its number, as others name it. ``IoError`` for pointers to pointers and arrays without an end."""
        if (known := self._described.get(number)) is not None:
            return known
        if depth > DEPTH:
            raise IoError(f"type {number} of the kernel's BTF has no end")
        record = self._types.resolved(number)
        found = self._describe(record, depth + 1)
        self._steps[number] = 1 + (self._steps.get(_below(record), 0))
        if self._steps[number] > DEPTH:
            raise IoError(f"type {number} of the kernel's BTF has no end")
        self._described[number] = found
        return found

    def _describe(self, record: Record, depth: int) -> Described:
        kind = record.kind
        if kind in (Kind.INT, Kind.FLOAT):
            return {"kind": "base", "name": record.name}
        if kind in _COMPOUND:
            return {"kind": _COMPOUND[kind], "name": self._name(record)}
        if kind in _ENUMS:
            return {"kind": "enum", "name": self._name(record)} if record.items else {"kind": "base", "name": "int"}
        if kind is Kind.FWD:
            return {"kind": "union" if record.flag else "struct", "name": record.name}
        if kind is Kind.PTR:
            return {"kind": "pointer", "subtype": self.described(record.size_or_type, depth)}
        if kind is Kind.ARRAY:
            return {"kind": "array", "count": record.words[2], "subtype": self.described(record.words[0], depth)}
        return {"kind": "function"} if kind in (Kind.FUNC, Kind.FUNC_PROTO) else _VOID

    def _spend(self, members: int = 1) -> None:
        self._room -= members
        if self._room < 0:
            raise IoError(f"the kernel's BTF has more than {self._most} members")


def _symbols(symbols: Iterable[tuple[int, str]], converter: Converter, banner: bytes) -> dict[str, Described]:
    """All symbols; of several with one name the first."""
    ordered = sorted(symbols)
    if len(ordered) > MOST_SYMBOLS:
        raise IoError(f"the kernel has more than {MOST_SYMBOLS} symbols")
    found: dict[str, Described] = {}
    types: Mapping[str, Described] = converter.variables()
    for at, (address, name) in enumerate(ordered):
        if name not in found:
            room = ordered[at + 1][0] - address if at + 1 < len(ordered) else 0
            described = types.get(name) or converter.declared(name, room) or _VOID
            found[name] = {"type": described, "address": address}
    text = {"kind": "array", "count": len(banner), "subtype": {"kind": "base", "name": "char"}}
    if "linux_banner" in found:
        found["linux_banner"].update(type=text, constant_data=base64.b64encode(banner).decode())
    return found


def _below(record: Record) -> int:
    """The type that a pointer leads to, or that an array is of; 0 for others."""
    if record.kind is Kind.PTR:
        return record.size_or_type
    return record.words[0] if record.kind is Kind.ARRAY else 0


def _base(size: int, kind: str, *, signed: bool) -> Described:
    return {"size": size, "signed": signed, "kind": kind, "endian": "little"}
