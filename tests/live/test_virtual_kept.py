# SPDX-License-Identifier: Apache-2.0
"""How long a translation is believed, on a guest whose page tables somebody else changes; by the kind of its RAM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from . import paged
from .capi import Machine
from .conftest import OpenMachine
from .spaces import X86_4_LEVELS, Space
from .tiny import Tiny

MODE = paged.MODES["4 levels"]
ENTRY = paged.table(3) + 0x10 * 8
"""Of the page at ``VIRTUAL``: where it stands."""

VIRTUAL, FIRST = 0x10000, 0x200000
SHARED = ("-object", "memory-backend-memfd,id=ram,size=16M,share=on", "-machine", "memory-backend=ram")


@pytest.fixture(scope="module", params=["private", "shared"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, boot: object) -> Iterator[Tiny]:
    """A guest that runs, which is that it halts and waits for nothing; ``boot`` says what is missing."""
    options = SHARED if request.param == "shared" else ()
    with paged.paged(tmp_path_factory.mktemp("kept"), MODE, options) as guest:
        yield guest


@pytest.fixture
def vm(running: Tiny, open_machine: OpenMachine) -> Machine:
    running.monitor.execute("cont")
    return open_machine(running.uri)


@pytest.fixture
def other(running: Tiny, open_machine: OpenMachine) -> Iterator[Machine]:
    """Somebody else, who puts back what he changed."""
    machine = open_machine(running.uri)
    assert machine.read(ENTRY, 8).content == (FIRST | paged.SUPERVISOR).to_bytes(8, "little")
    yield machine
    lead(machine, FIRST)


def lead(machine: Machine, physical: int) -> None:
    """Write the entry of the page, past any address space."""
    assert machine.write(ENTRY, (physical | paged.SUPERVISOR).to_bytes(8, "little"))


def found(vm: Machine) -> int:
    """Where the page lies, by what is read from it: memory has numbers that are their own addresses."""
    space = Space(vm, paging=X86_4_LEVELS, base=paged.LOADED)  # to ask a vCPU would be a look
    return int.from_bytes(space.read(VIRTUAL, 8).content, "little")


def test_of_a_machine_that_runs_nothing_is_believed(vm: Machine, other: Machine) -> None:
    for physical in (FIRST, FIRST + 0x1000, FIRST + 0x5000):
        lead(other, physical)
        assert found(vm) == physical


def test_of_a_machine_that_others_paused_nothing_is_believed(running: Tiny, vm: Machine, other: Machine) -> None:
    running.monitor.execute("stop")
    for physical in (FIRST, FIRST + 0x1000, FIRST + 0x5000):
        lead(other, physical)
        assert found(vm) == physical


def test_while_we_keep_it_paused_others_changes_are_not_seen_before_they_are_asked_for(
    running: Tiny, vm: Machine, other: Machine, library: Any, request: pytest.FixtureRequest
) -> None:
    assert vm.pause()
    assert found(vm) == FIRST
    lead(other, FIRST + 0x1000)
    assert found(vm) == FIRST
    assert library.microvmi_flush_translations(vm.context)
    if request.node.callspec.params["running"] == "private":
        assert found(vm) == FIRST, "the page with the table is kept as well"
        vm.memory_map()
    assert found(vm) == FIRST + 0x1000


def test_what_we_write_ourselves_is_seen_at_once(vm: Machine, other: Machine) -> None:
    assert vm.pause()
    assert found(vm) == FIRST
    lead(vm, FIRST + 0x1000)
    assert found(vm) == FIRST + 0x1000


def test_a_resume_forgets(vm: Machine, other: Machine) -> None:
    assert vm.pause()
    assert found(vm) == FIRST
    lead(other, FIRST + 0x1000)
    assert vm.resume()
    assert found(vm) == FIRST + 0x1000
