# SPDX-License-Identifier: Apache-2.0
"""A copy of the tree, built, in which one bug after the other is planted."""

from __future__ import annotations

import contextlib
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mutants.mutant import Mutant

LEFT_OUT = shutil.ignore_patterns("build", ".git", ".*_cache", "*.so", "*.egg-info", "__pycache__")

BUILD_LIMIT = 300
"""Seconds."""

_COPIED = "libmicrovmi_py/"
"""The Python files of this folder are copied beside the library, but for those of which C text is made."""

_RULES = "Makefile"
_INTO_C = ("libmicrovmi_py/_native/", "libmicrovmi_py/header.py", "libmicrovmi_py/version.py")
_NOT_BUILT = ("tests/", "c_tests/", "docs/")


class DoesNotBuildError(Exception):
    """What the compiler said last."""


@dataclass(frozen=True)
class Ended:
    """How a run of pytest ended: its exit code, ``None`` if it was ended, its output, and seconds."""

    code: int | None
    output: str
    took: float

    @property
    def passed(self) -> bool:
        """Whether tests ran, and all that did passed."""
        return self.code == 0 and " passed" in self.output


class Tree:
    """One copy; a bug stays in it until the next one, so that each costs one build."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._original: dict[str, str] = {}

    @classmethod
    def copied(cls, source: Path, root: Path) -> Tree:
        """Copy ``source`` without what was built there, and build it, quickly."""
        shutil.copytree(source, root, ignore=LEFT_OUT, symlinks=True)
        tree = cls(root)
        tree._make()
        return tree

    def twin(self, root: Path) -> Tree:
        """Another copy, with what was built."""
        shutil.copytree(self.root, root, symlinks=True)
        return Tree(root)

    def plant(self, mutant: Mutant) -> None:
        """Take the bug out that is in, and plant another one. Raises ``DoesNotBuildError``."""
        files = {mutant.file, *self._original}
        for name, text in self._original.items():
            (self.root / name).write_text(text)
        if mutant.file == _RULES:  # what is out of date is brought up to it by the rules as they were
            self._make()
        path = self.root / mutant.file
        self._original = {mutant.file: path.read_text()}
        path.write_text(self._original[mutant.file].replace(mutant.old, mutant.new))
        self._build(files)

    def _build(self, files: set[str]) -> None:
        """Bring what is built up to date after ``files`` have changed."""
        if any(not name.startswith(_NOT_BUILT) and not _is_copied(name) for name in files):
            self._make()
        for name in files:
            if _is_copied(name):
                self._copy(name)

    def _copy(self, name: str) -> None:
        """As the Makefile does for all files; nothing of it is checked when the library starts."""
        target = self.root / "build" / "lib" / "libmicrovmi" / name
        shutil.copy2(self.root / name, target)
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        try:
            py_compile.compile(str(target), dfile=f"libmicrovmi/{name}", doraise=True, invalidation_mode=mode)
        except py_compile.PyCompileError as err:
            raise DoesNotBuildError(err.msg) from None

    def _make(self) -> None:
        command = ["make", "-s", "lib", f"PY={sys.executable}", "CFLAGS=-O1 -g"]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, timeout=BUILD_LIMIT, check=False)
        if done.returncode:
            raise DoesNotBuildError(done.stderr.strip()[-500:])

    def test(self, tests: tuple[str, ...], limit: float) -> Ended:
        """Run tests up to the first that fails, for ``limit`` seconds at the most."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MICROVMI_")}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        started = time.monotonic()
        output = self.root / "build" / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
            code = _end_of(process, limit)
        return Ended(code, output.read_text(errors="replace"), time.monotonic() - started)


def _is_copied(name: str) -> bool:
    return name.startswith(_COPIED) and name.endswith(".py") and not name.startswith(_INTO_C)


def _end_of(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """The exit code; ``None`` for one that had to be ended, with all that it started."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
