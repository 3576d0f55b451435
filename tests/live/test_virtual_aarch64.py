# SPDX-License-Identifier: Apache-2.0
"""Virtual addresses of an AArch64 Debian guest, whose kernel lies anywhere; QEMU says where each leads."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator

import pytest
from needs import missing

from libmicrovmi_py import Microvmi

from . import oracle
from .capi import Machine
from .conftest import OpenMachine, RunProgram
from .guest import QEMU_ARM64, Config, Guest, banner_of, obtain_boot_arm64
from .packages import Unobtainable
from .spaces import AARCH64, KERNEL_EXECUTE, KERNEL_WRITE, NOT_CANONICAL, USER_EXECUTE, USER_READ, Mapped, Space

PAGE = 4096
RAM = 1 << 30
"""Where memory begins."""

SAMPLES = 150


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest, stopped while its first vCPU is in the kernel, with the pages of a process.

    In the process itself it has but the way into the kernel, which isolates its tables (KPTI).
    """
    try:
        if shutil.which(QEMU_ARM64) is None:
            raise Unobtainable(f"{QEMU_ARM64} is not installed")
        boot = obtain_boot_arm64(tmp_path_factory.mktemp("boot"))
    except Unobtainable as err:
        missing(f"no AArch64 guest: {err}; to enable: apt-get install qemu-system-arm")
    with Guest(Config(mib=256, machine="virt", cpu="cortex-a57", line=""), boot) as guest:
        deadline = time.monotonic() + 20
        while guest.monitor.status() == "running" or not _is_in_kernel_with_process(guest):
            assert time.monotonic() < deadline, "the guest never runs a process"
            guest.monitor.execute("cont")
            time.sleep(0.01)
            guest.monitor.execute("stop")
        yield guest


def _is_in_kernel_with_process(guest: Guest) -> bool:
    registers = guest.monitor.human("info registers")
    return " EL1" in registers and oracle.translated(guest.monitor, 0x400000) is not None


@pytest.fixture
def vm(arm64: Guest, open_machine: OpenMachine) -> Machine:
    return open_machine(arm64.uri)


@pytest.fixture
def space(vm: Machine) -> Space:
    return Space.of_vcpu(vm)


@pytest.fixture
def ranges(space: Space) -> list[Mapped]:
    return list(space.mapped())


def _some(items: list[int]) -> list[int]:
    return items[:: max(1, len(items) // SAMPLES)]


def test_both_halves_have_what_they_should(space: Space, ranges: list[Mapped]) -> None:
    assert space.paging == AARCH64
    lower, upper = ([item for item in ranges if item.start >> 63 == half] for half in (0, 1))
    assert sum(item.size for item in upper) > 256 << 20, "the kernel has all of memory"
    assert {item.page_size for item in upper} >= {PAGE, 2 << 20}
    assert lower
    assert all(item.rights & (USER_READ | USER_EXECUTE) for item in lower)
    assert not any(item.rights & (USER_READ | USER_EXECUTE) for item in upper)
    assert not any(item.rights & KERNEL_WRITE and item.rights & KERNEL_EXECUTE for item in upper)


def test_what_is_mapped_is_where_qemu_finds_it(arm64: Guest, space: Space, ranges: list[Mapped]) -> None:
    offset = 0x123
    for number, item in enumerate(ranges[:: max(1, len(ranges) // SAMPLES)]):
        address = item.start + (item.size // PAGE - 1) * PAGE * (number % 2) + offset
        told = space.translate(address)
        assert (told.ok, told.physical) == (True, item.physical + address - item.start)
        assert oracle.translated(arm64.monitor, address) == told.physical


def test_what_is_not_mapped_is_nowhere_for_qemu_either(arm64: Guest, space: Space, ranges: list[Mapped]) -> None:
    ends = [
        one.start + one.size for one, following in itertools.pairwise(ranges) if one.start + one.size < following.start
    ]
    assert ends
    for address in _some(ends):
        assert not space.translate(address).ok
        assert oracle.translated(arm64.monitor, address) is None


def test_addresses_of_neither_half_are_none(arm64: Guest, space: Space) -> None:
    for address in (1 << 48, 0xFFFE << 48, 1 << 55, (0xFFFF << 48) - 1):
        assert space.translate(address).failure == NOT_CANONICAL
        assert space.read(address, 8).content == b""
        assert oracle.translated(arm64.monitor, address) is None


def test_a_read_goes_on_across_pages_wherever_they_lie(arm64: Guest, space: Space, ranges: list[Mapped]) -> None:
    one, following = next(
        (one, following)
        for one, following in itertools.pairwise(ranges)
        if one.start + one.size == following.start
        and min(one.physical, following.physical) >= RAM
        and one.physical + one.size != following.physical
    )
    expected = oracle.physical(arm64.monitor, one.physical + one.size - 100, 100)
    expected += oracle.physical(arm64.monitor, following.physical, 100)
    assert space.read(following.start - 100, 200).content == expected


def test_python_says_the_same_as_c(arm64: Guest, ranges: list[Mapped]) -> None:
    with Microvmi.open(arm64.uri) as machine:
        same = machine.address_space(vcpu=0)
        assert [Mapped(r.start, r.size, r.physical_address, r.rights, r.page_size) for r in same.mapped()] == ranges


def test_the_banner_of_the_kernel_is_found_without_symbols(arm64: Guest, run: RunProgram) -> None:
    ended = run("read-virtual", arm64.name)
    assert (ended.returncode, ended.stderr) == (0, "")
    address, banner = ended.stdout.rstrip("\n").split(" ", 1)
    assert banner_of(banner) == arm64.banner
    assert oracle.translated(arm64.monitor, int(address, 16)) is not None
