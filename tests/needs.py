# SPDX-License-Identifier: Apache-2.0
"""What a test needs and a machine may lack: a skip on a user's machine, a failure in CI, where nothing is skipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ROOT / "build" / "extras"
"""Where ``make extras`` puts the packages of ``.ci/extras``."""


def missing(reason: str) -> NoReturn:
    """End the test; ``reason`` tells what is missing and what would enable the test."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def no_extra(package: str) -> str:
    """Why there is none, and what would put it there."""
    return f"no {package} in build/extras; to enable: make extras"


def with_extra(package: str) -> dict[str, str]:
    """The environment of a program with our package and one of ``.ci/extras``; without that the test ends here."""
    if not (EXTRAS / package).is_dir():
        missing(no_extra(package))
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{EXTRAS}"}
