# SPDX-License-Identifier: Apache-2.0
"""Address spaces and their windows as files, and where their page tables come from."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from pagetables import MIB, Tables, finish_kpti, kpti_pair

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import (
    InvalidArgumentError,
    InvalidContextError,
    IoError,
    NotMappedError,
    NotSupportedError,
)
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.paging import Paging, PagingControl

KERNEL = 0xFFFF_FFFF_8000_0000
LAST = (1 << 64) - 4096
PAGES = 6

MEMORY = bytearray(random.Random(21).randbytes(MIB)) + bytearray(MIB)
TABLES = Tables(MEMORY, "x86-4", MIB)
TABLES.map_range(KERNEL, 0x4000, PAGES * 4096)
TABLES.map(LAST, 0x3000)
CONTENT = bytes(MEMORY[0x4000 : 0x4000 + PAGES * 4096])


@pytest.fixture
def machine() -> Iterator[Microvmi]:
    with Microvmi.from_driver(FakeDriver({0: bytearray(MEMORY)})) as opened:
        yield opened


@pytest.fixture
def space(machine: Microvmi) -> AddressSpace:
    return machine.address_space(TABLES.base)


def test_positions_are_virtual_addresses_up_to_the_last(space: AddressSpace) -> None:
    assert (space.readable(), space.writable(), space.seekable(), space.tell()) == (True, True, True, 0)
    assert space.seek(KERNEL + 100) == KERNEL + 100
    assert space.read(50) == CONTENT[100:150]
    assert space.seek(-20, io.SEEK_CUR) == KERNEL + 130
    assert space.seek(-16, io.SEEK_END) == (1 << 64) - 16
    assert space.read(100) == MEMORY[0x3FF0:0x4000]
    assert (space.tell(), space.read(1), space.readinto(bytearray(5))) == (1 << 64, b"", 0)
    assert (space.seek(-5), space.seek(1 << 70)) == (0, 1 << 64)
    with pytest.raises(InvalidArgumentError):
        space.seek(0, 3)


def test_reads_stop_before_what_is_not_mapped(space: AddressSpace) -> None:
    end = KERNEL + PAGES * 4096
    space.seek(end - 10)
    buffer = bytearray(b"\xee" * 20)
    assert space.readinto(buffer) == 10
    assert buffer == CONTENT[-10:] + b"\xee" * 10
    for read in (lambda: space.read(5), lambda: space.readinto(bytearray(5)), space.readall):
        with pytest.raises(NotMappedError) as caught:
            read()
        assert caught.value.address == space.tell() == end
        assert caught.value.translation is not None
    space.seek(KERNEL)
    assert space.readall() == CONTENT


def test_a_write_moves_the_position_and_one_that_cannot_be_leaves_it(space: AddressSpace) -> None:
    space.seek(KERNEL + 4090)
    assert space.write(b"0123456789") == 10
    assert space.tell() == KERNEL + 4100
    assert space.read_virtual(KERNEL + 4090, 10) == b"0123456789"
    for address in (KERNEL + PAGES * 4096 - 1, (1 << 64) - 1):
        space.seek(address)
        with pytest.raises(NotMappedError):
            space.write(b"ab")
        assert space.tell() == address
        assert space.read_virtual(address, 1) != b"a"


def test_a_buffered_reader_goes_on_top_of_a_window(space: AddressSpace) -> None:
    window = space.window(KERNEL, PAGES * 4096)
    with io.BufferedReader(window) as reader:
        assert reader.read(3) == CONTENT[:3]
        assert reader.seek(5000) == 5000
        assert reader.peek(4)[:4] == CONTENT[5000:5004]
        assert reader.seek(-7, io.SEEK_END) == len(CONTENT) - 7
        assert reader.read() == CONTENT[-7:]
        assert io.BufferedReader(space.window(KERNEL)).read(5) == CONTENT[:5]
    assert window.closed
    assert not space.closed


def test_a_padded_window_has_zeros_and_cannot_be_written(space: AddressSpace) -> None:
    window = space.window(KERNEL - 4096, (PAGES + 2) * 4096, padded=True)
    assert window.read() == bytes(4096) + CONTENT + bytes(4096)
    assert not window.writable()
    with pytest.raises(io.UnsupportedOperation):
        window.write(b"x")


def test_a_window_is_as_large_as_it_can_be(space: AddressSpace) -> None:
    assert space.window(LAST).seek(0, io.SEEK_END) == 4096
    assert space.window(0).seek(0, io.SEEK_END) == (1 << 63) - 1
    window = space.window(KERNEL, 4096)
    window.seek(4090)
    with pytest.raises(NotMappedError):
        window.write(b"beyond it")
    for start, size in ((LAST, 4097), (0, 1 << 63), (0, -1)):
        with pytest.raises(InvalidArgumentError):
            space.window(start, size)


@pytest.mark.parametrize("address", [-1, 1 << 64, 1 << 80])
def test_no_other_address_is_one(space: AddressSpace, address: int) -> None:
    calls = (
        lambda: space.read_virtual(address, 1),
        lambda: space.read_virtual_into(address, bytearray(1)),
        lambda: space.read_virtual_exactly_into(address, bytearray(1)),
        lambda: space.read_virtual_padded_into(address, bytearray(1)),
        lambda: space.write_virtual(address, b"x"),
        lambda: space.translate(address),
        lambda: space.read_batch([(KERNEL, bytearray(1)), (address, bytearray(1))]),
        lambda: space.window(address),
    )
    for call in calls:
        with pytest.raises(InvalidArgumentError, match="64 bits"):
            call()


def test_what_is_closed_says_so(machine: Microvmi, space: AddressSpace) -> None:
    window = space.window(KERNEL)
    window.close()
    with pytest.raises(ValueError, match="closed file"):
        window.read(1)
    assert space.read_virtual(KERNEL, 1) == CONTENT[:1]
    machine.close()
    for call in (lambda: space.read(1), lambda: space.translate(0), lambda: space.window(0), space.twin, space.tell):
        with pytest.raises(InvalidContextError):
            call()


# ----------------------------------------------------------------------------------------------- where tables come from

LONG = {"cr0": 0x8005_0033, "cr3": TABLES.base | 0x801, "cr4": 0x20, "efer": 0xD01}


def test_a_vcpu_names_its_tables() -> None:
    states = [VcpuState(Architecture.X86, values) for values in (LONG, {**LONG, "cr0": 0x11}, {"cr0": 0x8005_0033})]
    with Microvmi.from_driver(FakeDriver({0: bytearray(MEMORY)}, states=states)) as machine:
        space = machine.address_space(vcpu=0)
        assert space.tables == (Paging.X86_4_LEVELS, TABLES.base | 0x801, 0, 0, 0)
        assert space.read_virtual(KERNEL, 16) == CONTENT[:16]
        assert machine.address_space(vcpu=1).translate(0x1234).physical_address == 0x1234
        assert machine.address_space(0x7000, vcpu=0).tables.base == 0x7000
        with pytest.raises(NotSupportedError, match="name the base"):
            machine.address_space(vcpu=2)
        with pytest.raises(InvalidArgumentError, match="no vCPU 3"):
            machine.address_space(vcpu=3)


def test_the_base_or_a_vcpu_has_to_be_named(machine: Microvmi) -> None:
    with pytest.raises(InvalidArgumentError):
        machine.address_space()
    with pytest.raises(InvalidArgumentError):
        machine.address_space(vcpu=0, paging=Paging.X86_PAE)


@pytest.mark.parametrize(
    ("base", "more"),
    [
        (-1, {}),
        (1 << 64, {}),
        (0, {"control": 8}),
        (0, {"upper_base": 4096}),
        (0, {"physical_bits": 53}),
        (0, {"physical_bits": 31}),
        (0, {"physical_bits": -1}),
        (0, {"paging": Paging.AARCH64, "control": 3 << 14}),
        (0, {"paging": 6}),
    ],
)
def test_what_no_processor_has_is_refused(machine: Microvmi, base: int, more: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError):
        machine.address_space(base, **more)


def test_a_mode_says_how_tables_are_read(machine: Microvmi) -> None:
    space = machine.address_space(0, paging=Paging.X86_32, control=PagingControl.NO_LARGE_PAGES)
    assert space.tables.control == 1
    assert repr(space) == "<AddressSpace X86_32 0x0>"


@pytest.mark.parametrize("mode", ["x86-4", "x86-5", "x86-pae"])
def test_the_twin_of_a_kernel_that_isolates_its_tables(mode: str) -> None:
    memory = bytearray(MIB)
    kernel, user = kpti_pair(memory, mode, 0x10000)
    high = kernel.mode.high or 0xC000_0000
    kernel.map(0x400000, 0x5000)
    for index in range(3 if kernel.mode.high else 1):
        kernel.map(high + (index << kernel.mode.shifts[-1]), 0x6000 + index * 4096)
    user._next = kernel.end
    user.map(high, 0x6000)
    finish_kpti(kernel, user)
    with Microvmi.from_driver(FakeDriver({0: memory})) as machine:
        space = machine.address_space(kernel.base | 5, paging=Paging(kernel.mode.paging))
        twin = space.twin()
        assert (twin.tables.base, twin.twin().tables) == (user.base | 5, space.tables)
        assert twin.translate(0x400000).physical_address == space.translate(0x400000).physical_address == 0x5000
        memory[user.base : user.base + 8] = b"\x67" + bytes(7)
        with pytest.raises(NotSupportedError, match="not its twin"):
            space.twin()


def test_what_has_no_twin(machine: Microvmi) -> None:
    for base in (TABLES.base, 1 << 40, 0x4000):
        with pytest.raises(NotSupportedError):
            machine.address_space(base).twin()
    with pytest.raises(NotSupportedError):
        machine.address_space(0, paging=Paging.OFF).twin()


def test_remembered_translations_can_be_forgotten(machine: Microvmi) -> None:
    machine.flush_translations()


def test_a_read_that_fails_in_the_middle_says_so(tmp_path: Path) -> None:
    memory = bytearray(MIB)
    tables = Tables(memory, "x86-4", 0x1000)
    tables.map(KERNEL, 0x80000)
    tables.map(KERNEL + 4096, 0x90000)
    path = tmp_path / "image"
    path.write_bytes(memory)
    with Microvmi.open(f"vmi://dump/?path={path}&mapped=no") as machine:
        space = machine.address_space(tables.base)
        os.truncate(path, 0x90000)
        for read in (lambda: space.read(8192), lambda: space.readinto(bytearray(8192))):
            space.seek(KERNEL)
            with pytest.raises(IoError) as caught:
                read()
            assert (caught.value.address, caught.value.completed) == (KERNEL + 4096, 4096)
            assert space.tell() == KERNEL + 4096


def test_two_machines_with_tables_at_the_same_place_are_two(tmp_path: Path) -> None:
    spaces = []
    for name, place in (("one", 0x80000), ("two", 0x90000)):
        memory = bytearray(MIB)
        tables = Tables(memory, "x86-4", 0x1000)
        tables.map(KERNEL, place)
        memory[place : place + 3] = name.encode()
        (tmp_path / name).write_bytes(memory)
        spaces.append(Microvmi.open(str(tmp_path / name)).address_space(tables.base))
    for _ in range(3):
        assert [space.read_virtual(KERNEL, 3) for space in spaces] == [b"one", b"two"]


def test_what_is_written_to_tables_counts_at_once() -> None:
    """Of a machine that this object keeps paused, of which translations are remembered."""
    memory = bytearray(MEMORY)
    with Microvmi.from_driver(FakeDriver({0: memory})) as machine:
        machine.pause()
        space = machine.address_space(TABLES.base)
        assert space.read_virtual(KERNEL, 8) == CONTENT[:8]
        machine.write_physical(TABLES.entry_address(KERNEL, 1), (0x9000 | 0x67).to_bytes(8, "little"))
        assert space.read_virtual(KERNEL, 8) == MEMORY[0x9000:0x9008]
