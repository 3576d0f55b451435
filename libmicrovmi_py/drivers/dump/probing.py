# SPDX-License-Identifier: Apache-2.0
"""What a file is: the formats and wrappers there are, each a file of its folder, are asked.

A module of ``formats/`` or ``wrappers/`` says in literals, which are read without loading it, which files it wants to
be asked about, as loading all of them for one image would cost more than reading it:

- ``BEGINS``: a tuple of what such a file has at its start, ``bytes``, or ``(offset, bytes)`` for another place;
- ``ENDS``: a tuple of endings of file names, in lower case: ``(".vmem",)``, for what has no signature;
- ``HOLDS``: a tuple of names: a folder that holds all of them is such a dump, and the first is the file to begin with.

``probe(image)`` then says what it is and how sure that is, or ``None``. Files beside it that it looks at are released
afterwards: whoever reads it opens those that belong to it.
"""

from __future__ import annotations

import enum
import functools
import os
import sys
from types import ModuleType

from libmicrovmi_py.declare import TYPE_CHECKING, Any, NamedTuple
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.dump.image import Image


class Sure(enum.IntEnum):
    """How sure a format is that a file is one of its own: the surest has it."""

    POSSIBLE = 1
    """It may be: a name, or words that other files may have as well."""
    LIKELY = 2
    """More than one thing fits that others have by chance only."""
    CERTAIN = 3
    """A signature that nothing else begins with."""


class Probe(NamedTuple):
    """What a file is, with an article ("a kdump file"). ``way_out`` is what to do with one that this version cannot
    read, ``""`` if it can."""

    sure: Sure
    what: str
    way_out: str = ""


class Wanted(NamedTuple):
    """Which files a module wants to be asked about, as its literals say."""

    name: str
    begins: tuple[tuple[int, bytes], ...]
    ends: tuple[str, ...]
    holds: tuple[str, ...]


@functools.cache
def _by_begin(package: str) -> dict[int, dict[bytes, list[tuple[bytes, str]]]]:
    """What files begin with and whose that is, by where it is and by its first byte."""
    found: dict[int, dict[bytes, list[tuple[bytes, str]]]] = {}
    for item in wanted(package):
        for offset, magic in item.begins:
            found.setdefault(offset, {}).setdefault(magic[:1], []).append((magic, item.name))
    return found


@functools.cache
def _by_end(package: str) -> tuple[Wanted, ...]:
    """The modules of a package that go by the endings of names."""
    return tuple(item for item in wanted(package) if item.ends)


def asking(package: str, image: Image) -> list[str]:
    """The modules that want to be asked about a file, as it begins or its name ends: by their names."""
    start, ends = image.start, _by_end(package)
    path = image.path.lower() if ends else ""
    names = [item.name for item in ends if path.endswith(item.ends)]
    for offset, known in _by_begin(package).items():
        for magic, name in known.get(start[offset : offset + 1], ()):
            if start.startswith(magic, offset):
                names.append(name)
    return sorted(set(names))


@functools.cache
def wanted(package: str) -> tuple[Wanted, ...]:
    """What the modules of a package say, by their names. One without a literal is never asked."""
    folder = sys.modules[package].__path__[0]
    with StandardStreamsHeld():
        names = sorted(name[:-3] for name in os.listdir(folder) if name.endswith(".py") and name != "__init__.py")
        return tuple(_literals(name, os.path.join(folder, f"{name}.py")) for name in names)


def _literals(name: str, path: str) -> Wanted:
    with StandardStreamsHeld(), open(path, encoding="utf-8") as file:
        text = file.read()
    begins = tuple(item if isinstance(item, tuple) else (0, item) for item in _literal(text, "BEGINS"))
    return Wanted(name, begins, _literal(text, "ENDS"), _literal(text, "HOLDS"))


def _literal(text: str, word: str) -> tuple[Any, ...]:
    """The tuple that is assigned to ``word`` at the start of a line; the text is our own, so it may be evaluated."""
    begin = text.find(f"\n{word} = (")
    if begin < 0:
        return ()
    begin += len(f"\n{word} = ")
    end = text.index("\n", begin)
    while text.startswith((" ", ")"), end + 1):
        end = text.index("\n", end + 1)
    found: tuple[Any, ...] = eval(text[begin:end], {"__builtins__": {}})
    return found


def module(package: str, name: str) -> ModuleType:
    """The module of that name, loaded; the others are not."""
    full = f"{package}.{name}"
    __import__(full)
    return sys.modules[full]


class Found(NamedTuple):
    """The module that is surest of a file, and what it says of it."""

    name: str
    module: ModuleType
    probe: Probe


def probed(package: str, image: Image) -> Found | None:
    """What the surest module of a package says; of two that are as sure, that of the first name."""
    best: Found | None = None
    for name in asking(package, image):
        loaded = module(package, name)
        known = len(image.opening.files)
        answer = loaded.probe(image)
        image.opening.let_go(known)
        if answer is not None and (best is None or answer.sure > best.probe.sure):
            best = Found(name, loaded, answer)
    return best


def held_by(package: str, folder: str) -> tuple[str, str] | None:
    """The format that a folder is, and the file in it to begin with; ``None`` if no format knows such a folder."""
    for item in wanted(package):
        if item.holds and all(os.path.exists(os.path.join(folder, name)) for name in item.holds):
            return item.name, os.path.join(folder, item.holds[0])
    return None
