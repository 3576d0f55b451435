# SPDX-License-Identifier: Apache-2.0
"""A host that is a Python: of the library's minor version it is joined, any other gets a clear error."""

from __future__ import annotations

import ctypes
import glob
import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from programs import Programs

HOST = Path(__file__).resolve().parent / "host.py"
PLUGINS = HOST.parents[1] / "plugins"
STARTUP = 13
"""MICROVMI_ERROR_STARTUP."""

PLACES = (
    "/usr/bin/python3*",
    "/usr/local/bin/python3*",
    "/opt/*/bin/python3*",
    "~/.pyenv/versions/*/bin/python3*",
    "~/.local/share/uv/python/*/bin/python3*",
)

PROBE = """
import ctypes, sys
assert sys.version_info >= (3, 6)
kind = "shared" if "libpython3" in open("/proc/self/maps").read() else "static"
print("%d.%d %s" % (sys.version_info[0], sys.version_info[1], kind))
"""


@lru_cache(maxsize=1)
def pythons() -> dict[str, str]:
    """One Python of every minor version and kind on this machine: ``{"3.11 shared": path}``."""
    found: dict[str, str] = {}
    paths = [sys.executable]
    for place in PLACES:
        paths += sorted(glob.glob(os.path.expanduser(place)))
    for path in dict.fromkeys(os.path.realpath(path) for path in paths):
        if not re.fullmatch(r"python3(\.\d+)?", os.path.basename(path)):
            continue
        probe = subprocess.run([path, "-I", "-c", PROBE], capture_output=True, text=True, timeout=30, check=False)
        if probe.returncode == 0:
            found.setdefault(probe.stdout.strip(), path)
    return found


@pytest.fixture(scope="session")
def built_for(library_path: Path) -> str:
    """The minor version that the library was built for, as it says itself without starting Python."""
    library = ctypes.CDLL(str(library_path))
    library.microvmi_build_info.restype = ctypes.c_char_p
    match = re.search(rb"Python (3\.\d+)", library.microvmi_build_info())
    assert match is not None
    return match[1].decode()


@pytest.mark.parametrize("kind", sorted(pythons()))
def test_a_python_works_or_is_refused(programs: Programs, library_path: Path, built_for: str, kind: str) -> None:
    same = kind.split()[0] == built_for
    programs.run(pythons()[kind], HOST, library_path, "works" if same else "refused")


@pytest.mark.parametrize("kind", sorted(pythons()))
def test_a_caller_that_holds_the_gil_does_not_deadlock(
    programs: Programs, library_path: Path, built_for: str, kind: str
) -> None:
    same = kind.split()[0] == built_for
    programs.run(pythons()[kind], HOST, library_path, "locked" if same else "refused")


def test_a_python_that_ends_resumes_what_it_paused(
    programs: Programs, library_path: Path, built_for: str, tmp_path: Path
) -> None:
    same = [path for kind, path in pythons().items() if kind.split()[0] == built_for]
    assert same
    for number, path in enumerate(same):
        journal = tmp_path / f"journal-{number}"
        env = {"MICROVMI_PLUGIN_PATH": str(PLUGINS)}
        programs.run(path, HOST, library_path, "leaves", f"vmi://journal/?path={journal}", env=env)
        assert journal.read_text().split()[:2] == ["pause", "resume"]
        assert journal.read_text().count("resume") == 1


@pytest.mark.parametrize("initialized", [0, 1])
@pytest.mark.parametrize("linked", [True, False])
def test_a_foreign_python_is_refused(
    programs: Programs, library_path: Path, built_for: str, linked: bool, initialized: int
) -> None:
    foreign = programs.foreign("foreign-python", linked=linked)
    programs.run(foreign, initialized, library_path, STARTUP, "3.99.1", f"Python {built_for}")


@pytest.mark.parametrize("first", ["first", "later"])
def test_a_sub_interpreter_is_refused_or_served_and_never_waits(
    programs: Programs, library_path: Path, built_for: str, first: str
) -> None:
    for kind, path in pythons().items():
        if kind.split()[0] == built_for:
            programs.run(path, HOST.with_name("sub.py"), library_path, first)


def test_an_interrupt_during_a_call_reaches_the_program(
    programs: Programs, library_path: Path, built_for: str, tmp_path: Path
) -> None:
    uri = f"vmi://journal/?size=0x100000&delay=0.02&path={tmp_path}/journal"
    for kind, path in pythons().items():
        if kind.split()[0] == built_for:
            programs.run(path, HOST, library_path, "interrupted", uri, env={"MICROVMI_PLUGIN_PATH": str(PLUGINS)})
