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

WAYS = {"elf": {"paging": False, "format": "elf"}, "elf by page tables": {"paging": True}} | {
    name: {"paging": False, "format": name}
    for name in ("kdump-zlib", "kdump-lzo", "kdump-snappy", "kdump-raw-zlib", "kdump-raw-lzo", "kdump-raw-snappy")
}


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


@on_one_guest
@pytest.mark.parametrize("way", WAYS)
def test_a_dump_by_qemu_holds_the_guests_memory_and_registers(
    paused: Guest, open_machine: OpenMachine, scratch: Path, way: str
) -> None:
    offered = paused.monitor.execute("query-dump-guest-memory-capability")["formats"]
    assert {"elf", "kdump-zlib"} <= set(offered)
    if WAYS[way].get("format", "elf") not in offered:
        return
    path = scratch / "dump"
    paused.monitor.execute("dump-guest-memory", protocol=f"file:{path}", **WAYS[way])
    vm = open_machine(str(path))
    ranges = oracle.memory_map(paused.monitor)
    if WAYS[way]["paging"]:
        ranges = [item for item in vm.memory_map() if item.size]
        assert sum(item.size for item in ranges) > paused.config.size - MIB
    else:
        assert _without_kinds(vm.memory_map()) == _without_kinds(ranges)
        assert vm.max_address() == paused.config.size
    assert first_difference(paused, vm, ranges, scratch) is None
    assert vm.vcpu_count() == VCPUS
    for vcpu, values in enumerate(oracle.registers(paused.monitor)):
        actual, known = vm.registers(vcpu), values.keys() - UNKNOWN
        assert {name: actual[name] for name in known} == {name: values[name] for name in known}


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
