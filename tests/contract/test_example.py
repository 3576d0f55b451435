# SPDX-License-Identifier: Apache-2.0
"""The driver that docs/drivers.md shows keeps the contract, as a plugin of somebody else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

STAND = """
from contract.target import Target

def stand(folder):
    yield Target("vmi://mine/?host=here", {0: b"\\x11" * (1 << 20)}, writable=False)
"""


def example() -> str:
    """The first Python block of the section "Write one"."""
    section = (ROOT / "docs" / "drivers.md").read_text().partition("\n## Write one\n")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_keeps_the_contract(tmp_path: Path) -> None:
    for folder, text in (("plugins", example()), ("stands", STAND)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text)
    places = {"MICROVMI_PLUGIN_PATH": f"{tmp_path}/plugins", "MICROVMI_STANDS": f"{tmp_path}/stands"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "mine", "tests/contract"]
    done = subprocess.run(
        [*command, f"--basetemp={tmp_path}/t"], env={**os.environ, **places}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 80
