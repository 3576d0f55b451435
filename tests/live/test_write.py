# SPDX-License-Identifier: Apache-2.0
"""Writes through the library are the guest's memory: QEMU sees them, ROM and holes stay as they are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi, ReadOnlyError

from . import oracle
from .capi import Machine
from .guest import Guest
from .marks import on_a_ram_file, on_every_kind_of_ram, on_one_guest, on_shared_ram

PAGE = 4096
SPARE = 0x9000
GUEST_RAM = re.compile(r"memfd:memory-backend|/microvmi-live-\w+/ram")
"""Low memory that Linux leaves alone; restored all the same."""

NOT_MAPPED, READ_ONLY = 6, 11


@contextmanager
def restored(vm: Machine, address: int, size: int) -> Iterator[bytes]:
    """What is there now, and again at the end of the ``with`` block."""
    before = vm.read(address, size).content
    yield before
    assert vm.write(address, before)


@on_every_kind_of_ram
def test_write_is_seen_by_qemu(paused: Guest, vm: Machine) -> None:
    data = os.urandom(PAGE + 40)
    with restored(vm, SPARE - 20, len(data)):
        assert vm.write(SPARE - 20, data), vm.error
        assert oracle.physical(paused.monitor, SPARE - 20, len(data)) == data
        assert vm.read(SPARE - 20, len(data)).content == data


@on_every_kind_of_ram
def test_write_changes_nothing_around_it(paused: Guest, vm: Machine) -> None:
    with restored(vm, SPARE, 3 * PAGE) as before:
        assert vm.write(SPARE + 100, b"microvmi")
        after = before[:100] + b"microvmi" + before[108:]
        assert oracle.physical(paused.monitor, SPARE, 3 * PAGE) == after


@on_a_ram_file
def test_write_lies_in_the_ram_file(paused: Guest, vm: Machine) -> None:
    data = os.urandom(PAGE)
    with restored(vm, SPARE, PAGE), paused.ram_file.open("rb") as file:
        assert vm.write(SPARE, data)
        file.seek(SPARE)
        assert file.read(PAGE) == data


@on_shared_ram
def test_shared_ram_is_mapped_for_reading_only_until_something_is_written(paused: Guest, vm: Machine) -> None:
    def protections() -> set[str]:
        lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
        return {line[1] for line in lines if line[5:] and GUEST_RAM.search(line[5])}

    assert vm.read(SPARE, PAGE).ok
    assert protections() == {"r--s"}
    with restored(vm, SPARE, PAGE) as before:
        assert vm.write(SPARE, before)
        assert protections() == {"r--s", "rw-s"}


@on_every_kind_of_ram
def test_rom_cannot_be_written(paused: Guest, vm: Machine) -> None:
    rom = next(item for item in oracle.memory_map(paused.monitor) if item.kind == "rom")
    before = oracle.physical(paused.monitor, rom.start, 64)
    assert not vm.write(rom.start, bytes(byte ^ 0xFF for byte in before))
    assert vm.code == READ_ONLY
    assert oracle.physical(paused.monitor, rom.start, 64) == before


@on_every_kind_of_ram
def test_a_write_that_runs_into_a_hole_writes_nothing(paused: Guest, vm: Machine) -> None:
    start = 0xA0000 - PAGE
    before = oracle.physical(paused.monitor, start, PAGE)
    assert not vm.write(start, os.urandom(2 * PAGE))
    assert vm.code == NOT_MAPPED
    assert oracle.physical(paused.monitor, start, PAGE) == before


@on_one_guest
def test_a_write_past_the_end_fails(paused: Guest, vm: Machine) -> None:
    for address in (vm.max_address(), vm.max_address() - 4, 1 << 63, (1 << 64) - 4):
        assert not vm.write(address, b"microvmi")
        assert vm.code == NOT_MAPPED


@on_every_kind_of_ram
def test_python_writes_too(paused: Guest) -> None:
    with Microvmi.open(paused.uri) as machine:
        before = machine.read_physical(SPARE, 8)
        machine.write_physical(SPARE, b"microvmi")
        assert oracle.physical(paused.monitor, SPARE, 8) == b"microvmi"
        machine.write_physical(SPARE, before)
        with pytest.raises(ReadOnlyError):
            machine.write_physical(0xF0000, b"microvmi")
