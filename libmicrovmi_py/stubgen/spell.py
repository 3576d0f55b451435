# SPDX-License-Identifier: Apache-2.0
"""How a C type is spelled: as a ctypes expression, and as the annotation of a value, a member or a parameter.

Character pointers are the one place where ctypes asks for a decision, for ``c_char_p`` turns into ``bytes`` and forgets
the address:

- ``const char *`` as a parameter or a result, and any ``char *`` in a struct, is text that is read: ``c_char_p``.
- ``char *`` as a parameter or a result is memory that somebody owns and frees: ``POINTER(c_char)``. ctypes would take
  ``bytes`` for such a parameter as well; the annotation does not.
- ``char **`` and ``const char **`` as parameters receive such memory: ``POINTER(POINTER(c_char))``. ``char *const *``
  and every ``char **`` in a struct is an array of texts that is read: ``POINTER(c_char_p)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cffi import model

from libmicrovmi_py.errors import InvalidArgumentError

PRIMITIVES = {
    "char": "c_char",
    "signed char": "c_byte",
    "unsigned char": "c_ubyte",
    "short": "c_short",
    "unsigned short": "c_ushort",
    "int": "c_int",
    "unsigned int": "c_uint",
    "long": "c_long",
    "unsigned long": "c_ulong",
    "long long": "c_longlong",
    "unsigned long long": "c_ulonglong",
    "float": "c_float",
    "double": "c_double",
    "long double": "c_longdouble",
    "_Bool": "c_bool",
    "size_t": "c_size_t",
    "ssize_t": "c_ssize_t",
    "uintptr_t": "c_size_t",
    "intptr_t": "c_ssize_t",
    "ptrdiff_t": "c_ssize_t",
    "uintmax_t": "c_uint64",
    "intmax_t": "c_int64",
    **{f"{sign}int{bits}_t": f"c_{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_VALUES = {"_Bool": "bool", "char": "bytes", "float": "float", "double": "float", "long double": "float"}


def primitive(kind: Any) -> str:
    """The ctypes type of a C type that is no more than a number."""
    if kind.name not in PRIMITIVES:
        raise InvalidArgumentError(f"{kind.name}: ctypes has no such type; use a fixed-width integer")
    return f"ctypes.{PRIMITIVES[kind.name]}"


def enumeration(kind: Any) -> str:
    """The ctypes integer that holds an enum, as GCC and Clang choose it: unsigned unless a value is negative."""
    low, high = min(kind.enumvalues, default=0), max(kind.enumvalues, default=0)
    if low < 0:
        return "ctypes.c_int" if low >= -(1 << 31) and high < 1 << 31 else "ctypes.c_long"
    return "ctypes.c_uint" if high < 1 << 32 else "ctypes.c_ulong"


def is_character(kind: Any) -> bool:
    return isinstance(kind, model.PrimitiveType) and kind.name == "char"


def is_text(kind: Any) -> bool:
    """Whether a C type is ``char *`` or ``const char *``."""
    return isinstance(kind, model.PointerType) and is_character(kind.totype)


def is_const(kind: Any) -> bool:
    """Whether what a pointer points to is const."""
    return bool(kind.quals & model.Q_CONST)


@dataclass(frozen=True)
class Spelling:
    """A type as a ctypes expression, and the annotation of an instance of it."""

    expression: str
    instance: str


_ADDRESS = Spelling("ctypes.c_void_p", "ctypes.c_void_p")
_TEXT = Spelling("ctypes.c_char_p", "ctypes.c_char_p")
_OWNED = Spelling("ctypes.POINTER(ctypes.c_char)", "ctypes._Pointer[ctypes.c_char]")
_VOID = Spelling("None", "None")


@dataclass
class Speller:
    """Spells types. ``names`` are the Python names of structs, unions and enums, ``callbacks`` of function pointers.

    ``member`` says whether a type stands in a struct (or under a pointer), or is a function's parameter or result.
    """

    names: Mapping[Any, str]
    callbacks: dict[Any, str] = field(default_factory=dict)

    def spell(self, kind: Any, *, member: bool = True) -> Spelling:
        """The spelling of a type; ``InvalidArgumentError`` if ctypes has no such type."""
        if isinstance(kind, model.VoidType):
            return _VOID
        if isinstance(kind, model.ArrayType):
            return self._array(kind)
        if isinstance(kind, model.BaseFunctionType):
            return self._callback(kind)
        if isinstance(kind, model.PointerType):
            return self._pointer(kind, member)
        name = self._name(kind)
        return Spelling(name, name)

    def _name(self, kind: Any) -> str:
        """The name of the class for a number, an enum, a struct or a union."""
        if isinstance(kind, model.EnumType):
            return enumeration(kind)
        if kind in self.names:
            return self.names[kind]
        return primitive(kind)

    def _array(self, kind: Any) -> Spelling:
        """``item * length``; a flexible array at a struct's end has length 0."""
        item = self.spell(kind.item)
        expression = f"({item.expression})" if isinstance(kind.item, model.ArrayType) else item.expression
        return Spelling(f"{expression} * {kind.length or 0}", f"ctypes.Array[{item.instance}]")

    def _callback(self, kind: Any) -> Spelling:
        pointer = kind.as_function_pointer() if kind.is_raw_function else kind
        return Spelling(self.callbacks.get(pointer) or self.function_type(pointer), "ctypes._FuncPointer")

    def function_type(self, kind: Any) -> str:
        """The ``CFUNCTYPE`` of a function pointer."""
        if kind.ellipsis:
            raise InvalidArgumentError(f"{kind!r}: functions with variable arguments are not supported")
        parts = [self.spell(part, member=False).expression for part in (kind.result, *kind.args)]
        return f"ctypes.CFUNCTYPE({', '.join(parts)})"

    def _pointer(self, kind: Any, member: bool) -> Spelling:
        target, read = kind.totype, member or is_const(kind)
        if isinstance(target, model.VoidType):
            return _ADDRESS
        if is_character(target):
            return _TEXT if read else _OWNED
        to = (_TEXT if read else _OWNED) if is_text(target) else self.spell(target)
        return Spelling(f"ctypes.POINTER({to.expression})", f"ctypes._Pointer[{to.instance}]")

    def value(self, kind: Any, *, member: bool = True) -> str:
        """The annotation of what ctypes hands out for a member or a result: a number, bytes, an object."""
        if isinstance(kind, model.PrimitiveType):
            return _VALUES.get(kind.name, "int")
        if isinstance(kind, model.EnumType):
            return "int"
        if isinstance(kind, model.ArrayType) and is_character(kind.item):
            return "bytes"
        spelling = self.spell(kind, member=member)
        return {_ADDRESS: "int | None", _TEXT: "bytes | None"}.get(spelling, spelling.instance)

    def parameter(self, kind: Any) -> str:
        """The annotation of what ctypes takes for a parameter."""
        if not isinstance(kind, model.PointerType):
            return self.value(kind, member=False)
        spelling = self.spell(kind, member=False)
        pointed = spelling.instance.replace("ctypes._Pointer", "_PointerTo", 1)
        return {_ADDRESS: "_Address", _TEXT: "_Text"}.get(spelling, pointed)
