# SPDX-License-Identifier: Apache-2.0
"""Builds the C programs of ``c_tests`` and runs them, under the conditions that each test asks for."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

C_TESTS = Path(__file__).resolve().parents[1] / "c_tests"

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-std=gnu99")

LIMIT = 90
"""Seconds after which a program counts as hanging."""

CHECKED = os.environ.get("MICROVMI_CHECKER") == "address"
"""Whether library and programs are compiled with AddressSanitizer; Python keeps what the leak check would tell of."""

CHECKS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined") if CHECKED else ()
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0:handle_sigbus=0"} if CHECKED else {}


@dataclass
class Programs:
    """C programs, each compiled once a session, in a directory of this process's own."""

    directory: Path
    include: Path
    library: Path
    built: dict[tuple[str, tuple[str, ...]], Path] = field(default_factory=dict)

    def linked(self, name: str, library: Path | None = None) -> Path:
        """``c_tests/NAME.c`` linked with the library (or another copy of it)."""
        return self._build(name, *self._link_with(library or self.library))

    def loading(self, name: str) -> Path:
        """The same program, which gets the library from ``dlopen(RTLD_LOCAL)``."""
        return self._build(name, "-DBY_DLOPEN", "-ldl")

    def unlinked(self, name: str) -> Path:
        """A program that does all of that itself."""
        return self._build(name, "-ldl")

    def foreign(self, name: str, *, linked: bool) -> Path:
        """A program whose own symbols come before those of libraries."""
        return self._build(name, "-rdynamic", *(self._link_with(self.library) if linked else ("-DBY_DLOPEN", "-ldl")))

    @staticmethod
    def _link_with(library: Path) -> tuple[str, ...]:
        return f"-L{library.parent}", "-Xlinker", "-rpath", "-Xlinker", str(library.parent), "-lmicrovmi", "-lm"

    @staticmethod
    def run(*command: object, env: Mapping[str, str] | None = None, cwd: object = "/", code: int = 0) -> None:
        """Run a program with exactly the environment ``env``; it must end with ``code`` and print nothing."""
        ended = subprocess.run(
            [str(item) for item in command],
            env={**OPTIONS, **(env or {})},
            cwd=str(cwd),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT,
            check=False,
        )
        printed = ended.stdout + ended.stderr
        assert not printed, f"exit code {ended.returncode}, printed: {printed}"
        assert ended.returncode == code

    def _build(self, name: str, *flags: str) -> Path:
        key = (name, flags)
        if key not in self.built:
            program = self.directory / f"{name.replace('/', '-')}-{len(self.built)}"
            compiler = shlex.split(os.environ.get("CC") or "cc")
            source = str(C_TESTS / f"{name}.c")
            include = f"-I{self.include}"
            done = subprocess.run(
                [*compiler, "-O1", "-g", *WARNINGS, "-pthread", *CHECKS, include, "-o", str(program), source, *flags],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            self.built[key] = program
        return self.built[key]
