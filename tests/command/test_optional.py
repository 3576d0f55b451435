# SPDX-License-Identifier: Apache-2.0
"""Packages that are the user's own: found, or told in a line with what installs them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from libmicrovmi_py.command.kit import Failure
from libmicrovmi_py.command.optional import need


def test_a_package_that_is_there_is_found() -> None:
    need("json")


def test_a_package_that_is_missing_is_told_with_what_installs_it() -> None:
    with pytest.raises(
        Failure, match=f"^nosuch is not installed for this Python: {sys.executable} -m pip install no-such$"
    ):
        need("nosuch", "no-such")


def test_a_package_that_is_broken_is_told_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("import absent\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Failure, match=r"^broken cannot be imported: No module named 'absent'$"):
        need("broken")
