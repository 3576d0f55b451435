# SPDX-License-Identifier: Apache-2.0
"""The build backend of ``pip install .``: setuptools, with the C library and its header laid into the package first."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import build_sdist, get_requires_for_build_sdist, get_requires_for_build_wheel

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "libmicrovmi_py"


def _lay_library() -> None:
    build = ROOT / "build" / f"wheel-{sysconfig.get_python_version()}"
    library = build / "lib" / "libmicrovmi.so"
    subprocess.run(["make", "-C", ROOT, f"PY={sys.executable}", f"BUILD={build}", library], check=True)
    for source, folder in ((library, "lib"), (ROOT / "include" / "libmicrovmi.h", "include")):
        (PACKAGE / folder).mkdir(exist_ok=True)
        shutil.copy2(source, PACKAGE / folder)


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """A wheel for this Python's minor version and this machine, as the library is linked against libpython."""
    _lay_library()
    tags = [
        "--python-tag",
        f"cp{sys.version_info.major}{sys.version_info.minor}",
        "--plat-name",
        sysconfig.get_platform(),
    ]
    settings = {**(config_settings or {}), "--build-option": tags}
    return build_meta.build_wheel(wheel_directory, settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """An editable install: the library is laid into the source tree's package."""
    _lay_library()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
