# SPDX-License-Identifier: Apache-2.0
"""Threads that listen and answer while another one destroys the machine; the guest then runs as if nobody had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from contract.eventful import ORDER, Do, eventful
from threads.conftest import Run

from libmicrovmi_py import EventKind, Intercept, PageAccess

ROUNDS = 20 if os.environ.get("MICROVMI_LONG") else 3

INTERCEPTS = {
    "watch": Intercept(EventKind.VIRTUAL_ACCESS, 0, ORDER, 1, PageAccess.READ),
    "step": Intercept(EventKind.SINGLE_STEP),
}


def words(intercept: Intercept) -> tuple[int, ...]:
    """As the program takes them."""
    return int(intercept.kind), intercept.number, intercept.address, intercept.size, int(intercept.access)


@pytest.mark.parametrize("kind", INTERCEPTS)
def test_a_qemu_that_is_destroyed_in_the_middle_runs_on(run: Run, tmp_path: Path, kind: str) -> None:
    with eventful(tmp_path) as guest:
        run("listeners", guest.qemu.uri, *words(INTERCEPTS[kind]), ROUNDS)
        assert guest.qemu.status() == "running"
        assert not [item for item in guest.qemu.monitor.execute("query-chardev") if "microvmi" in item["label"]]
        guest.do(Do.CALL)
        guest.wait()


def test_a_made_up_machine_too(run: Run) -> None:
    run("listeners", "vmi://fake/?vcpus=2", *words(Intercept(EventKind.CR, 3)), ROUNDS)
