# SPDX-License-Identifier: Apache-2.0
"""Threads read virtual memory while its tables change, what they remember is flushed, and the machine runs or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from threads.conftest import Run


@pytest.mark.parametrize("options", [(), ("-fake", "private")], ids=["shared", "private"])
def test_on_another_process(
    run: Run, seconds: int, start_machine: Callable[..., str], options: tuple[str, ...]
) -> None:
    run("translations", start_machine(*options), seconds)


def test_on_a_machine_that_python_reads(run: Run, seconds: int) -> None:
    run("translations", "vmi://fake/?size=0x200000", seconds)
