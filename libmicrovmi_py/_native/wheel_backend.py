# SPDX-License-Identifier: Apache-2.0
"""The build backend: setuptools, with what make builds laid into the package first.

A wheel has the C library, its headers and its programs inside; an editable install is the tree itself,
with what ``make lib`` builds in it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if sys.version_info < (3, 10):  # noqa: UP036  pip looks at requires-python only when it has built
    sys.exit(f"this is Python {sys.version_info[0]}.{sys.version_info[1]}; libmicrovmi needs 3.10 or later")

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "libmicrovmi_py"
SCRATCH = Path("build") / "wheel"
"""From the root on: make takes no path with a space for a target, and the root may have one."""

CALLER = "microvmi-caller"


def _make(*words: str | Path) -> None:
    """Have the Makefile build something for the Python that runs this."""
    subprocess.run(["make", "-C", ROOT, f"PY={sys.executable}", *words], check=True)


@contextmanager
def _library_in_package() -> Iterator[None]:
    """Build the library; for the block, it, the headers and the caller lie in the package."""
    build = SCRATCH / "library"
    shutil.rmtree(ROOT / SCRATCH, ignore_errors=True)
    library = build / "lib" / "libmicrovmi.so"
    inside = ["libmicrovmi_py/_direct.abi3.so", "libmicrovmi_py/microvmi-watcher"]  # in the package already
    _make(f"BUILD={build}", library, build / CALLER, *inside)
    laid = {"lib": [ROOT / library], "include": sorted((ROOT / "include").glob("libmicrovmi.h*"))}
    try:
        for folder, sources in laid.items():
            (PACKAGE / folder).mkdir(exist_ok=True)
            for source in sources:
                shutil.copy2(source, PACKAGE / folder)
        shutil.copy2(ROOT / build / CALLER, PACKAGE)
        yield
    finally:
        for folder in laid:
            shutil.rmtree(PACKAGE / folder, ignore_errors=True)
        (PACKAGE / CALLER).unlink(missing_ok=True)


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """A wheel for this Python's minor version and this machine, as the library starts no other Python."""
    scratch = ["build", "--build-base", str(ROOT / SCRATCH / "setuptools")]
    settings = {**(config_settings or {}), "--global-option": scratch}
    with _library_in_package():
        return str(build_meta.build_wheel(wheel_directory, settings, metadata_directory))


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """The tree, for this Python: ``make lib`` builds its library anew if it was another one's."""
    _make("lib")
    return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))
