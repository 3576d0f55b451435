# SPDX-License-Identifier: Apache-2.0
"""The library as a ctypes caller has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def lib(stubs: ModuleType, library_path: Path) -> Any:
    """The library with prototypes, loaded into this Python, which its embedded part joins."""
    return stubs.load(library_path)


@pytest.fixture
def opened(lib: Any) -> Iterator[Callable[[str], int]]:
    """Opens machines; they are closed after the test unless it did so."""
    contexts: list[int] = []

    def open_machine(uri: str) -> int:
        contexts.append(lib.microvmi_open(uri.encode(), None))
        assert contexts[-1], lib.microvmi_last_error()
        return contexts[-1]

    yield open_machine
    for context in contexts:
        lib.microvmi_destroy(context)
