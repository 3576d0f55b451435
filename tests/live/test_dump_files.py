# SPDX-License-Identifier: Apache-2.0
"""Dump files of a stopped guest, made by QEMU in each format it has, hold what ``pmemsave`` saves and its registers.

QEMU makes Windows crash dumps of Windows guests only: those, and LiME, are written from what ``pmemsave`` saved.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drivers.dump import builders

from . import oracle
from .capi import Machine
from .conftest import OpenMachine
from .guest import MIB, VCPUS, Guest
from .marks import on_one_guest

PAGE = 4096
PAGES_APART = 37
"""Every so many pages one is read by itself as well."""

UNKNOWN = ("efer", "msr_efer")
"""QEMU's notes do not have them."""


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory, if the host has one: dumps are as large as the guest."""
    with tempfile.TemporaryDirectory(dir=oracle.SCRATCH, prefix="microvmi-live-") as name:
        yield Path(name)


def first_difference(guest: Guest, vm: Machine, ranges: list[oracle.Range], scratch: Path) -> int | None:
    """The page at which the dump and ``pmemsave`` first differ, ``None`` if they never do."""
    for item in ranges:
        for start in range(item.start, item.end, oracle.PIECE):
            expected = saved(guest, start, min(oracle.PIECE, item.end - start), scratch)
            read = vm.read(start, len(expected)).content
            for at in range(0, len(expected), PAGE if read != expected else PAGES_APART * PAGE):
                if vm.read(start + at, PAGE).content != expected[at : at + PAGE]:
                    return start + at
            if read != expected:
                return start
    return None


def saved(guest: Guest, start: int, size: int, scratch: Path) -> bytes:
    """Memory as QEMU saves it."""
    path = scratch / "saved"
    guest.monitor.execute("pmemsave", val=start, size=size, filename=str(path))
    return path.read_bytes()


def offered(guest: Guest) -> list[str]:
    """The formats that this QEMU writes."""
    formats: list[str] = guest.monitor.execute("query-dump-guest-memory-capability")["formats"]
    return formats


def assert_same(guest: Guest, vm: Machine, ranges: list[oracle.Range], scratch: Path) -> None:
    """Whether a dump has the guest's memory and registers."""
    assert first_difference(guest, vm, ranges, scratch) is None
    assert vm.vcpu_count() == VCPUS
    for vcpu, values in enumerate(oracle.registers(guest.monitor)):
        actual, known = vm.registers(vcpu), values.keys() - UNKNOWN
        assert {name: actual[name] for name in known} == {name: values[name] for name in known}


@on_one_guest
def test_dumps_of_every_format_hold_the_guests_memory_and_registers(
    paused: Guest, open_machine: OpenMachine, scratch: Path
) -> None:
    formats = [name for name in offered(paused) if name == "elf" or name.startswith("kdump-")]
    assert {"elf", "kdump-zlib"} <= set(formats)
    for form in formats:
        path = scratch / form
        paused.monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{path}", format=form)
        vm, ranges = open_machine(str(path)), oracle.memory_map(paused.monitor)
        assert _without_kinds(vm.memory_map()) == _without_kinds(ranges)
        assert vm.max_address() == paused.config.size
        assert_same(paused, vm, ranges, scratch)


@on_one_guest
def test_segments_by_the_guests_page_tables_overlap_and_hold_the_same(
    paused: Guest, open_machine: OpenMachine, scratch: Path
) -> None:
    path = scratch / "dump"
    paused.monitor.execute("dump-guest-memory", paging=True, protocol=f"file:{path}")
    vm = open_machine(str(path))
    assert sum(item.size for item in vm.memory_map()) > paused.config.size - MIB
    assert_same(paused, vm, vm.memory_map(), scratch)


def _without_kinds(ranges: list[oracle.Range]) -> list[oracle.Range]:
    """A dump does not tell memory that the guest cannot write, below 1 MiB, from other memory."""
    return oracle.joined(oracle.Range(item.start, item.size, "ram") for item in ranges)


FORMATS: dict[str, Callable[[builders.Memory], bytes]] = {
    "raw": lambda memory: b"".join(memory.values()),
    "lime": builders.lime,
    "windows": builders.windows,
    "windows bitmap": lambda memory: builders.windows(memory, kind=5),
    "kdump": builders.kdump,
    "flattened kdump": lambda memory: builders.flattened(builders.kdump(memory), 1 << 16),
}


@on_one_guest
@pytest.mark.parametrize("form", FORMATS)
def test_a_dump_written_from_what_qemu_saved_holds_it(
    paused: Guest, open_machine: OpenMachine, scratch: Path, form: str
) -> None:
    ranges = [oracle.Range(0, 0xA0000, "ram"), oracle.Range(0x100000, 24 * MIB, "ram")]
    if form == "raw":
        ranges = [oracle.Range(0, 25 * MIB, "ram")]
    memory = {item.start: saved(paused, item.start, item.size, scratch) for item in ranges}
    path = scratch / "dump"
    path.write_bytes(FORMATS[form](memory))
    vm = open_machine(str(path))
    assert vm.memory_map() == ranges
    assert any(memory[ranges[-1].start])
    assert first_difference(paused, vm, ranges, scratch) is None
