# SPDX-License-Identifier: Apache-2.0
"""The lists of planted bugs: every file of this folder that has ``MUTANTS``, one a subject. Nothing else names them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from mutants.mutant import Mutant

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

_NO_LISTS = {"lists", "mutant", "run", "tree"}


def all_lists() -> dict[str, tuple[Mutant, ...]]:
    """Each list by the name of its file."""
    names = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("test_"))
    return {name: tuple(importlib.import_module(f"mutants.{name}").MUTANTS) for name in names if name not in _NO_LISTS}


def misfit(mutant: Mutant, root: Path = ROOT) -> str:
    """Why a mutant does not fit a tree, '' if it does."""
    path = root / mutant.file
    if not path.is_file():
        return f"there is no file {mutant.file}"
    if (times := path.read_text().count(mutant.old)) != 1:
        return f"{mutant.file} has {mutant.old!r} {times} times, not once"
    if mutant.old == mutant.new:
        return f"{mutant.file}: {mutant.old!r} stays the same"
    if not mutant.tests and not mutant.why:
        return f"{mutant.file}: {mutant.old!r} names no test"
    return next((f"there is no test {test}" for test in mutant.tests if not _exists(root, test)), "")


def _exists(root: Path, test: str) -> bool:
    """Whether a file, folder or node id of pytest names something; parameters are not looked at."""
    name, *rest = test.partition("[")[0].split("::")
    path = root / name
    if not rest:
        return path.exists()
    return path.is_file() and all(
        re.search(rf"^\s*(def|class) {part}\b", path.read_text(), re.MULTILINE) for part in rest
    )
