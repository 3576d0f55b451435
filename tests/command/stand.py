# SPDX-License-Identifier: Apache-2.0
"""How a subcommand is used by the tests that all of them go through: a file each in ``stands/``, with ``STAND``."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from needs import EXTRAS, no_extra

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Stand:
    """Words are those behind the subcommand's name. In them ``{vm}`` is a machine, ``{dump}`` a dump of it,
    ``{folder}`` an empty folder, and ``{watched}`` a machine that writes down what is done to it: ``&slow=...``
    goes behind it.

    ``words`` are an ordinary use, in whose standard output ``shows`` is found, a regular expression, and whose JSON
    ``document`` returns true for, with --json behind. ``wrong`` is a use that ends with exit code 1 and the one line
    ``says``, an expression as well. ``lasting`` is a use that takes long enough to be interrupted: that is done when
    ``{watched}`` (or its driver's list) is slow, or when ``begun`` has come out, an expression. ``untouched`` is why
    there is none: it touches no machine. ``no_json`` is why there is no --json.

    ``wrong`` may be left out where nothing can go wrong but usage.

    ``tells`` are lines that a tool of others writes to standard error beside ours, an expression.

    ``needs`` is a program of the user's that has to be there, and the package that has it; ``extra`` is a Python
    package of ``.ci/extras``.

    ``guest`` is ``linux`` for what needs a guest that runs Linux: ``{vm}`` is one then, and tests/live runs it.
    """

    words: tuple[str, ...]
    shows: str
    wrong: tuple[str, ...] = ()
    says: str = ""
    document: Callable[[Any], object] | None = None
    lasting: tuple[str, ...] = ()
    begun: str = ""
    untouched: str = ""
    no_json: str = ""
    needs: tuple[str, str] | None = None
    extra: str = ""
    tells: str = ""
    guest: str = "fake"

    @property
    def missing(self) -> str:
        """Why it cannot be used here; empty if it can."""
        if self.extra and not (EXTRAS / self.extra).is_dir():
            return no_extra(self.extra)
        if self.needs is None or shutil.which(self.needs[0]) is not None:
            return ""
        return f"{self.needs[0]} is not installed; to enable: apt-get install {self.needs[1]}"

    def __post_init__(self) -> None:
        assert bool(self.lasting) != bool(self.untouched), "a use that is interrupted, or why there is none"
        assert bool(self.document) != bool(self.no_json), "what the JSON is, or why there is none"


def names() -> list[str]:
    """The subcommands that have one."""
    return sorted(path.stem.replace("_", "-") for path in (HERE / "stands").glob("*.py"))


def stand_of(name: str) -> Stand:
    """The one of a subcommand."""
    stand = importlib.import_module(f"command.stands.{name.replace('-', '_')}").STAND
    assert isinstance(stand, Stand)
    return stand
