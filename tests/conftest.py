# SPDX-License-Identifier: Apache-2.0
"""What tests of every subject share: where the built library and its header are, and ctypes stubs for it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from libmicrovmi_py.stubgen import generate

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def include_dir() -> Path:
    """The folder of ``libmicrovmi.h``."""
    return ROOT / "include"


@pytest.fixture(scope="session")
def library_path() -> Path:
    """The built library; MICROVMI_LIBRARY names another one, an installed one for example."""
    path = Path(os.environ.get("MICROVMI_LIBRARY", ROOT / "build" / "lib" / "libmicrovmi.so"))
    assert path.exists(), f"{path} is not there: run make lib"
    return path


@pytest.fixture(scope="session")
def stubs(include_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The ctypes module that ``python -m libmicrovmi_py.stubgen`` makes of the header."""
    path = tmp_path_factory.mktemp("stubs") / "microvmi_ctypes.py"
    path.write_text(generate(include_dir / "libmicrovmi.h"))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
