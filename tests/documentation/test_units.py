# SPDX-License-Identifier: Apache-2.0
"""The units of systemd that pages show are such; that their capability suffices, tests/live/test_shown.py shows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from documentation.blocks import Block, blocks
from needs import missing

UNITS = [block for block in blocks() if block.language == "ini"]


@pytest.mark.parametrize("block", UNITS, ids=lambda block: block.name)
def test_the_units_of_a_page_are_units(block: Block, tmp_path: Path) -> None:
    if (program := shutil.which("systemd-analyze")) is None:
        missing("no systemd-analyze; to enable: apt-get install systemd")
    unit = tmp_path / "shown.service"
    unit.write_text(block.text.replace("/usr/local/bin/microvmi", "/bin/true"))
    done = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert "AmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH\n" in block.text
