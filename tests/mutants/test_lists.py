# SPDX-License-Identifier: Apache-2.0
"""The lists of planted bugs fit the tree: what a bug replaces is there once, and so are the tests that have to fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mutants.lists import all_lists, misfit
from mutants.mutant import Mutant

LISTS = all_lists()


@pytest.mark.parametrize("name", LISTS)
def test_every_mutant_fits_the_tree(name: str) -> None:
    assert [reason for reason in map(misfit, LISTS[name]) if reason] == []


@pytest.mark.parametrize("name", LISTS)
def test_no_mutant_is_listed_twice(name: str) -> None:
    assert len(set(LISTS[name])) == len(LISTS[name])


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"file": "nowhere.py"}, "no file nowhere.py"),
        ({"old": "not in it"}, "0 times, not once"),
        ({"old": "line"}, "2 times, not once"),
        ({"new": "first line"}, "stays the same"),
        ({"tests": ()}, "names no test"),
        ({"tests": ("test_gone.py",)}, "no test test_gone.py"),
        ({"tests": ("test_it.py::test_other",)}, "no test test_it.py::test_other"),
        ({"tests": ("test_it.py::test_one[case-1]",)}, ""),
        ({"tests": (), "why": "costs speed only"}, ""),
    ],
)
def test_a_mutant_that_does_not_fit_is_told(tmp_path: Path, wrong: dict[str, Any], complaint: str) -> None:
    (tmp_path / "code.py").write_text("first line\nsecond line\n")
    (tmp_path / "test_it.py").write_text("def test_one():\n    assert True\n")
    fits: dict[str, Any] = {
        "file": "code.py",
        "old": "first line",
        "new": "",
        "does": "",
        "tests": ("test_it.py::test_one",),
    }
    assert misfit(Mutant(**fits), tmp_path) == ""
    found = misfit(Mutant(**{**fits, **wrong}), tmp_path)
    assert complaint in found
    assert bool(found) == bool(complaint)
