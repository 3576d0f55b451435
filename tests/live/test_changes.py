# SPDX-License-Identifier: Apache-2.0
"""The table in docs/changes.md is what real QEMUs show."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import VmGoneError

from .change_table import AT_ONCE, COLUMNS, ROWS, cells, line, look, shown
from .changes import AFTER, BEFORE, EVENTS, PAGE, staged
from .guest import Boot

Seen = dict[str, tuple[Future[list[str]], Future[list[str]]]]


@pytest.fixture(scope="module")
def seen(boot: Boot) -> Iterator[Seen]:
    """What is seen of all rows, several at a time."""
    with tempfile.TemporaryDirectory(prefix="mvc-") as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        yield look(Path(folder), pool)


@pytest.mark.parametrize("row", ROWS)
def test_the_table_of_changes_is_what_happens(seen: Seen, row: str) -> None:
    private, shared = (future.result() for future in seen[row])
    assert line(row, cells(private, shared)) in shown()


def test_the_table_has_no_other_rows() -> None:
    head, _, *rows = shown().splitlines()
    assert head == f"| | {' | '.join(COLUMNS)} |"
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(ROWS)


def test_another_qemu_of_the_same_name_is_opened_anew_and_not_taken_for_the_first(boot: Boot) -> None:
    event = EVENTS["QEMU ended, another has its name"]
    with tempfile.TemporaryDirectory(prefix="mvc-") as folder, staged(event, Path(folder), shared=False) as stage:
        with Microvmi.open(stage.guest.uri) as first:
            assert first.read_physical(PAGE, len(BEFORE)) == BEFORE
            event.happen(stage)
            with pytest.raises(VmGoneError):
                first.read_physical(PAGE, len(BEFORE))
            with Microvmi.open(stage.guest.uri) as second:
                assert second.read_physical(PAGE, len(AFTER)) == AFTER
            with pytest.raises(VmGoneError):
                first.pause()
        assert stage.guest.status() == "running", "the end of the first does nothing to the second"
