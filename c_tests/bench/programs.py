# SPDX-License-Identifier: Apache-2.0
"""The C programs of the benchmark: built into a directory, run, and their lines split into fields."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import empty

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from libmicrovmi_py._native import units

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
NATIVE = ROOT / "libmicrovmi_py" / "_native"
TESTS = ROOT / "tests"
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", f"-I{ROOT / 'include'}", f"-I{NATIVE}", "-pthread"]
SECONDS = 300
"""More than any program takes; then it hangs."""

CALL_NS = 10_000
"""What a call takes of the libkvmi that waits, about as long as one over a socket."""

SHARED = ["reads.c", "rounds.c", "peers.c", "scale.c"]
KVMI = [*(str(TESTS / "drivers" / "kvm" / name) for name in ("libkvmi.c", "libkvmi-guests.c")), "-shared", "-fPIC"]
NEAR = ["kvmi.c", *KVMI, "-Wno-missing-field-initializers", "-Dkvmi_read_physical=kvmi_read_over_the_socket"]
LIBRARY = "{library}"
"""Stands for what a program takes to be linked with the library."""
DIRECT = "{direct}"
"""Stands for the one unit of what reads a table."""

SOURCES: dict[str, list[str]] = {
    "bench": ["bench.c", "limits.c", *SHARED, "-ldl"],
    "virtual": ["virtual.c", "limits.c", "reads.c", "rounds.c", "peers.c", "-ldl"],
    "ranges": ["ranges.c", "limits.c", "reads.c", "rounds.c", "peers.c", "-ldl"],
    "frames": ["frames.c", "foreign.c", *SHARED, "-ldl"],
    "beside": ["beside.c", "rounds.c", "peers.c", "-ldl"],
    "libbeside.so": ["-shared", "-fPIC", "beside.c", "rounds.c", "peers.c", "-ldl"],
    "sparse": ["sparse.c", "limits.c", "-ldl"],
    "differ": ["differ.c", "rounds.c", "-ldl"],
    "packed": ["packed.c", "rounds.c", "-ldl"],
    "lookup": ["lookup.c", "rounds.c", DIRECT, "-D_GNU_SOURCE"],
    "libscale.so": ["-shared", "-fPIC", "scale.c", "limits.c"],
    "libkvmi-socket.so": KVMI,
    "libkvmi-near.so": NEAR,
    "libkvmi-waits.so": [*NEAR, f"-DCALL_NS={CALL_NS}"],
    "start": ["start.c", LIBRARY],
    "listen": ["listen.c", LIBRARY],
    "stub_loop": ["stub_loop.c"],
    "mem-dump": [str(ROOT / "c_tests" / "examples" / "mem-dump.c"), LIBRARY],
}


class ProgramError(Exception):
    """A program could not be built, or ended with an error; the text is what it said."""


class Programs:
    """The programs in ``directory``, for one library, each built when it is first needed.

    Paths in their arguments are given whole.
    """

    def __init__(self, directory: Path, library: Path) -> None:
        self.directory = directory
        self.library = library

    def path(self, name: str) -> Path:
        """Where a program or library of ours is."""
        return self._built(name, lambda: SOURCES[name])

    def empty_call(self) -> Path:
        """The library with an empty call into Python. Raises ``ImportError`` without cffi."""
        return self._built("libempty.so", lambda: empty.write_source(self.directory / "empty.c"))

    def _built(self, name: str, arguments: Callable[[], list[str]]) -> Path:
        path = self.directory / name
        if not path.exists():
            self._build(path, arguments())
        return path

    def _build(self, path: Path, arguments: list[str]) -> None:
        compiler = shlex.split(os.environ.get("CC") or "cc")
        unit = self.directory / "direct_unit.c"
        stand_for = {LIBRARY: [str(self.library), f"-Wl,-rpath,{self.library.parent}"], DIRECT: [str(unit)]}
        if DIRECT in arguments:
            unit.write_text(units.unit(units.DIRECT))
        given = [part for argument in arguments for part in stand_for.get(argument, [argument])]
        done = subprocess.run([*compiler, *FLAGS, "-o", str(path), *given], cwd=HERE, capture_output=True, text=True)
        if done.returncode != 0:
            raise ProgramError(f"cannot build {path.name}: {done.stderr.strip()}")

    def run(self, name: str, *arguments: object) -> list[list[str]]:
        """The lines that a program printed, as fields. Nothing of the environment reaches it."""
        return run([str(self.path(name)), *map(str, arguments)])


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


def run_python(name: str, *arguments: object) -> list[list[str]]:
    """Run a Python program of this folder, as :func:`run`."""
    return run([sys.executable, str(HERE / name), *map(str, arguments)])
