# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a Debian guest that runs: virtual memory, streams and memory without a copy, as of every context."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from libmicrovmi_py import Microvmi, SnapshotMethod
from libmicrovmi_py.errors import ReadOnlyError

from .conftest import RunProgram
from .guest import Boot, Config, Guest, banner_of

PAGE = 4096


@pytest.fixture(scope="module")
def running(boot: Boot) -> Iterator[Guest]:
    with Guest(Config(mib=256), boot) as guest:
        yield guest


@pytest.fixture(scope="module")
def banner(running: Guest, run: RunProgram) -> tuple[int, bytes]:
    """Where the kernel's banner lies in the machine, and what it says."""
    address, text = run("read-virtual", running.name).stdout.rstrip("\n").split(" ", 1)
    assert banner_of(text) == running.banner
    return int(address, 16), text.encode()


@pytest.fixture(scope="module", params=[False, True], ids=["background", "paused"])
def snapshot(running: Guest, request: pytest.FixtureRequest) -> Iterator[Microvmi]:
    with Microvmi.open(running.uri) as vm:
        taken = vm.snapshot(pause_only=request.param)
    methods = (SnapshotMethod.BACKGROUND, SnapshotMethod.PAUSED)
    with taken:
        assert taken.snapshot_info.method is methods[request.param]
        yield taken
    assert running.monitor.status() == "running"


def test_the_kernels_banner_is_at_its_address(snapshot: Microvmi, banner: tuple[int, bytes]) -> None:
    address, text = banner
    for vcpu in range(snapshot.vcpu_count()):
        assert snapshot.address_space(vcpu=vcpu).read_virtual(address, len(text)) == text


def test_all_that_is_mapped_is_told(snapshot: Microvmi, banner: tuple[int, bytes]) -> None:
    space = snapshot.address_space(vcpu=0)
    (around,) = [item for item in space.mapped() if item.start <= banner[0] < item.end]
    assert space.translate(around.start).physical_address == around.physical_address


def test_streams_and_maps_have_the_same_bytes(snapshot: Microvmi, banner: tuple[int, bytes]) -> None:
    address, text = banner
    place = snapshot.address_space(vcpu=0).translate(address).physical_address
    assert place is not None
    for stream in (snapshot.memory, snapshot.padded_memory):
        stream.seek(place)
        assert stream.read(len(text)) == text
    start = place // PAGE * PAGE
    assert bytes(snapshot.map_physical(start, 2 * PAGE))[place - start :][: len(text)] == text
    assert snapshot.padded_memory.seek(0, os.SEEK_END) == snapshot.max_addr


def test_nothing_is_written_through_either(snapshot: Microvmi, banner: tuple[int, bytes]) -> None:
    with pytest.raises(ReadOnlyError):
        snapshot.address_space(vcpu=0).write_virtual(banner[0], b"x")
