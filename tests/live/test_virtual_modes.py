# SPDX-License-Identifier: Apache-2.0
"""Every mode of paging that x86 has, with pages of all sizes: guests of a few bytes, whose tables QEMU reads too."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import NotMappedError

from . import oracle, paged
from .capi import Machine
from .conftest import OpenMachine
from .spaces import (
    KERNEL_EXECUTE,
    KERNEL_READ,
    KERNEL_WRITE,
    NOT_CANONICAL,
    NOT_MAPPED,
    NOT_PRESENT,
    OFF,
    TABLE_NOT_MEMORY,
    USER_EXECUTE,
    USER_READ,
    USER_WRITE,
    X86_4_LEVELS,
    X86_5_LEVELS,
    X86_32,
    X86_PAE,
    Mapped,
    Space,
    allowed,
)
from .test_virtual import pages_of
from .tiny import Tiny, tiny

PAGE = 4096
PAGING = {
    "32-bit": X86_32,
    "32-bit, small pages": X86_32,
    "pae": X86_PAE,
    "4 levels": X86_4_LEVELS,
    "5 levels": X86_5_LEVELS,
}
LOWER_END = {X86_4_LEVELS: 1 << 47, X86_5_LEVELS: 1 << 56}
EVERYTHING = KERNEL_READ | KERNEL_WRITE | KERNEL_EXECUTE | USER_READ | USER_WRITE | USER_EXECUTE


@pytest.fixture(scope="module", params=paged.MODES)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, boot: object) -> Iterator[Tiny]:
    """A guest in one of the modes, stopped; ``boot`` is there to say what is missing."""
    with paged.paged(tmp_path_factory.mktemp("paged"), paged.MODES[request.param]) as guest:
        yield guest


on_long_modes = pytest.mark.parametrize("small", ["4 levels", "5 levels"], indirect=True)
on_all_but_5_levels = pytest.mark.parametrize("small", list(paged.MODES)[:-1], indirect=True)


@pytest.fixture
def vm(small: Tiny, open_machine: OpenMachine) -> Machine:
    return open_machine(small.uri)


@pytest.fixture
def space(vm: Machine) -> Space:
    return Space.of_vcpu(vm)


@pytest.fixture
def listed(small: Tiny) -> list[oracle.Listed]:
    return oracle.pages(small.monitor)


def test_the_mode_is_that_of_the_registers(request: pytest.FixtureRequest, small: Tiny, space: Space) -> None:
    mode = request.node.callspec.params["small"]
    assert (space.paging, space.base) == (PAGING[mode], paged.LOADED)


def test_every_page_that_qemu_lists_is_found(space: Space, listed: list[oracle.Listed]) -> None:
    assert len(listed) > 10
    for page in listed:
        told = space.translate(page.virtual)
        assert (told.ok, told.physical) == (True, page.physical)
        last = space.translate(page.virtual + told.size - 1)
        assert (last.ok, last.physical) == (True, page.physical + told.size - 1)


def test_everything_that_is_mapped_is_what_qemu_lists(space: Space, listed: list[oracle.Listed]) -> None:
    assert [page[:2] for page in pages_of(space.mapped())] == [page[:2] for page in listed]


def test_neighbours_are_one_range_if_they_are_so_in_both_memories(space: Space) -> None:
    ranges = list(space.mapped())
    supervisor = EVERYTHING & ~(USER_READ | USER_WRITE | USER_EXECUTE)
    assert Mapped(0x10000, 2 * PAGE, 0x200000, supervisor, PAGE) == ranges[0]
    for one, following in itertools.pairwise(ranges):
        ended = (one.start + one.size, one.physical + one.size, one.rights, one.page_size)
        assert ended != (following.start, following.physical, following.rights, following.page_size)


@on_all_but_5_levels
def test_rights_are_those_of_all_levels(small: Tiny, space: Space) -> None:
    assert allowed(space.mapped()) == oracle.allowed(small.monitor)


def test_what_must_not_be_executed_is_so_by_any_level(space: Space, listed: list[oracle.Listed]) -> None:
    for page in listed:
        rights = space.translate(page.virtual).rights
        above = space.paging != X86_32 and 0xA00000 <= page.virtual < 0xC00000  # the entry of the table forbids it
        expected = KERNEL_READ | (0 if page.no_execute or above else KERNEL_EXECUTE)
        assert rights & (KERNEL_READ | KERNEL_EXECUTE) == expected
        assert not rights & USER_EXECUTE or rights & (USER_READ | KERNEL_EXECUTE) == USER_READ | KERNEL_EXECUTE


def test_what_is_read_lies_where_the_pages_lead(space: Space, listed: list[oracle.Listed]) -> None:
    """Memory has numbers that are their own addresses."""
    for page in listed:
        if paged.LOADED + 0x20000 <= page.physical < paged.RAM:
            assert space.read(page.virtual + 8, 8).content == (page.physical + 8).to_bytes(8, "little")
    swapped = space.read(0x16000 + PAGE - 8, 16).content
    assert swapped == (0x209FF8).to_bytes(8, "little") + (0x208000).to_bytes(8, "little")


def test_a_hole_ends_a_read_and_is_zeros_in_a_padded_one(space: Space) -> None:
    whole = space.read(0x14000, 3 * PAGE)
    assert (whole.ok, len(whole.content), whole.rest_untouched, whole.code) == (False, PAGE, True, NOT_MAPPED)
    padded = space.read(0x14000, 3 * PAGE, padded=True)
    assert padded.ok
    assert padded.content == whole.content + bytes(PAGE) + space.read(0x16000, PAGE).content
    assert space.translate(0x15000)[:2] == (False, (1 << 64) - 1)
    assert space.translate(0x15000).failure == NOT_PRESENT


def test_a_page_without_memory_is_translated_and_not_read(space: Space) -> None:
    assert space.translate(0x19010)[:2] == (True, paged.RAM + 0x10)
    read = space.read(0x18FF0, 0x20)
    assert (read.ok, len(read.content), read.rest_untouched, read.code) == (False, 0x10, True, NOT_MAPPED)
    assert space.read(0x18FF0, 0x20, padded=True).content == read.content + bytes(0x10)


def test_the_last_page_is_read_up_to_its_end_and_not_beyond(space: Space) -> None:
    end = 1 << (64 if space.paging in LOWER_END else 32)
    read = space.read(end - 8, 64)
    assert (read.ok, read.content) == (False, (0x300FF8).to_bytes(8, "little"))
    assert (read.rest_untouched, read.code) == (True, NOT_MAPPED)
    assert space.read(end - 8, 8).ok
    if end == 1 << 32:
        assert space.translate(end).failure == NOT_CANONICAL


@on_long_modes
def test_addresses_that_there_are_not_lie_between_two_pages(space: Space) -> None:
    lower, upper = LOWER_END[space.paging], (1 << 64) - LOWER_END[space.paging]
    read = space.read(lower - 8, 64)
    assert (read.ok, read.content) == (False, (0x300FF8).to_bytes(8, "little"))
    assert space.translate(lower).failure == space.translate(upper - 1).failure == NOT_CANONICAL
    assert space.translate(upper).physical == 0x302000
    assert space.read(upper - 8, 64) == (False, b"", True, NOT_MAPPED)
    assert space.read(upper - 8, 16, padded=True).content == bytes(8) + (0x302000).to_bytes(8, "little")


def test_python_says_the_same_as_c(small: Tiny, space: Space, listed: list[oracle.Listed]) -> None:
    with Microvmi.open(small.uri) as machine:
        same = machine.address_space(vcpu=0)
        ranges = [Mapped(r.start, r.size, r.physical_address, r.rights, r.page_size) for r in same.mapped()]
        assert ranges == list(space.mapped())
        for page in listed:
            told = same.translate(page.virtual + 9)
            assert (told.physical_address, told.page_size, told.rights) == space.translate(page.virtual + 9)[1:4]
        with pytest.raises(NotMappedError) as caught:
            same.read_virtual(0x15000, 1)
        assert caught.value.translation == same.translate(0x15000)


def test_a_base_says_the_same_as_a_vcpu(vm: Machine, space: Space) -> None:
    control = space.value.control
    assert list(Space(vm, paging=space.paging, base=paged.LOADED | 0x18, control=control).mapped()) == list(
        space.mapped()
    )
    nowhere = Space(vm, paging=space.paging, base=0x40000000, control=control).translate(0x10000)
    assert (nowhere.ok, nowhere.failure) == (False, TABLE_NOT_MEMORY)


def test_what_the_processor_must_not_write_is_written(small: Tiny, space: Space) -> None:
    assert not space.translate(0x12000).rights & KERNEL_WRITE
    assert space.write(0x12008, b"written!")
    assert oracle.physical(small.monitor, 0x202008, 8) == b"written!"
    assert space.write(0x12008, (0x202008).to_bytes(8, "little"))


def test_a_table_that_is_written_through_itself_counts_at_once(vm: Machine, small: Tiny, space: Space) -> None:
    """One of the tables is a page as well: a virtual address is made to lead elsewhere, and back."""
    width, window = (4, 0xFF800000) if space.paging == X86_32 else (8, 0xC00000)
    place = window + (0x10000 >> 12) * width
    before = space.read(place, width).content
    assert space.read(0x10000, 8).content == (0x200000).to_bytes(8, "little")
    assert vm.pause()
    assert space.read(0x10000, 8).content == (0x200000).to_bytes(8, "little")
    try:
        assert space.write(place, (0x205000 | paged.SUPERVISOR).to_bytes(width, "little"))
        assert space.read(0x10000, 8).content == (0x205000).to_bytes(8, "little")
        assert oracle.translated(small.monitor, 0x10000) == space.translate(0x10000).physical == 0x205000
    finally:
        assert space.write(place, before)
    assert space.read(0x10000, 8).content == (0x200000).to_bytes(8, "little")


def test_without_paging_addresses_are_physical(tmp_path: Path, open_machine: OpenMachine, boot: object) -> None:
    with tiny(tmp_path) as guest:
        space = Space.of_vcpu(open_machine(guest.uri))
        assert space.paging == OFF
        assert space.translate(0x7C00)[:2] == (True, 0x7C00)
        assert space.translate(0x7C00).rights == EVERYTHING
        assert oracle.translated(guest.monitor, 0x7C00) == 0x7C00
