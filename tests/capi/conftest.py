# SPDX-License-Identifier: Apache-2.0
"""The library as a ctypes caller has it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def lib(stubs: ModuleType, library_path: Path) -> Any:
    """The library with prototypes, loaded into this Python, which its embedded part joins."""
    return stubs.load(library_path)
