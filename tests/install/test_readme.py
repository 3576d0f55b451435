# SPDX-License-Identifier: Apache-2.0
"""What README.md and docs/python.md print for the Python package works as it stands, also where Python is the system's
own (PEP 668)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documentation.blocks import ROOT, blocks, commands

IGNORED = shutil.ignore_patterns("build", "__pycache__", "*.so", ".git", "tests", "docs")


def printed(page: str) -> list[str]:
    """The commands of a page that need the environment that they make."""
    found = [
        command.text
        for block in blocks()
        if block.page == page and block.language == "sh"
        for command in commands(block)
    ]
    return [text for text in found if "~/vmi" in text]


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_commands_for_the_python_package_work(tmp_path: Path, page: str) -> None:
    tree, links, home = tmp_path / "tree", tmp_path / "bin", tmp_path / "home"
    shutil.copytree(ROOT, tree, ignore=IGNORED)
    for folder in (links, home):
        folder.mkdir()
    (links / "python3").symlink_to(os.path.realpath(sys.executable))
    assert any("pip install ." in line for line in printed(page))
    variables = {**os.environ, "HOME": str(home), "PATH": f"{links}:/usr/bin:/bin", "CFLAGS": "-O0"}
    script = "\n".join([*printed(page), "~/vmi/bin/python -I -m libmicrovmi_py --flags"])
    done = subprocess.run(["sh", "-ec", script], cwd=tree, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"-I{home if page == 'README.md' else tree}" in done.stdout.splitlines()[-1]
