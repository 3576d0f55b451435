# SPDX-License-Identifier: Apache-2.0
"""Reading a C header: from the text a compiler takes to the plain declarations that cffi's ``cdef`` takes.

The header is read as a C compiler without extensions would: no ``__cplusplus``, no ``__GNUC__``, nothing predefined.
Comments, ``#include <...>``, guards and macros without a value go, integer macros stay, each line keeps its number.
A macro with any other value (an initializer, a string, a macro with parameters) is dropped, for it declares nothing.
"""

from __future__ import annotations

import ast
import operator
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libmicrovmi_py.errors import InvalidArgumentError

HEADER_NAME = "libmicrovmi.h"

_SPLICED = re.compile(r"(?:[^\n]*\\\n)+[^\n]*")
_COMMENT = re.compile(r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|/\*.*?\*/|//[^\n]*""", re.DOTALL)
_DIRECTIVE = re.compile(r"\s*#\s*(\w*)\s*(.*?)\s*$")
_DEFINE = re.compile(r"([A-Za-z_]\w*)(\()?\s*(.*)")
_DEFINED = re.compile(r"\bdefined\s*(?:\(\s*(\w+)\s*\)|(\w+))")
_NUMBER = re.compile(r"\b(0[xX][0-9a-fA-F]+|[0-9]+)[uUlL]*\b")
_WORD = re.compile(r"\b[A-Za-z_]\w*\b")

_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
}
_COMPARE: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def find_header(path: str | os.PathLike[str] | None = None) -> Path:
    """The header to read: ``path`` if given, else the installed package's own, else the one of the source tree, or of
    the prefix that ``make install`` laid the package down in, with a folder for the processor or without.

    Raises ``InvalidArgumentError`` if there is no such file.
    """
    package = Path(__file__).resolve().parent
    folders = (package, package.parent, *package.parents[2:4])
    candidates = [Path(path)] if path is not None else [folder / "include" / HEADER_NAME for folder in folders]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = " or ".join(map(str, candidates))
    raise InvalidArgumentError(f"no header at {tried}; give the path of {HEADER_NAME}")


def read_header(path: str | os.PathLike[str]) -> str:
    """The text of a header, which has to be UTF-8; ``InvalidArgumentError`` if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise InvalidArgumentError(f"{path}: not UTF-8 text: {err.reason} at byte {err.start}") from err
    except OSError as err:
        raise InvalidArgumentError(f"{path}: cannot be read: {err.strerror}") from err


def declarations(path: str | os.PathLike[str]) -> str:
    """The declarations in the header at ``path``, for cffi's ``cdef``; see :func:`preprocess` for the errors."""
    return preprocess(read_header(path), os.fspath(path))


def preprocess(text: str, name: str = HEADER_NAME) -> str:
    """The declarations in ``text``, line for line; ``name`` is what errors call it.

    Raises ``InvalidArgumentError`` (``NAME:LINE: reason``) for what cannot be followed: ``#include "..."``,
    ``#pragma pack``, a condition that is no integer expression, conditionals that do not match, an ``#error``.
    """
    reader = _Reader(name)
    plain = _COMMENT.sub(_blank, _SPLICED.sub(_join, text))
    for line in _SPLICED.sub(_join, plain).split("\n"):
        reader.feed(line)
    return reader.finish()


def _join(match: re.Match[str]) -> str:
    """One logical line from lines that end in a backslash, followed by as many empty lines."""
    text = match.group()
    return text.replace("\\\n", " ") + "\n" * text.count("\\\n")


def _blank(match: re.Match[str]) -> str:
    """A comment as one space, its lines spliced as C does it; a literal as it is."""
    return str(match[1]) if match[1] else " " + "\\\n" * match.group().count("\n")


def _python(text: str) -> str:
    """A C expression in Python's spelling; the two have most of their operators in common."""
    text = _NUMBER.sub(lambda match: str(_integer(match[1])), text)
    text = text.replace("&&", " and ").replace("||", " or ")
    return re.sub(r"!(?!=)", " not ", text).strip()


def _integer(digits: str) -> int:
    """The value of a C integer literal without suffix; 08 is none."""
    octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
    return int(digits, 8 if octal else 0)


def _value(node: ast.expr, names: Mapping[str, int]) -> int:
    """The value of an expression of integers; ``KeyError`` or ``ValueError`` if it is none."""
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return int(not _value(operand, names))
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, names), _value(right, names))
        case ast.Compare(left=left, ops=[op_], comparators=[right]):
            return int(_COMPARE[type(op_)](_value(left, names), _value(right, names)))
        case ast.BoolOp(op=op_, values=values):
            combine = all if isinstance(op_, ast.And) else any
            return int(combine(_value(value, names) for value in values))
    raise ValueError(f"unsupported expression {ast.unparse(node)}")


def _evaluate(text: str, names: Mapping[str, int]) -> int | None:
    """The value of a C expression of integers and of macros in ``names``, ``None`` if it is no such expression."""
    try:
        return _value(ast.parse(_python(text), mode="eval").body, names)
    except (SyntaxError, ValueError, KeyError):
        return None


@dataclass
class _Branch:
    """One open conditional: whether lines count now, whether a branch was taken, whether the surroundings count."""

    active: bool
    taken: bool
    outer: bool


@dataclass
class _Reader:
    """The state of the preprocessor: open conditionals, macros by kind, lines so far."""

    name: str
    number: int = 0
    lines: list[str] = field(default_factory=list)
    integers: dict[str, int] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)
    branches: list[_Branch] = field(default_factory=list)

    @property
    def active(self) -> bool:
        return not self.branches or self.branches[-1].active

    def feed(self, line: str) -> None:
        """Take one logical line."""
        self.number += 1
        directive = _DIRECTIVE.match(line)
        if directive:
            self.lines.append(self._directive(directive[1], directive[2]))
        elif self.active:
            self.lines.append(_WORD.sub(lambda match: "" if match[0] in self.empty else match[0], line).rstrip())
        else:
            self.lines.append("")

    def finish(self) -> str:
        if self.branches:
            raise self._error("the file ends inside an #if")
        return "\n".join(self.lines)

    def _error(self, reason: str) -> InvalidArgumentError:
        return InvalidArgumentError(f"{self.name}:{self.number}: {reason}")

    def _directive(self, word: str, rest: str) -> str:
        """What a directive leaves in the output: an integer macro, or an empty line."""
        if word in ("if", "ifdef", "ifndef"):
            self._open(word, rest)
        elif word in ("elif", "else", "endif"):
            self._switch(word, rest)
        elif self.active:
            return self._act(word, rest)
        return ""

    def _open(self, word: str, rest: str) -> None:
        outer = self.active
        taken = outer and self._holds(word, rest)
        self.branches.append(_Branch(active=taken, taken=taken, outer=outer))

    def _switch(self, word: str, rest: str) -> None:
        if not self.branches:
            raise self._error(f"#{word} without #if")
        if word == "endif":
            self.branches.pop()
            return
        branch = self.branches[-1]
        branch.active = branch.outer and not branch.taken and (word == "else" or self._holds("if", rest))
        branch.taken = branch.taken or branch.active

    def _holds(self, word: str, rest: str) -> bool:
        """Whether a condition is true; in an ``#if`` a name that is no macro is 0, as in C."""
        if word != "if":
            return self._is_defined(rest) == (word == "ifdef")
        text = _DEFINED.sub(lambda match: str(int(self._is_defined(match[1] or match[2]))), rest)
        names = dict.fromkeys(_WORD.findall(text), 0) | self.integers
        value = _evaluate(text, names)
        if value is None:
            raise self._error(f"cannot evaluate the condition {rest!r}; use integers, macros and defined()")
        return value != 0

    def _is_defined(self, macro: str) -> bool:
        return macro in self.integers or macro in self.others or macro in self.empty

    def _act(self, word: str, rest: str) -> str:
        if word == "define":
            return self._define(rest)
        if word == "undef":
            self._forget(rest)
        elif word == "include" and not rest.startswith("<"):
            raise self._error(f"#include {rest}: only system headers can be included; the header has to stand alone")
        elif word == "error" or (word == "pragma" and rest != "once"):
            raise self._error(f"#{word} {rest}: cannot be followed")
        elif word not in ("", "include", "pragma"):
            raise self._error(f"#{word}: not a directive of C99")
        return ""

    def _define(self, rest: str) -> str:
        definition = _DEFINE.match(rest)
        if not definition:
            raise self._error(f"#define {rest}: no name")
        name, parameters, body = definition.groups()
        self._forget(name)
        value = None if parameters else _evaluate(body, self.integers)
        if value is not None:
            self.integers[name] = value
            return f"#define {name} {value}"
        (self.others if parameters or body else self.empty).add(name)
        return ""

    def _forget(self, macro: str) -> None:
        self.integers.pop(macro, None)
        self.others.discard(macro)
        self.empty.discard(macro)
