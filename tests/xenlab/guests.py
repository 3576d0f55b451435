# SPDX-License-Identifier: Apache-2.0
"""What is compiled for the lab: the tiny guest, C programs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GUEST = HERE / "guest"
NUMBER = re.compile(r"^#define (\w+) (0x[0-9a-f]+)", re.MULTILINE)


def layout() -> dict[str, int]:
    """The numbers of ``layout.h``."""
    return {name: int(value, 16) for name, value in NUMBER.findall((GUEST / "layout.h").read_text())}


def layout_module() -> str:
    """They again, as a Python module for the checks in dom0."""
    return "".join(f"{name} = {value:#x}\n" for name, value in layout().items())


def tiny_guest(target: Path) -> None:
    """Assemble and link the tiny guest."""
    script, code = target.with_suffix(".ld"), target.with_suffix(".o")
    _run([*_compiler(), "-c", "-o", code, GUEST / "tiny.S"])
    _run([*_compiler(), "-E", "-P", "-x", "c", "-o", script, GUEST / "tiny.ld"])
    _run(["ld", "-nostdlib", "-static", "-z", "max-page-size=4096", "-T", script, "-o", target, code])


def program(source: Path, target: Path, library: Path, run_path: str) -> None:
    """Compile a C program against the library; in dom0 it finds it in ``run_path``."""
    include = [f"-I{path}" for path in (ROOT / "include", ROOT / "c_tests", GUEST, HERE / "inside")]
    link = [f"-L{library.parent}", "-lmicrovmi", f"-Wl,-rpath,{run_path}", "-Wl,--allow-shlib-undefined", "-rdynamic"]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    _run([*_compiler(), "-O2", "-g", "-pthread", *warnings, *include, "-o", target, source, *link])


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or "cc")


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, command))}: {done.stderr.strip()}")
