# SPDX-License-Identifier: Apache-2.0
"""A host that has closed standard streams: no number from 0 to 2 is ever one of ours that can be read or written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from programs import Programs

HERE = Path(__file__).resolve().parent
COMBINATIONS = ["0", "1", "2", "01", "02", "12", "012"]


@pytest.mark.parametrize("closed", COMBINATIONS)
def test_shared_ram_stays_out_of_reach_of_a_stray_print(
    programs: Programs, start_machine: Callable[..., str], closed: str
) -> None:
    programs.run(programs.linked("closed"), closed, start_machine(), env={"RUST_LOG": "trace" if "2" in closed else ""})


@pytest.mark.parametrize("closed", ["1", "012"])
def test_private_ram_stays_out_of_reach_of_a_stray_print(
    programs: Programs, start_machine: Callable[..., str], closed: str
) -> None:
    programs.run(programs.linked("closed"), closed, start_machine("-fake", "private"))


def test_files_of_somebody_else_s_driver_stay_out_of_reach(programs: Programs, tmp_path: Path) -> None:
    uri = f"vmi://journal/?size=0x1000&path={tmp_path}/journal"
    env = {"MICROVMI_PLUGIN_PATH": str(HERE.parent / "plugins")}
    programs.run(programs.linked("closed"), "12", uri, "stops", env=env)
    assert set((tmp_path / "journal").read_text().split()) == {"pause", "resume", "close"}


@pytest.mark.parametrize("closed", COMBINATIONS)
@pytest.mark.parametrize("kind", ["shared", "private"])
def test_a_python_program_is_no_worse_off(
    programs: Programs, start_machine: Callable[..., str], closed: str, kind: str
) -> None:
    uri = start_machine("-fake", kind) if kind == "private" else start_machine()
    programs.run(sys.executable, HERE / "closed.py", closed, uri, env={"PYTHONPATH": str(HERE.parents[1])})
