# SPDX-License-Identifier: Apache-2.0
"""Builds the thread programs of ``c_tests`` and runs them, under a checker where ``make sanitize`` asks for one.

``MICROVMI_CHECKER=thread`` compiles them with ThreadSanitizer, for a library that was compiled so; ``memory`` runs them
under valgrind.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from libmicrovmi_py._native import units

ROOT = Path(__file__).resolve().parents[2]
C_TESTS = ROOT / "c_tests"
NATIVE = ROOT / "libmicrovmi_py" / "_native"
WITHIN = {"foreign"}
"""Programs that have the C files of direct access within."""
CHECKER = os.environ.get("MICROVMI_CHECKER", "")
# ThreadSanitizer cannot live with the address space as this kernel lays it out at random.
BEFORE = {
    "": [],
    "thread": ["setarch", "-R"],
    "memory": ["valgrind", "-q", "--fair-sched=yes", "--error-exitcode=9"],
}[CHECKER]

Run = Callable[..., None]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, include_dir: Path, library_path: Path) -> Run:
    """``run("hammer", "fake", ...)`` builds the program at its first use; it has to end with 0 and print nothing."""
    directory = tmp_path_factory.mktemp("thread-programs")
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-std=gnu99", "-pthread", f"-I{include_dir}"]
    flags += ["-fsanitize=thread"] if CHECKER == "thread" else []
    flags += ["-DALARM_SECONDS=200"] if CHECKER else []
    link = [f"-L{library_path.parent}", "-Xlinker", "-rpath", "-Xlinker", str(library_path.parent), "-lmicrovmi", "-lm"]

    inside = directory / "direct.h"
    inside.write_text(units.unit(units.DIRECT))
    within = ["-std=gnu11", "-D_GNU_SOURCE", "-Wno-unused-parameter", f"-I{NATIVE}", "-include", str(inside)]

    def build_and_run(name: str, *arguments: object) -> None:
        program = directory / name
        if not program.exists():
            compiler = shlex.split(os.environ.get("CC") or "cc")
            special = within if name in WITHIN else []
            subprocess.run([*compiler, *flags, *special, "-o", program, C_TESTS / f"{name}.c", *link], check=True)
        command = [*BEFORE, str(program), *map(str, arguments)]
        ended = subprocess.run(command, env={}, capture_output=True, text=True, timeout=240, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert CHECKER or ended.stdout + ended.stderr == ""  # valgrind tells of system calls that it does not know

    return build_and_run


@pytest.fixture(scope="session")
def seconds() -> int:
    """How long to hammer: a checker makes everything several times as slow."""
    return 6 if CHECKER else 2
