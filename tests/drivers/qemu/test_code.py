# SPDX-License-Identifier: Apache-2.0
"""Finding instructions in what page tables let a supervisor execute; page tables and code are the guest's."""

from __future__ import annotations

import pytest
from found_code import CR3, CR4, FRAME, MODULE, MOV_CR3, MOV_CR4, TEXT, WRMSR, Guest
from pagetables import GIB, MIB, finish_kpti, kpti_pair
from pagewalk import EVERYTHING, KERNEL, KERNEL_READ

from libmicrovmi_py.drivers.qemu.events.code import with_twins
from libmicrovmi_py.drivers.qemu.events.instructions import MSRS
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.paging import PageTables, Paging


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_instructions_are_found_wherever_a_supervisor_may_execute_them(guest: Guest) -> None:
    guest.put(FRAME + 0x10, MOV_CR3)
    guest.put(FRAME + 0x1010, WRMSR)
    guest.tables.map(TEXT, FRAME, rights=KERNEL)
    guest.tables.map(TEXT + 0x1000, FRAME + 0x1000, rights=KERNEL)
    guest.tables.map(MODULE, FRAME, rights=KERNEL)
    guest.tables.map(0x40_0000, FRAME + 0x1000, rights=KERNEL)
    assert guest.look()
    assert guest.sites == {
        CR3: {TEXT + 0x10, MODULE + 0x10},
        MSRS: {TEXT + 0x1010, 0x40_1010 - 0x1000},
    }
    assert not guest.look()


def test_what_a_user_may_execute_and_what_nobody_may_is_no_code_of_the_kernel(guest: Guest) -> None:
    guest.put(FRAME, MOV_CR3)
    guest.tables.map(0x40_0000, FRAME, rights=EVERYTHING)
    guest.tables.map(TEXT, FRAME, rights=KERNEL_READ)
    guest.look()
    assert guest.sites == {}


def test_both_tables_of_a_pair_are_looked_at() -> None:
    guest = Guest()
    kernel, user = kpti_pair(guest.memory, "x86-4", 2 * MIB)
    guest.put(FRAME, MOV_CR3)
    guest.put(FRAME + 0x1000, WRMSR)
    kernel.map(TEXT, FRAME, rights=KERNEL)
    kernel.map(0x40_0000, FRAME + 0x2000)
    user._next = kernel.end
    user.map(TEXT, FRAME, rights=KERNEL)
    user.map(MODULE, FRAME + 0x1000, rights=KERNEL)
    kernel._next = user.end
    kernel.map(MODULE, FRAME + 0x3000, rights=KERNEL)
    finish_kpti(kernel, user)
    for tables in (kernel, user):
        spaces = [PageTables(Paging.X86_4_LEVELS, tables.base)]
        guest.code.look(with_twins(spaces, guest.driver.guest), anew=True)
        assert guest.sites == {CR3: {TEXT}, MSRS: {MODULE}}


def test_an_instruction_may_go_on_in_a_page_that_is_elsewhere_in_memory(guest: Guest) -> None:
    guest.put(FRAME + 0xFFE, MOV_CR4[:2])
    guest.put(FRAME + 0x5000, MOV_CR4[2:])
    guest.put(FRAME + 0x1000, b"\x90")
    guest.tables.map(TEXT, FRAME, rights=KERNEL)
    guest.tables.map(TEXT + 0x1000, FRAME + 0x5000, rights=KERNEL)
    guest.look()
    assert guest.sites == {CR4: {TEXT + 0xFFE}}


def test_an_instruction_may_go_on_in_the_next_frame_which_was_searched_before(guest: Guest) -> None:
    guest.put(FRAME + 0xFFE, MOV_CR4)
    guest.tables.map(TEXT + 0x1000, FRAME + 0x1000, rights=KERNEL)
    guest.look()
    guest.tables.map(TEXT, FRAME, rights=KERNEL)
    assert guest.look()
    assert guest.sites == {CR4: {TEXT + 0xFFE}}


def test_an_instruction_may_end_in_a_frame_that_is_new(guest: Guest) -> None:
    guest.put(FRAME + 0xFFE, MOV_CR4[:2] + b"\x90")
    guest.tables.map(TEXT, FRAME, rights=KERNEL)
    guest.look()
    assert guest.sites == {}
    guest.put(FRAME + 0x1000, MOV_CR4[2:])
    guest.tables.map(TEXT + 0x1000, FRAME + 0x1000, rights=KERNEL)
    guest.look()
    assert guest.sites == {CR4: {TEXT + 0xFFE}}


def test_code_that_appears_is_found_and_code_that_goes_is_forgotten(guest: Guest) -> None:
    guest.put(FRAME, MOV_CR3)
    guest.put(FRAME + 0x1000, MOV_CR4)
    guest.tables.map(TEXT, FRAME, rights=KERNEL)
    guest.look()
    guest.tables.map(MODULE, FRAME + 0x1000, rights=KERNEL)
    assert guest.look()
    assert guest.sites == {CR3: {TEXT}, CR4: {MODULE}}
    guest.tables.poke(MODULE, 1, 0)
    assert guest.look()
    assert guest.sites == {CR3: {TEXT}}
    guest.put(FRAME + 0x1000, WRMSR + b"\x90")
    guest.tables.map(MODULE, FRAME + 0x1000, rights=KERNEL)
    assert guest.look()
    assert guest.sites == {CR3: {TEXT}, MSRS: {MODULE}}


def test_code_that_was_written_in_place_is_found_when_all_is_looked_at_anew(guest: Guest) -> None:
    guest.tables.map(TEXT, FRAME, rights=KERNEL)
    guest.look()
    guest.put(FRAME + 0x20, WRMSR)
    assert not guest.look()
    assert guest.look(anew=True)
    assert guest.sites == {MSRS: {TEXT + 0x20}}


def test_large_pages_reach_beyond_memory(guest: Guest) -> None:
    guest.put(8 * MIB - 2, WRMSR)
    guest.tables.map(-GIB % (1 << 64), 0, GIB, rights=KERNEL)
    guest.look()
    assert guest.sites == {MSRS: {-GIB % (1 << 64) + 8 * MIB - 2}}


def test_code_everywhere_is_searched_once_and_refused_where_it_has_too_many_places(guest: Guest) -> None:
    """Half of all addresses, 128 TiB, are executable, by pages of 1 GiB that are all the same."""
    for top in range(256, 512):
        guest.tables.poke(top << 39 | 0xFFFF << 48, 4, (2 * MIB) | 3)
    for index in range(512):
        guest.put(2 * MIB + 8 * index, (0x83).to_bytes(8, "little"))
    with pytest.raises(NotSupportedError, match="more than 65536 pieces"):
        guest.look()
    assert guest.sites == {}


def test_places_are_limited(guest: Guest) -> None:
    guest.put(FRAME, WRMSR * 2048)
    for page in range(2):
        guest.tables.map(TEXT + page * 0x1000, FRAME, rights=KERNEL)
    guest.look()
    assert len(guest.sites[MSRS]) == 4096
    guest.tables.map(TEXT + 0x2000, FRAME, rights=KERNEL)
    with pytest.raises(NotSupportedError, match="more than 4096"):
        guest.look()
    assert len(guest.sites[MSRS]) == 4096


def test_tables_that_lead_to_themselves_come_to_an_end(guest: Guest) -> None:
    for index in range(512):
        guest.put(guest.tables.base + 8 * index, (guest.tables.base | 3).to_bytes(8, "little"))
    with pytest.raises(NotSupportedError, match="pieces"):
        guest.look()
