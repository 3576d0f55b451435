# SPDX-License-Identifier: Apache-2.0
"""The subcommands that there are: the files of ``subcommands/``, each loaded when it is the one that was asked for."""

from __future__ import annotations

import argparse
import ast
import importlib
from pathlib import Path

from libmicrovmi_py.command import subcommands
from libmicrovmi_py.declare import Protocol

_FOLDER = Path(subcommands.__path__[0])


class Subcommand(Protocol):
    """What a file of ``subcommands/`` is. The first line of its docstring is what help says of it."""

    __doc__: str | None

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Say which arguments it takes."""

    @staticmethod
    def run(options: argparse.Namespace) -> int:
        """Do it, and return the exit code. ``MicrovmiError``, ``kit.Failure`` and ``OSError`` become one line."""


def names() -> list[str]:
    """Their names as a user writes them, sorted."""
    found = (path.stem for path in _FOLDER.iterdir() if path.suffix == ".py" and path.stem != "__init__")
    return sorted(name.replace("_", "-") for name in found)


def load(name: str) -> Subcommand:
    """The one of that name, which is one of :func:`names`."""
    module: Subcommand = importlib.import_module(f"{subcommands.__name__}.{name.replace('-', '_')}")  # type: ignore[assignment]
    return module


def summary(name: str) -> str:
    """What help says of it; it is not loaded for that."""
    text = (_FOLDER / f"{name.replace('-', '_')}.py").read_text()
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
