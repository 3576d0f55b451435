# SPDX-License-Identifier: Apache-2.0
"""What can be run on a machine: functions of ours, by name, and the user's own.

A function gets an open machine and words, and returns what JSON can say, or yields such items, which are taken one by
one until there are more than may be. Bytes become hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import importlib
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import PAGE_SIZE
from libmicrovmi_py.tools.scan.patterns import Pattern
from libmicrovmi_py.tools.scan.pieces import pieces

Function = Callable[..., Any]

DIGEST = 8
"""Bytes of a page's hash: among a billion pages hardly two different ones have the same."""

MOST_PATTERNS = 64
MOST_SOURCE = 1 << 20
"""Bytes of a file of the user's own."""

_ZEROS = bytes(PAGE_SIZE)


def pattern(machine: Microvmi, *words: str) -> Iterator[dict[str, object]]:
    """Where texts, or bytes, are: ``address`` and ``pattern`` of every match, see :class:`Pattern`."""
    if not 0 < len(words) <= MOST_PATTERNS:
        raise InvalidArgumentError(f"pattern: which one? A text, or hex:4D5A??00; {MOST_PATTERNS} at the most")
    wanted = [Pattern.of(word) for word in words]
    for piece in pieces(machine, max(item.size for item in wanted) - 1):
        for item in wanted:
            for start in item.matches(piece.buffer, piece.size, piece.own):
                yield {"address": f"{piece.address + start:#x}", "pattern": item.word}


def hashes(machine: Microvmi) -> dict[str, object]:
    """Of the pages that are not all zeros each hash once: what machines have in common shows by it.

    A piece begins at a page, and has whole pages.
    """
    known: set[bytes] = set()
    count = 0
    for piece in pieces(machine):
        for at in range(0, piece.size, PAGE_SIZE):
            page = bytes(memoryview(piece.buffer)[at : min(at + PAGE_SIZE, piece.size)])
            if page != _ZEROS[: len(page)]:
                count += 1
                known.add(hashlib.blake2b(page, digest_size=DIGEST).digest())
    return {"pages": count, "distinct": len(known), "hashes": sorted(item.hex() for item in known)}


OURS: dict[str, Function] = {"pattern": pattern, "hashes": hashes}
OF_PLUGINS = "vol"
"""What runs a plugin of volatility: a program of its own, which opens the machine itself."""


class Wanted(NamedTuple):
    """What is to be run, in words: it goes to workers. ``source`` is the text of the user's file, if it is one."""

    function: str
    words: tuple[str, ...]
    source: str = ""


def wanted(name: str, words: Sequence[str]) -> Wanted:
    """What a user names: one of ours, ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION``.

    The file is read here; a module is looked for where the machines are. Raises ``InvalidArgumentError``.
    """
    if name in OURS or name == OF_PLUGINS:
        return Wanted(name, tuple(words))
    where, colon, function = name.rpartition(":")
    if not colon or not function.isidentifier() or not where:
        ours = ", ".join([*OURS, OF_PLUGINS])
        raise InvalidArgumentError(f"there is no function {name}: {ours}, FILE.py:FUNCTION or MODULE:FUNCTION")
    if not where.endswith(".py"):
        return Wanted(name, tuple(words))
    return Wanted(name, tuple(words), _text(where))


def function(what: Wanted) -> Function:
    """The function itself. Raises ``InvalidArgumentError`` for one that is not there, and what its module raises."""
    if what.function in OURS:
        return OURS[what.function]
    where, _, name = what.function.rpartition(":")
    found = getattr(_module(where, what.source), name, None)
    if not callable(found):
        raise InvalidArgumentError(f"{where} has no function {name}")
    return found  # type: ignore[no-any-return]


def _module(where: str, source: str) -> types.ModuleType:
    if not source:
        try:
            return importlib.import_module(where)
        except ImportError as err:
            raise InvalidArgumentError(f"the module {where} cannot be imported: {err}") from err
    module = types.ModuleType(Path(where).stem)
    module.__file__ = where
    exec(compile(source, where, "exec"), vars(module))
    return module


def _text(path: str) -> str:
    """A file of the user's. Raises ``InvalidArgumentError``."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_SOURCE + 1)
        if len(data) > MOST_SOURCE:
            raise InvalidArgumentError(f"{path} has more than {MOST_SOURCE} bytes")
        compile(data, path, "exec")
        return data.decode() or "\n"
    except (OSError, SyntaxError, ValueError) as err:
        raise InvalidArgumentError(f"{path} cannot be used: {err}") from err
