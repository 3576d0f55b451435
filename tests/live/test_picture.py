# SPDX-License-Identifier: Apache-2.0
"""A picture of a Linux guest: its kernel's code is code, and whose pages they are is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.linux.tasks import tasks
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.picture.contents import Content, Owner, Picture, look
from libmicrovmi_py.tools.picture.owners import SEVERAL, owners

from .guest import Config, Guest
from .packages import ROOT

ONE = pytest.mark.parametrize("booted", [Config("private")], indirect=True, ids=str)


@pytest.fixture
def machine(guest: Guest) -> Iterator[Microvmi]:
    with Microvmi.open(guest.uri) as vm, vm.snapshot() as taken:
        yield taken


def shares(picture: Picture, found: list[Owner], name: str) -> Counter[Content]:
    """What the pages of an owner hold."""
    pieces = [picture.cells[item.start // 4096 : item.end // 4096] for item in found if item.name == name]
    return Counter(Content(content) for piece in pieces for content in piece)


@ONE
def test_whose_pages_they_are(machine: Microvmi) -> None:
    picture, found = look(machine), owners(machine)
    code = shares(picture, found, "kernel code")
    assert code[Content.CODE] > 0.9 * code.total() > 1000
    kernel = Kernel.find(machine)
    text = kernel.space.translate(kernel.symbols.address("_stext")).physical_address
    assert text is not None
    assert any(item.start <= text < item.end and item.name == "kernel code" for item in found)
    tables = {item.start for item in found if item.name == "page tables"}
    assert kernel.space.tables.base & ~0xFFF in tables
    with_memory = [task for task in tasks(kernel) if task.space is not None]
    assert {task.pages & ~0xFFF for task in with_memory} <= tables
    told = {item.name for item in found}
    assert any(f"(process {task.pid})" in name for task in with_memory for name in told) or SEVERAL in told


@ONE
def test_a_process_has_the_pages_that_it_reads(machine: Microvmi) -> None:
    """Every page of the first process is its own, or it shares it."""
    kernel = Kernel.find(machine)
    first = next(task for task in tasks(kernel) if task.pid == 1)
    space = first.space
    assert space is not None
    theirs = [item for item in owners(machine) if "process" in item.name and "kernel" not in item.name]
    for item in space.mapped(0, 1 << 47):
        place = item.physical_address
        names = {owner.name for owner in theirs if owner.start <= place < owner.end}
        assert names & {SEVERAL, f"{first.name.decode()} (process 1)"}, hex(place)


@ONE
def test_the_command_draws_it_and_the_guest_runs(guest: Guest, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.png", "a.svg", "a.html")]
    line = [sys.executable, "-m", "libmicrovmi_py.command", "picture", guest.name, *map(str, files), "--json"]
    told = json.loads(subprocess.run(line, stdout=subprocess.PIPE, check=True, cwd=ROOT, timeout=60).stdout)
    assert sum(told["totals"].values()) == guest.config.size == sum(run["size"] for run in told["runs"])
    assert {"kernel code", "page tables"} <= {item["owner"] for item in told["owners"]}
    assert all(path.stat().st_size > 1000 for path in files)
    assert guest.monitor.status() == "running"
