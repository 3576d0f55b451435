# SPDX-License-Identifier: Apache-2.0
"""The C programs of the benchmark: built into a directory, run, and their lines split into fields."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
NATIVE = ROOT / "libmicrovmi_py" / "_native"
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", f"-I{ROOT / 'include'}", f"-I{NATIVE}", "-pthread"]
SECONDS = 300
"""More than any program takes; then it hangs."""


class ProgramError(Exception):
    """A program could not be built, or ended with an error; the text is what it said."""


class Programs:
    """The programs in ``directory``, for one library. Paths in their arguments are given whole."""

    def __init__(self, directory: Path, library: Path) -> None:
        self.directory = directory
        self.library = library
        self._build("bench", "bench.c", "limits.c", "peers.c", "scale.c", "-ldl")
        self._build("sparse", "sparse.c", "limits.c", "-ldl")
        self._build("lookup", "lookup.c", str(NATIVE / "hot.c"))
        self._build("libscale.so", "-shared", "-fPIC", "scale.c", "limits.c")
        linked = [str(library), f"-Wl,-rpath,{library.parent}"]
        self._build("start", "start.c", *linked)
        self._build("mem-dump", str(ROOT / "c_tests" / "examples" / "mem-dump.c"), *linked)

    def _build(self, name: str, *arguments: str) -> None:
        compiler = shlex.split(os.environ.get("CC") or "cc")
        command = [*compiler, *FLAGS, "-o", str(self.directory / name), *arguments]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
        if done.returncode != 0:
            raise ProgramError(f"cannot build {name}: {done.stderr.strip()}")

    def run(self, name: str, *arguments: object) -> list[list[str]]:
        """The lines that a program printed, as fields. Nothing of the environment reaches it."""
        return run([str(self.directory / name), *map(str, arguments)])


def run(command: list[str]) -> list[list[str]]:
    """Run a command without an environment and split its lines at tabs."""
    try:
        done = subprocess.run(
            command, env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=True
        )
    except subprocess.CalledProcessError as err:
        raise ProgramError(f"{Path(command[0]).name}: {err.stderr.strip() or f'ended with {err.returncode}'}") from err
    except subprocess.TimeoutExpired as err:
        raise ProgramError(f"{Path(command[0]).name}: no end after {SECONDS} s") from err
    return [line.split("\t") for line in done.stdout.splitlines()]
