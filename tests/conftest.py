# SPDX-License-Identifier: Apache-2.0
"""What tests of every subject share: the built library, its header, ctypes stubs for it, machines."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from libmicrovmi_py.stubgen import generate

ROOT = Path(__file__).resolve().parent.parent
QEMU_PROGRAM = ROOT / "tests" / "drivers" / "qemu_program.py"


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


@pytest.fixture
def start_machine(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts a process that looks like QEMU, and returns its machine's URI; it ends with the test."""
    running: list[subprocess.Popen[str]] = []
    binary = shutil.copy(os.path.realpath(sys.executable), tmp_path / "qemu-system-x86_64")
    home = f"{sys.base_prefix}:{sys.base_exec_prefix}"
    environment = {**os.environ, "PYTHONHOME": home, "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}
    numbers = itertools.count()

    def start(*options: str) -> str:
        name = f"stand-in-{os.getpid()}-{next(numbers)}"
        socket = f"unix:{tmp_path}/{name},server=on,wait=off"
        command = [str(binary), str(QEMU_PROGRAM), "-name", name, "-qmp", socket, *options]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        assert running[-1].stdout is not None
        assert running[-1].stdout.readline() == "ready\n"
        return f"vmi://qemu/?vm_name={name}&timeout=30"

    yield start
    for process in running:
        process.kill()
        process.communicate()
