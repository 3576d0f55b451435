# SPDX-License-Identifier: Apache-2.0
"""What tests of every subject share: the built library, its header, ctypes stubs for it, machines."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from built import outdated
from parallel.worker import Worker
from programs import Programs
from qemu_simulators import QemuSimulators

from libmicrovmi_py.stubgen import generate

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """What a test of an old build finds is of no worth. A process of several takes its part of the tests."""
    if "MICROVMI_LIBRARY" not in os.environ and (reason := outdated(ROOT)):
        raise pytest.UsageError(reason)
    if told := os.environ.pop("MICROVMI_PARALLEL", ""):
        config.pluginmanager.register(Worker(told))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason to skip tests, which has what enables them, however many they are."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, number in reasons.items():
        terminalreporter.write_line(f"SKIPPED [{number}] {reason.removeprefix('Skipped: ')}")


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


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory, include_dir: Path, library_path: Path) -> Programs:
    """The C programs of ``c_tests``, linked with the library."""
    return Programs(tmp_path_factory.mktemp("programs"), include_dir, library_path)


@pytest.fixture
def start_machine(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts a process that looks like QEMU, and returns its machine's URI; it ends with the test."""
    with QemuSimulators(tmp_path) as machines:
        yield machines.start
