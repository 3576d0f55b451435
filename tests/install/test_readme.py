# SPDX-License-Identifier: Apache-2.0
"""What README.md prints for the Python package works as it stands, also where Python is the system's own (PEP 668)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IGNORED = shutil.ignore_patterns("build", "__pycache__", "*.so", ".git", "tests", "docs")


def test_the_commands_for_the_python_package_work(tmp_path: Path) -> None:
    tree, commands, home = tmp_path / "tree", tmp_path / "bin", tmp_path / "home"
    shutil.copytree(ROOT, tree, ignore=IGNORED)
    for folder in (commands, home):
        folder.mkdir()
    (commands / "python3").symlink_to(os.path.realpath(sys.executable))
    printed = [line for line in (ROOT / "README.md").read_text().splitlines() if "~/vmi/" in line]
    assert any("pip install ." in line for line in printed)
    variables = {**os.environ, "HOME": str(home), "PATH": f"{commands}:/usr/bin:/bin", "CFLAGS": "-O0"}
    done = subprocess.run(["sh", "-ec", "\n".join(printed)], cwd=tree, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"-I{home}/vmi" in done.stdout
