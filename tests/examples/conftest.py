# SPDX-License-Identifier: Apache-2.0
"""The example programs, built by their own Makefile, and how tests run them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "tests" / "plugins"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def bin_dir(tmp_path_factory: pytest.TempPathFactory, library_path: Path, include_dir: Path) -> Path:
    """The programs, built by their own Makefile against an installed library."""
    prefix = tmp_path_factory.mktemp("prefix")
    (prefix / "lib").symlink_to(library_path.parent)
    (prefix / "include").symlink_to(include_dir)
    copy = prefix / "examples"
    shutil.copytree(ROOT / "c_tests" / "examples", copy)
    subprocess.run(["make", "-s", "clean"], cwd=copy, check=True)
    compiler = shlex.split(os.environ.get("CC") or "cc")[0]
    flags = "CFLAGS=-O2 -Wall -Wextra -Wpedantic -Werror"
    subprocess.run(["make", "-s", f"PREFIX={prefix}", f"CC={compiler}", flags], cwd=copy, check=True)
    return copy


@pytest.fixture
def run(bin_dir: Path, tmp_path: Path) -> Run:
    """Run a program in a directory of its own, with our plugins and nothing else in the environment."""

    def run(name: str, *arguments: object, code: int = 0, keys: str = "") -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [str(bin_dir / name), *map(str, arguments)],
            cwd=tmp_path,
            env={"MICROVMI_PLUGIN_PATH": str(PLUGINS)},
            input=keys,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == code, ended.stderr
        return ended

    return run
