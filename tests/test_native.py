# SPDX-License-Identifier: Apache-2.0
"""The C files are units: each compiles alone, and shares with others what its headers declare and nothing else."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from libmicrovmi_py._native import pythonflags, units

ROOT = Path(__file__).resolve().parents[1]
NATIVE = ROOT / "libmicrovmi_py" / "_native"
UNITS = sorted(NATIVE.glob("*.c"))
HEADERS = sorted(NATIVE.glob("*.h"))
INCLUDES = [f"-I{folder}" for folder in (ROOT / "include", NATIVE, ROOT / "build")]
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wmissing-prototypes", *INCLUDES]
FOR_CFFI = {
    "callbacks.h",
    "content.h",
    "copy.h",
    "direct.h",
    "fill.h",
    "foreign.h",
    "libvirt.h",
    "migration.h",
    "objects.h",
    "packed.h",
    "runs.h",
    "saved.h",
    "services.h",
    "stub.h",
    "turns.h",
    "virtual.h",
    "watching.h",
}
"""Headers that cffi reads as well, which takes neither includes nor guards; others include them."""


def compiled(source: Path, target: Path) -> tuple[int, str]:
    """What the compiler ends with, and says."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    command: list[str | Path] = [*compiler, *FLAGS, *pythonflags.includes(), "-c", "-o", target, source]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int, str]]:
    """By the name of each C file the object that was made of it alone, and what the compiler said."""
    folder = tmp_path_factory.mktemp("units")
    targets = [folder / f"{source.stem}.o" for source in UNITS]
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(compiled, UNITS, targets)
    return {source.name: (target, *said) for source, target, said in zip(UNITS, targets, done, strict=True)}


def symbols(compiled_file: Path) -> list[list[str]]:
    """Type, visibility, section and name of each symbol with a name."""
    listing = subprocess.run(["readelf", "-sW", compiled_file], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in listing.splitlines() if re.match(r" *\d+:", line))
    return [[row[3], row[4], row[6], row[7]] for row in rows if len(row) > 7]


@pytest.mark.parametrize("unit", [path.name for path in UNITS])
def test_each_c_file_compiles_alone_without_a_warning(objects: dict[str, tuple[Path, int, str]], unit: str) -> None:
    _, code, said = objects[unit]
    assert (code, said) == (0, "")


def test_what_a_thread_has_is_defined_once(objects: dict[str, tuple[Path, int, str]]) -> None:
    own = {
        (unit, name)
        for unit, (path, *_) in objects.items()
        for kind, _, section, name in symbols(path)
        if kind == "TLS" and section != "UND"
    }
    assert own == {("thread.c", "mvi_thread")}


@pytest.mark.parametrize("header", [path.name for path in HEADERS if path.name not in FOR_CFFI])
def test_a_header_stands_alone_and_defines_nothing(tmp_path: Path, header: str) -> None:
    source, target = tmp_path / "unit.c", tmp_path / "unit.o"
    source.write_text(f'#include "{header}"\n#include "{header}"\n')
    assert compiled(source, target) == (0, "")
    assert [row for row in symbols(target) if row[0] in ("FUNC", "OBJECT", "TLS") and row[2] != "UND"] == []


def test_all_c_files_are_in_the_unit_build_once() -> None:
    assert sorted(units.LIBRARY + units.PROGRAMS) == [path.stem for path in UNITS]


def test_direct_access_needs_nothing_of_the_library(objects: dict[str, tuple[Path, int, str]]) -> None:
    rows = [row for name in units.DIRECT for row in symbols(objects[f"{name}.c"][0])]
    defined = {name for _, _, section, name in rows if section != "UND"}
    used = {name for _, _, section, name in rows if section == "UND"}
    assert {name for name in used if re.match("mvi_|microvmi_|_?Py", name)} <= defined
