# SPDX-License-Identifier: Apache-2.0
"""Reading and writing memory of a simulated VirtualBox machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from drivers.virtualbox.conftest import HOLE, SIZE
from drivers.virtualbox.simulator import READS, Simulator, addresses, simulated

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import IoError, NotMappedError

UNTOUCHED = 0xA5


def filled(size: int) -> bytearray:
    return bytearray([UNTOUCHED]) * size


def test_the_machine_tells_its_memory_and_its_vcpus(library: Path) -> None:
    with simulated(library, {0: 0x4000}, vcpus=3) as vm, Microvmi.open(vm.uri) as machine:
        assert (machine.max_addr, machine.vcpu_count(), machine.driver.name) == (0x4000, 3, "virtualbox")


def test_memory_above_the_hole_below_4_gib_counts(library: Path) -> None:
    with (
        simulated(library, {0: 0x4000, 0x100000000: 0x10000}, ram_size=0xE0010000) as vm,
        Microvmi.open(vm.uri) as machine,
    ):
        assert machine.max_addr == 0x100010000
        assert machine.read_physical(0x10000FFF8, 8) == addresses(0x10000FFF8, 8)


def test_memory_that_is_larger_but_has_no_hole_ends_at_its_size(library: Path) -> None:
    with simulated(library, {0: 0x4000}, ram_size=0xE0010000) as vm, Microvmi.open(vm.uri) as machine:
        assert machine.max_addr == 0xE0010000


@pytest.mark.parametrize(("address", "size"), [(0x4000, 8), (0x4003, 100), (0x4FFD, 7), (0x4001, 0x2FE000)])
def test_reads_give_what_is_there(machine: Microvmi, address: int, size: int) -> None:
    start = address // 8 * 8
    expected = addresses(start, size + 16)[address - start :][:size]
    size = min(size, HOLE - address)
    assert machine.read_physical(address, size) == expected[:size]


def test_a_read_across_the_limit_of_a_request_is_whole(library: Path) -> None:
    with simulated(library, {0: 0x900000}) as vm, Microvmi.open(vm.uri) as machine:
        assert machine.read_physical(0x3008, 0x800001) == addresses(0x3008, 0x800008)[:0x800001]


@pytest.mark.parametrize("before", [0, 1, 0xFFF, 0x1000, 0x7000, 0x2FD000])
@pytest.mark.parametrize("after", [1, 0x1000, 0x1001, 0x200000])
def test_a_read_ends_at_a_hole_and_leaves_the_rest_alone(machine: Microvmi, before: int, after: int) -> None:
    buffer = filled(before + after)
    assert machine.read_physical_into(HOLE - before, buffer) == before
    start = (HOLE - before) // 8 * 8
    assert buffer[:before] == addresses(start, HOLE - start)[HOLE - before - start :]
    assert buffer[before:] == filled(after)


def test_a_read_ends_at_the_end_of_memory(machine: Microvmi) -> None:
    buffer = filled(0x100000)
    assert machine.read_physical_into(SIZE - 0x5008, buffer) == 0x5008
    assert buffer == addresses(SIZE - 0x5008, 0x5008) + filled(0x100000 - 0x5008)


def test_a_read_behind_a_hole_begins_right_there(machine: Microvmi) -> None:
    assert machine.read_physical_into(HOLE, bytearray(0x1000)) == 0
    assert machine.read_physical(HOLE + 0x1000, 0x30000) == addresses(HOLE + 0x1000, 0x30000)


def test_a_padded_read_has_zeros_for_the_hole(machine: Microvmi) -> None:
    buffer = filled(0x20000)
    machine.read_physical_padded_into(HOLE - 0x10000, buffer)
    expected = addresses(HOLE - 0x10000, 0x10000) + bytes(0x1000) + addresses(HOLE + 0x1000, 0xF000)
    assert buffer == expected


def test_a_read_around_a_hole_costs_few_requests(vm: Simulator, machine: Microvmi) -> None:
    before = vm.msr(READS)
    assert machine.read_physical_into(0x200000, bytearray(0x400000)) == HOLE - 0x200000
    assert vm.msr(READS) - before < 30


def test_a_padded_read_over_a_large_hole_costs_a_request_a_frame(library: Path) -> None:
    with simulated(library, {0: 0x4000, 0x204000: 0x1000}) as vm, Microvmi.open(vm.uri) as machine:
        before = vm.msr(READS)
        machine.read_physical_padded_into(0, bytearray(0x205000))
        assert vm.msr(READS) - before < 0x200 + 30


def test_a_large_read_is_few_requests(vm: Simulator, machine: Microvmi) -> None:
    before = vm.msr(READS)
    machine.read_physical(0x1000, 0x200000)
    assert vm.msr(READS) - before == 1


@pytest.mark.alone
def test_addresses_that_no_machine_has_are_refused_at_once(machine: Microvmi) -> None:
    start = time.monotonic()
    assert machine.read_physical_into(0xFFFFFFFF80000000, bytearray(0x1000)) == 0
    assert time.monotonic() - start < 0.1


@pytest.mark.parametrize(("address", "size"), [(0x5003, 5), (0x5FF0, 0x40), (0x5000, 0x280001)])
def test_a_write_changes_those_bytes_and_no_other(machine: Microvmi, address: int, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    before = bytearray(machine.read_physical(0x4000, HOLE - 0x4000))
    machine.write_physical(address, data[:size])
    before[address - 0x4000 : address - 0x4000 + size] = data[:size]
    assert machine.read_physical(0x4000, HOLE - 0x4000) == before


@pytest.mark.parametrize("address", [HOLE - 0x200000, HOLE - 1, HOLE, SIZE - 1])
def test_a_write_into_what_does_not_exist_writes_nothing(machine: Microvmi, address: int) -> None:
    before = machine.read_physical(0x4000, HOLE - 0x4000)
    with pytest.raises(NotMappedError):
        machine.write_physical(address, bytes(0x200002))
    assert machine.read_physical(0x4000, HOLE - 0x4000) == before
    assert machine.read_physical(SIZE - 8, 8) == addresses(SIZE - 8, 8)


def test_a_write_that_is_refused_after_a_part_says_how_much_was_written(library: Path) -> None:
    """A write is a request for each MiB."""
    with simulated(library, {0: 0x400000}, unwritable=0x250000) as vm, Microvmi.open(vm.uri) as machine:
        machine.memory.seek(0x20000)
        with pytest.raises(IoError, match="refused to write") as caught:
            machine.memory.write(bytes(0x300000))
        error = caught.value
        assert (error.address, error.requested, error.completed) == (0x220000, 0x300000, 0x200000)
        assert machine.memory.tell() == 0x220000
        assert machine.read_physical(0x20000, 0x200000) == bytes(0x200000)
        assert machine.read_physical(0x220000, 0x40000) == addresses(0x220000, 0x40000)


def test_other_clients_see_a_write(vm: Simulator, machine: Microvmi) -> None:
    machine.write_physical(0x5000, b"seen")
    with Microvmi.open(vm.uri) as second:
        assert second.read_physical(0x5000, 4) == b"seen"
    assert machine.read_physical(0x5000, 4) == b"seen"
