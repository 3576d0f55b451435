# SPDX-License-Identifier: Apache-2.0
"""What a header declares, by cffi's own parser and in cffi's own types, each with its name in Python."""

from __future__ import annotations

import keyword
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cffi import CDefError, FFIError, cparser, model

from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.header import preprocess

RESERVED = frozenset({"self", "cdll", "result"})
"""Names that the methods of the generated ``Library`` need for themselves."""


@dataclass(frozen=True)
class Function:
    """A function: its name, its type, the Python names of its parameters."""

    name: str
    type: Any
    parameters: tuple[str, ...]


@dataclass
class Header:
    """What a header declares; ``records`` are structs and unions, each after those it holds by value."""

    constants: dict[str, int] = field(default_factory=dict)
    enums: dict[str, Any] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)
    aliases: dict[str, Any] = field(default_factory=dict)
    functions: list[Function] = field(default_factory=list)
    names: dict[Any, str] = field(default_factory=dict)


def identifier(name: str, reserved: frozenset[str] = frozenset()) -> str:
    """``name``, with an underscore behind it where it is a keyword of Python or ``reserved``."""
    return name + "_" if keyword.iskeyword(name) or name in reserved else name


def parse(text: str, name: str) -> Header:
    """Read a header's text; ``name`` is what errors call it.

    Raises ``InvalidArgumentError`` for what the preprocessor or cffi cannot read, and for global variables.
    """
    parser = cparser.Parser()
    plain = preprocess(text, name)
    try:
        parser.parse(plain)
        tree = cparser.Parser()._parse(plain)[0]
    except (CDefError, FFIError, NotImplementedError) as err:
        reason = " ".join(str(err.args[0] if err.args else err).split())
        raise InvalidArgumentError(f"{name}: cffi cannot read it: {reason}") from err
    header = Header()
    parameters = _parameter_names(tree)
    for key, (item, _quals) in parser._declarations.items():
        kind, _, declared = key.partition(" ")
        _add(header, kind, declared, item, parameters, name)
    enumerators = {item for enum in header.enums.values() for item in enum.enumerators}
    header.constants = {key: value for key, value in parser._int_constants.items() if key not in enumerators}
    return header


def _add(header: Header, kind: str, name: str, item: Any, parameters: dict[str, tuple[str, ...]], file: str) -> None:
    """Put one declaration of cffi's parser where it belongs."""
    if kind == "function":
        unnamed = tuple(f"arg{index}" for index in range(len(item.args)))
        header.functions.append(Function(name, item, parameters.get(name, unnamed)[: len(item.args)]))
    elif isinstance(item, model.StructOrUnion) and kind != "typedef":
        _add_record(header, item, name)
    elif isinstance(item, model.EnumType) and kind != "typedef":
        _add_enum(header, item, name)
    elif kind == "typedef":
        _add_alias(header, name, item)
    elif kind != "macro":
        raise InvalidArgumentError(
            f"{file}: {kind} {name}: global variables are not supported; offer a function for it"
        )


def _add_enum(header: Header, item: Any, name: str) -> None:
    """An enum with a name; the values of one without are plain constants."""
    if not name.startswith("$"):
        header.enums[name] = item
        header.names[item] = identifier(name)


def _add_alias(header: Header, name: str, item: Any) -> None:
    """A typedef, unless it only repeats the tag of its struct, union or enum."""
    if header.names.get(item) != name:
        header.aliases[name] = item


def _add_record(header: Header, item: Any, name: str) -> None:
    """A struct or union, after its members without a name of their own and those it holds by value."""
    if item in header.names:
        return
    header.names[item] = identifier(name)
    for index, (member, kind) in enumerate(zip(item.fldnames or (), item.fldtypes or (), strict=True)):
        held, by_value = _held(kind)
        if isinstance(held, model.StructOrUnion) and (by_value or "$" in held.name):
            _add_record(header, held, _record_name(held) or f"{name}_{member or f'unnamed{index}'}")
        if by_value and isinstance(held, model.StructOrUnion) and held.fldnames is None:
            raise InvalidArgumentError(f"{name}.{member}: a member of type {held!r}, which the header does not define")
    header.records[name] = item


def _record_name(item: Any) -> str | None:
    """The tag of a struct or union, or the typedef that stands for it, if it has any."""
    name = item.forcename if "$" in item.name else item.name
    return str(name) if name else None


def _held(kind: Any) -> tuple[Any, bool]:
    """What a member of type ``kind`` is made of below arrays and pointers, and whether no pointer lies between."""
    by_value = True
    while isinstance(kind, model.ArrayType | model.PointerType):
        by_value = by_value and isinstance(kind, model.ArrayType)
        kind = kind.item if isinstance(kind, model.ArrayType) else kind.totype
    return kind, by_value


def _parameter_names(tree: Any) -> dict[str, tuple[str, ...]]:
    """The names of every function's parameters; one without a name is called after its place."""
    found: dict[str, tuple[str, ...]] = {}
    for node in tree.ext:
        if type(node.type).__name__ == "FuncDecl":
            found[node.name] = tuple(_names(node.type.args.params if node.type.args else ()))
    return found


def _names(parameters: Iterable[Any]) -> Iterable[str]:
    for index, parameter in enumerate(parameters):
        yield identifier(getattr(parameter, "name", None) or f"arg{index}", RESERVED)
