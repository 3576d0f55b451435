# SPDX-License-Identifier: Apache-2.0
"""Translations and reads of virtual memory from C, in every mode, held against a reference walker."""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Callable, Iterator
from ctypes import byref, c_uint8, c_uint64
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pagetables import MIB, MODES, Tables
from pagewalk import KERNEL_READ, Failure, Space, Walked, memory_reader, walk

NOT_MAPPED, INVALID_ARGUMENT, INVALID_CONTEXT = 6, 1, 2
UNKNOWN = (1 << 64) - 1

Open = Callable[[str], int]


class Machine:
    """A raw image, an address space in it, and the calls."""

    def __init__(self, lib: Any, stubs: ModuleType, context: int, memory: bytes | bytearray, space: Space) -> None:
        self.lib, self.stubs, self.context, self.memory = lib, stubs, context, memory
        self.space = space

    @property
    def given(self) -> Any:
        made = self.stubs.microvmi_address_space(*self.space)
        made.struct_size = ctypes.sizeof(made)
        made.paging, made.base, made.upper_base, made.control, made.physical_bits = self.space
        return made

    def translate(self, address: int) -> tuple[bool, Walked]:
        """What the call returned, and the result as the reference tells it."""
        told = self.stubs.microvmi_translation(struct_size=ctypes.sizeof(self.stubs.microvmi_translation))
        found: bool = self.lib.microvmi_translate_address(self.context, byref(self.given), address, byref(told))
        physical = None if told.physical_address == UNKNOWN else told.physical_address
        at = None if told.entry_address == UNKNOWN else told.entry_address
        return found, Walked(Failure(told.failure), physical, told.page_size, told.rights, told.level, told.entry, at)

    def read(self, address: int, size: int, *, padded: bool = False) -> tuple[bool, int, bytes]:
        """The result, the length of the prefix, and the buffer, which was full of 0xee."""
        buffer, done = (c_uint8 * size)(*b"\xee" * size), c_uint64(77)
        call = self.lib.microvmi_read_virtual_padded if padded else self.lib.microvmi_read_virtual
        whole: bool = call(self.context, byref(self.given), address, buffer, size, byref(done))
        return whole, done.value, bytes(buffer)

    def expected(self, address: int, size: int, *, padded: bool = False) -> tuple[bool, int, bytes]:
        """The same by the reference walker, byte for byte."""
        content = bytearray()
        for at in range(address, address + size):
            found = walk(memory_reader(self.memory), self.space, at) if at < 1 << 64 else None
            there = found is not None and found.physical is not None and found.physical < len(self.memory)
            if not there and not padded:
                break
            content.append(self.memory[found.physical] if there and found and found.physical is not None else 0)
        return len(content) == size, len(content), bytes(content) + b"\xee" * (size - len(content))


@pytest.fixture
def image(lib: Any, stubs: ModuleType, opened: Open, tmp_path: Path) -> Callable[[bytes | bytearray, Space], Machine]:
    def make(memory: bytes | bytearray, space: Space) -> Machine:
        path = tmp_path / "image.raw"
        path.write_bytes(memory)
        return Machine(lib, stubs, opened(f"vmi://dump/?path={path}&format=raw"), memory, space)

    return make


Image = Callable[[bytes | bytearray, Space], Machine]


def places(tables: Tables) -> Iterator[int]:
    """Where something is mapped: in both halves, at their ends."""
    yield from (0, 1 << 31)
    if tables.mode.high:
        yield from (tables.mode.high, (1 << 64) - (4 << 30))


def filled(mode: str) -> tuple[Tables, list[int]]:
    """Tables with every size of pages, some with neighbours and some without; and addresses of interest."""
    memory = bytearray(random.Random(mode).randbytes(4 * MIB))
    tables, addresses = Tables(memory, mode, MIB), []
    page = tables.mode.page_sizes[0]
    for number, place in enumerate(places(tables)):
        for index in range(4):
            tables.map(place + index * page, (3 + 5 * index + number) % 8 * page, rights=0x77 if index else 0x05)
        addresses += [place, place + page - 4, place + 4 * page - 2, place + 5 * page]
        for count, size in enumerate(tables.mode.page_sizes[1:], 1):
            at = place + (64 << 20) * 2 + size * count
            at = -(-at // size) * size
            tables.map(at, 0, size)
            addresses += [at, at + 0x1234, at + size - 1, at + size]
    return tables, [address & UNKNOWN for address in addresses]


@pytest.mark.parametrize("mode", MODES)
def test_every_translation_is_that_of_the_reference(mode: str, image: Image) -> None:
    tables, addresses = filled(mode)
    machine = image(tables.memory, tables.space)
    high = tables.mode.high or 1 << 32
    edges = [0, 1, UNKNOWN, high - 1, high, (1 << 47) - 1, 1 << 47, 1 << 56, (1 << 32) - 1, 1 << 32, 1 << 63]
    for address in (*addresses, *edges):
        expected = walk(memory_reader(tables.memory), tables.space, address)
        assert machine.translate(address) == (not expected.failure, expected), hex(address)


@pytest.mark.parametrize("mode", MODES)
def test_hostile_tables_are_read_as_the_reference_reads_them(mode: str, image: Image) -> None:
    """Entries of random bits, loops, and tables beyond the end: every walk ends, and where it should."""
    rng = random.Random(mode)
    tables, addresses = filled(mode)
    size = tables.mode.entry_size
    for _ in range(400):
        address, level = rng.choice(addresses), rng.randint(1, len(tables.mode.shifts))
        found = walk(memory_reader(tables.memory), tables.space, address)
        if found.entry_address is None or found.entry_address + size > len(tables.memory):
            continue
        wild = rng.choice((rng.getrandbits(8 * size), tables.base | 0x67, tables.base | 3, tables.base | 0xE7))
        flipped = tables.peek(address, level) ^ 1 << rng.randrange(8 * size) if level <= found.level else wild
        at = found.entry_address
        tables.memory[at : at + size] = (rng.choice((wild, flipped)) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    for bits in (0, 36, 40, 52):
        machine = image(tables.memory, tables.space._replace(physical_bits=bits))
        for address in addresses:
            expected = walk(memory_reader(tables.memory), machine.space, address)
            assert machine.translate(address) == (not expected.failure, expected), hex(address)


@pytest.mark.parametrize("bits", [0, 36])
@pytest.mark.parametrize("mode", MODES)
def test_every_bit_of_every_entry_counts_as_the_reference_says(
    mode: str, image: Image, tmp_path: Path, bits: int
) -> None:
    """Each one is flipped in the file, beside nothing else: a translation is told from the tables as they are."""
    tables, addresses = filled(mode)
    machine = image(tables.memory, tables.space._replace(physical_bits=bits))
    size, read = tables.mode.entry_size, memory_reader(tables.memory)
    with (tmp_path / "image.raw").open("r+b", buffering=0) as file:
        for address in addresses:
            end = walk(read, machine.space, address)
            for level in range(end.level, len(tables.mode.shifts) + 1) if end.physical else ():
                at = tables.entry_address(address, level)
                for bit in range(8 * size):
                    for _ in range(2):
                        tables.memory[at + bit // 8] ^= 1 << bit % 8
                        file.seek(at)
                        file.write(tables.memory[at : at + size])
                        expected = walk(read, machine.space, address)
                        assert machine.translate(address) == (not expected.failure, expected), (
                            hex(address),
                            level,
                            bit,
                        )


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_reads_across_pages_and_into_holes_have_the_prefix_of_physical_ones(
    mode: str, image: Image, padded: bool
) -> None:
    tables, addresses = filled(mode)
    machine = image(tables.memory, tables.space)
    for address in addresses:
        for size in (0, 1, 8, 13):
            wanted = machine.expected(address, size, padded=padded)
            assert machine.read(address, size, padded=padded) == wanted, hex(address)
            assert machine.lib.microvmi_last_error_code() == (0 if wanted[0] else NOT_MAPPED)


@pytest.mark.parametrize("upper", [False, True])
def test_a_half_whose_walks_are_off_may_have_fields_of_nothing(image: Image, upper: bool) -> None:
    """As firmware leaves them, which uses one half: TCR_EL1 is 0 there, but for EPD0 or EPD1."""
    tables = Tables(bytearray(MIB), "aarch64-4k", 0x10000)
    place, other = (tables.mode.high, 0x1000) if upper else (0x1000, tables.mode.high)
    tables.map(place, 0x3000)
    given = tables.mode.control & (0xFFFF_0000 if upper else 0xFFFF) | tables.mode.control >> 32 << 32
    for nothing in (0, 0xC03F):
        control = given | (1 << 7 | nothing if upper else (1 << 7 | nothing) << 16)
        machine = image(tables.memory, tables.space._replace(control=control))
        found, told = machine.translate(place + 0x123)
        assert (found, told.physical) == (True, 0x3123)
        found, told = machine.translate(other)
        assert (found, told.failure, told.level) == (False, Failure.NOT_CANONICAL, 0)
        assert machine.read(place, 0x1000)[0]


def test_clean_pages_can_be_written_if_the_processor_marks_them_and_what_was_accessed(image: Image) -> None:
    """DBM of a page, and HD of TCR_EL1, which counts together with HA only."""
    tables = Tables(bytearray(MIB), "aarch64-4k", 0x10000)
    tables.map(0, 0x3000, rights=KERNEL_READ)
    tables.poke(0, 1, tables.peek(0, 1) | 1 << 51)
    for bits, rights in ((0, 1), (1, 1), (2, 1), (3, 3)):
        machine = image(tables.memory, tables.space._replace(control=tables.mode.control | bits << 39))
        assert machine.translate(0)[1].rights & 3 == rights, bits


def test_a_struct_of_zeros_is_refused_whatever_came_before(image: Image) -> None:
    """In a thread of its own, which has seen no address space that was good."""
    machine, codes = image(bytearray(4096), Space(77, 0, 0, 0, 0)), []

    def calls() -> None:
        for given in (machine.given, machine.stubs.microvmi_address_space()):
            assert not machine.lib.microvmi_read_virtual(machine.context, byref(given), 0, (c_uint8 * 8)(), 8, None)
            codes.append(machine.lib.microvmi_last_error_code())

    thread = threading.Thread(target=calls)
    thread.start()
    thread.join()
    assert codes == [INVALID_ARGUMENT, INVALID_ARGUMENT]
