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
from .binaries import is_elf, libraries, shared_python

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
    direct = list((guests.ROOT / "libmicrovmi_py").glob("_direct*.so"))
    archive.copy(library, f"{RUN_PATH}/libmicrovmi.so")
    _tree(archive, private, f"{RUN_PATH}/libmicrovmi")
    _tree(archive, private, "/lab/python")
    for module in direct:
        archive.copy(module, f"/lab/python/libmicrovmi_py/{module.name}")
    loaded = [library, *direct, *(path for path in private.glob("*.so") if is_elf(path)), shared_python()]
    for path in [*libraries(loaded), shared_python()]:
        if not base.has(path):
            archive.copy(path)


def _compiled(archive: Archive, library: Path, names: Iterable[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "built"
        guests.tiny_guest(built)
        archive.copy(built, "/lab/guests/tiny")
        for source, target in [*_checks(names), *_examples()]:
            if source.suffix == ".c":
                guests.program(source, built, library, RUN_PATH)
                archive.copy(built, target)
            else:
                archive.copy(source, f"{target}.py")


def _checks(names: Iterable[str]) -> list[tuple[Path, str]]:
    """Sources, and where they are in dom0."""
    sources = [next(INSIDE.glob(f"{name}.[cp]*")) for name in names]
    return [(path, f"/lab/checks/{path.parent.name}/{path.stem}") for path in sources]


def _examples() -> list[tuple[Path, str]]:
    """The same for the example programs."""
    return [(path, f"/lab/examples/{path.stem}") for path in sorted((guests.ROOT / "c_tests/examples").glob("*.c"))]


def _tree(archive: Archive, source: Path, target: str) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            archive.copy(path, f"{target}/{path.relative_to(source)}")
