# SPDX-License-Identifier: Apache-2.0
"""How the C code is built: what an attacker who found a bug in it would have to get past, and what it loads."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["library", "module", "watcher", "caller"])
def built(request: pytest.FixtureRequest, library_path: Path) -> Path:
    """The library, the module for Python programs, the program that the library starts, and the one that calls it."""
    package = library_path.parent / "libmicrovmi" / "libmicrovmi_py"
    others = {name: package / f"microvmi-{name}" for name in ("watcher", "caller")}
    others |= {"library": library_path, "module": ROOT / "libmicrovmi_py" / "_direct.abi3.so"}
    return others[str(request.param)]


def tool(*command: object) -> str:
    return subprocess.run([str(item) for item in command], capture_output=True, text=True, check=True).stdout


def test_everything_is_bound_at_load_time_and_then_read_only(built: Path) -> None:
    dynamic = tool("readelf", "-dW", built)
    assert "BIND_NOW" in dynamic
    assert "TEXTREL" not in dynamic
    assert "GNU_RELRO" in tool("readelf", "-lW", built)


def test_no_stack_is_executable(built: Path) -> None:
    stack = next(line for line in tool("readelf", "-lW", built).splitlines() if "GNU_STACK" in line)
    assert stack.split()[-2] == "RW"


def test_stacks_and_copies_are_checked(built: Path) -> None:
    needed = tool("nm", "-D", "--undefined-only", built)
    assert "__stack_chk_fail" in needed
    assert re.search(r"__\w+_chk\b", needed)


LANDINGS = {"x86_64": {"endbr64"}, "aarch64": {"bti", "paciasp"}}


@pytest.mark.skipif(platform.machine() not in LANDINGS, reason="of these processors only")
def test_every_function_that_can_be_jumped_to_says_so(library_path: Path) -> None:
    symbols = [line.split()[:2] for line in tool("nm", "-DP", "--defined-only", library_path).splitlines()]
    exported = {name.split("@")[0] for name, kind in symbols if kind == "T"}
    listing = tool("objdump", "-d", "--no-show-raw-insn", library_path)
    first = dict(re.findall(r"^[0-9a-f]+ <(\w+)>:\n *[0-9a-f]+:\s+(\S+)", listing, re.MULTILINE))
    assert exported
    assert {first[name] for name in exported} <= LANDINGS[platform.machine()]


def test_loading_takes_no_python(library_path: Path) -> None:
    assert "python" not in tool("readelf", "-dW", library_path)
    assert not re.search(r"\b_?Py", tool("nm", "-D", library_path))
