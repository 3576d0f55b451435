# SPDX-License-Identifier: Apache-2.0
"""Types for drgn out of a kernel's BTF, each made when it is first asked for.

A guest tells them, so nothing is followed without an end: members of structures are made when somebody looks at them,
and how deep one type may lie in another is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import drgn

from libmicrovmi_py.errors import IoError, escaped
from libmicrovmi_py.linux.btf import Kind, Member, Record, Types

DEPTH = 32
"""Pointers to pointers, arrays of arrays, names for names that are followed."""

_QUALIFIERS = {
    Kind.CONST: drgn.Qualifiers.CONST,
    Kind.VOLATILE: drgn.Qualifiers.VOLATILE,
    Kind.RESTRICT: drgn.Qualifiers.RESTRICT,
}
_ENUMS = (Kind.ENUM, Kind.ENUM64)
_KINDS = {
    drgn.TypeKind.INT: (Kind.INT,),
    drgn.TypeKind.BOOL: (Kind.INT,),
    drgn.TypeKind.FLOAT: (Kind.FLOAT,),
    drgn.TypeKind.STRUCT: (Kind.STRUCT,),
    drgn.TypeKind.UNION: (Kind.UNION,),
    drgn.TypeKind.ENUM: _ENUMS,
    drgn.TypeKind.TYPEDEF: (Kind.TYPEDEF,),
}
_INTEGERS = {1: "char", 2: "short", 4: "int", 8: "long"}


class TypeMaker:
    """Types of drgn by their numbers in a kernel's BTF."""

    def __init__(self, prog: drgn.Program, types: Types) -> None:
        self._prog, self._types = prog, types
        self._made: dict[int, drgn.Type] = {0: prog.void_type()}

    def find(self, kinds: Sequence[drgn.TypeKind], name: str) -> drgn.Type | None:
        """The first type of a name that is of one of these kinds, if there is any."""
        wanted = {kind for told in kinds for kind in _KINDS.get(told, ())}
        for number in self._types.numbers(name):
            if self._types.record(number).kind in wanted:
                made = self.made(number)
                if made.kind in kinds:
                    return made
        return None

    def made(self, number: int, depth: int = 0) -> drgn.Type:
        """The type of a number. ``IoError`` for one that leads on and on."""
        if (known := self._made.get(number)) is not None:
            return known
        if depth > DEPTH:
            raise IoError(f"type {number} of the kernel's BTF has no end")
        found = self._made[number] = self._make(self._types.record(number), depth + 1)
        return found

    def _make(self, record: Record, depth: int) -> drgn.Type:
        kind, prog = record.kind, self._prog
        if kind in (Kind.STRUCT, Kind.UNION):
            make = prog.struct_type if kind is Kind.STRUCT else prog.union_type
            return make(_shown(record.name), record.size_or_type, self._members(record))
        if kind is Kind.INT:
            return self._integer(record)
        if kind in _ENUMS:
            return self._enumeration(record)
        if kind is Kind.FWD:
            return (prog.union_type if record.flag else prog.struct_type)(_shown(record.name))
        if kind is Kind.ARRAY:
            element, count = self.made(record.words[0], depth), record.words[2]
            return prog.array_type(element, count) if count else prog.array_type(element)
        if kind is Kind.FLOAT:
            return prog.float_type(escaped(record.name), record.size_or_type)
        return self._make_of_another(record, depth)

    def _make_of_another(self, record: Record, depth: int) -> drgn.Type:
        """A type that says something of another."""
        kind, prog = record.kind, self._prog
        if kind is Kind.FUNC_PROTO:
            return self._function(record, depth)
        if kind is Kind.PTR:
            return prog.pointer_type(self.made(record.size_or_type, depth))
        if kind is Kind.TYPEDEF:
            return prog.typedef_type(escaped(record.name), self.made(record.size_or_type, depth))
        if kind in _QUALIFIERS:
            inner = self.made(record.size_or_type, depth)
            return inner.qualified(inner.qualifiers | _QUALIFIERS[kind])
        if kind in (Kind.TYPE_TAG, Kind.FUNC, Kind.VAR):
            return self.made(record.size_or_type, depth)
        raise IoError(f"type {record.number} of the kernel's BTF is none: {kind.name}")

    def _integer(self, record: Record) -> drgn.Type:
        encoding = record.words[0] >> 24
        if encoding & 4:
            return self._prog.bool_type(escaped(record.name), record.size_or_type)
        return self._prog.int_type(escaped(record.name), record.size_or_type, bool(encoding & 1))

    def _enumeration(self, record: Record) -> drgn.Type:
        values = self._types.values(record)
        signed = any(value < 0 for value in values.values())
        name = f"{'' if signed else 'unsigned '}{_INTEGERS.get(record.size_or_type, 'int')}"
        base = self._prog.int_type(name, record.size_or_type, signed)
        if not values:
            return self._prog.enum_type(_shown(record.name))
        constants = [drgn.TypeEnumerator(escaped(constant), value) for constant, value in values.items()]
        return self._prog.enum_type(_shown(record.name), base, constants)

    def _function(self, record: Record, depth: int) -> drgn.Type:
        words = record.words
        parameters = [
            drgn.TypeParameter(self._later(words[at + 1], depth), _shown(self._types.text(words[at])))
            for at in range(0, len(words), 2)
            if words[at + 1]
        ]
        variadic = len(words) > 1 and not words[-1]
        return self._prog.function_type(self.made(record.size_or_type, depth), parameters, variadic)

    def _members(self, record: Record) -> list[drgn.TypeMember]:
        return [self._member(member) for member in self._types.structure(record.number).members()]

    def _member(self, member: Member) -> drgn.TypeMember:
        name, bits = _shown(member.name), member.bits
        if not bits:
            return drgn.TypeMember(self._later(member.type), name, member.bit_offset)
        return drgn.TypeMember(
            lambda: drgn.Object(self._prog, self.made(member.type), bit_field_size=bits), name, member.bit_offset
        )

    def _later(self, number: int, depth: int = 0) -> Callable[[], drgn.Type]:
        return lambda: self.made(number, depth)


def _shown(name: str) -> str | None:
    """A name of the guest's, safe for a terminal; ``None`` for what has none."""
    return escaped(name) if name else None
