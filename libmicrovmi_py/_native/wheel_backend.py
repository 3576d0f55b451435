# SPDX-License-Identifier: Apache-2.0
"""The build backend of ``pip install .``: setuptools, with the C library and its header laid into the package first.

A checkout is what one builds from: there are no source distributions and no editable installs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if sys.version_info < (3, 10):  # noqa: UP036  pip looks at requires-python only when it has built
    sys.exit(f"this is Python {sys.version_info[0]}.{sys.version_info[1]}; libmicrovmi needs 3.10 or later")

from setuptools import build_meta
from setuptools.build_meta import get_requires_for_build_wheel

__all__ = ["build_wheel", "get_requires_for_build_wheel"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "libmicrovmi_py"
SCRATCH = Path("build") / "wheel"
"""From the root on: make takes no path with a space for a target, and the root may have one."""


@contextmanager
def _library_in_package() -> Iterator[None]:
    """Build the library; for the block, it and the header lie in the package."""
    build = SCRATCH / "library"
    shutil.rmtree(ROOT / SCRATCH, ignore_errors=True)
    library = build / "lib" / "libmicrovmi.so"
    inside = ["libmicrovmi_py/_direct.abi3.so", "libmicrovmi_py/microvmi-watcher"]  # in the package already
    subprocess.run(["make", "-C", ROOT, f"PY={sys.executable}", f"BUILD={build}", library, *inside], check=True)
    laid = {"lib": ROOT / library, "include": ROOT / "include" / "libmicrovmi.h"}
    try:
        for folder, source in laid.items():
            (PACKAGE / folder).mkdir(exist_ok=True)
            shutil.copy2(source, PACKAGE / folder)
        yield
    finally:
        for folder in laid:
            shutil.rmtree(PACKAGE / folder, ignore_errors=True)


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """A wheel for this Python's minor version and this machine, as the library is linked against libpython."""
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    settings = {
        **(config_settings or {}),
        "--global-option": ["build", "--build-base", str(ROOT / SCRATCH / "setuptools")],
        "--build-option": ["--python-tag", version, "--plat-name", sysconfig.get_platform()],
    }
    with _library_in_package():
        return str(build_meta.build_wheel(wheel_directory, settings, metadata_directory))
