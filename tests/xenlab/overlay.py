# SPDX-License-Identifier: Apache-2.0
"""What this project adds to dom0: the library, its Python modules, the guests and the checks."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from live.cpio import Archive

from . import guests
from .base import Base
from .binaries import is_elf, libraries

INSIDE = guests.HERE / "inside"
RUN_PATH = "/lab/lib"
GROUPS = ("tiny", "linux")
RUN = """#!/bin/sh
export PYTHONPATH=/lab/python:/lab PYTHONDONTWRITEBYTECODE=1
exec {python} -s -S /lab/runner.py
"""


def checks() -> list[str]:
    """The names of all checks in the order in which they run: GROUP/NAME, the group being the domain they need."""
    found = [path for group in GROUPS for path in sorted((INSIDE / group).glob("*.*"))]
    return [f"{path.parent.name}/{path.stem}" for path in found if path.suffix in (".c", ".py")]


def build(base: Base, library: Path, names: Iterable[str]) -> bytes:
    """The archive with the library at ``library`` and these checks, to follow the base's."""
    archive = Archive()
    _library(archive, base, library)
    for path in [*INSIDE.glob("*.cfg"), *INSIDE.glob("*.py")]:
        archive.copy(path, f"/lab/{path.name}")
    archive.file("/lab/layout.py", guests.layout_module().encode())
    archive.file("/lab/run", RUN.format(python=os.path.realpath(sys.executable)).encode(), program=True)
    archive.file("/lab/order", "".join(f"{name}\n" for name in names).encode())
    _compiled(archive, library, names)
    return archive.to_bytes()


def _library(archive: Archive, base: Base, library: Path) -> None:
    """The library with its private modules; these again, with direct access to memory, for Python programs."""
    private = library.parent / "libmicrovmi"
    direct = list((guests.ROOT / "libmicrovmi_py").glob("_hot*.so"))
    archive.copy(library, f"{RUN_PATH}/libmicrovmi.so")
    _tree(archive, private, f"{RUN_PATH}/libmicrovmi")
    _tree(archive, private, "/lab/python")
    for module in direct:
        archive.copy(module, f"/lab/python/libmicrovmi_py/{module.name}")
    for path in libraries([library, *direct, *(path for path in private.glob("*.so") if is_elf(path))]):
        if not base.has(path):
            archive.copy(path)


def _compiled(archive: Archive, library: Path, names: Iterable[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        guests.tiny_guest(Path(folder) / "tiny-guest")
        archive.copy(Path(folder) / "tiny-guest", "/lab/guests/tiny")
        for name in names:
            script = INSIDE / f"{name}.py"
            if script.exists():
                archive.copy(script, f"/lab/checks/{name}.py")
            else:
                guests.c_check(INSIDE / f"{name}.c", Path(folder) / name, library, RUN_PATH)
                archive.copy(Path(folder) / name, f"/lab/checks/{name}")


def _tree(archive: Archive, source: Path, target: str) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            archive.copy(path, f"{target}/{path.relative_to(source)}")
