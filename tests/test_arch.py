# SPDX-License-Identifier: Apache-2.0
"""Facts of processors: names of registers by role, descriptors, instructions, modes of paging."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest

from libmicrovmi_py.arch import Registers
from libmicrovmi_py.arch.x86 import descriptors, instructions, msrs
from libmicrovmi_py.arch.x86.paging import PagingMode, paging_mode
from libmicrovmi_py.arch.x86.registers import (
    CODE_AND_DATA,
    CONTROL,
    ENCODED,
    GENERAL,
    INTERCEPTED_CONTROL,
    NUMBERED,
    SEGMENTS,
    SYSTEM,
    TABLES,
    SegmentReg,
    SystemTableReg,
    X86Registers,
)
from libmicrovmi_py.model import Architecture


def test_every_architecture_has_its_registers() -> None:
    assert [kind.architecture for kind in get_args(Registers)] == list(Architecture)


def test_the_roles_are_all_registers_in_their_order() -> None:
    assert [*GENERAL, *SYSTEM, *SEGMENTS, *TABLES] == [item.name for item in fields(X86Registers)]
    assert (GENERAL[-2:], SYSTEM[0], CODE_AND_DATA) == (("rip", "rflags"), "cr0", ("cs", "ds", "es", "fs", "gs", "ss"))
    assert (SEGMENTS[-2:], TABLES) == (("tr", "ldt"), ("idt", "gdt"))
    assert (NUMBERED[0], NUMBERED[-1], len(NUMBERED)) == ("r8", "r15", 8)
    assert {*ENCODED, "rip", "rflags"} == set(GENERAL)
    assert CONTROL == ("cr0", "cr2", "cr3", "cr4")
    assert {f"cr{number}" for number in INTERCEPTED_CONTROL} < set(CONTROL)


def test_the_msrs_that_are_members_have_their_indexes() -> None:
    assert set(msrs.MEMBERS) == {*SYSTEM} - {*CONTROL, "efer"}
    assert msrs.MEMBERS["msr_lstar"] == 0xC0000082
    assert all(0 < index <= msrs.INDEX_MAX for index in msrs.INDEXES.values())
    assert len(set(msrs.INDEXES.values())) == len(msrs.INDEXES)


def descriptor(base: int, limit: int, *, code_or_data: bool = True, granular: bool = False) -> bytes:
    low = limit & 0xFFFF | (limit & 0xF0000) << 32 | (base & 0xFFFFFF) << 16 | (base & 0xFF000000) << 32
    return (low | code_or_data << 44 | granular << 55).to_bytes(8, "little") + (base >> 32).to_bytes(8, "little")


def test_a_descriptor_has_base_and_limit_in_pieces() -> None:
    found = descriptors.decode_segment(descriptor(0x87654321, 0xABCDE)[:8], 0x10, long_mode=False)
    assert found == SegmentReg(0x87654321, 0xABCDE, 0x10)


def test_limits_in_pages_include_the_last_byte() -> None:
    found = descriptors.decode_segment(descriptor(0, 0xFFFFF, granular=True)[:8], 0x10, long_mode=False)
    assert found.limit == 0xFFFFFFFF


def test_in_long_mode_only_segments_of_the_system_have_bases() -> None:
    base = 0xFFFF8000_12345678
    system, data = (descriptor(base, 0x67, code_or_data=data) for data in (False, True))
    assert descriptors.decode_segment(system, 0x40, long_mode=True) == SegmentReg(base, 0x67, 0x40)
    assert descriptors.decode_segment(data[:8], 0x18, long_mode=True) == SegmentReg(0, 0x67, 0x18)


def test_a_descriptor_that_is_not_there_says_nothing() -> None:
    assert descriptors.decode_segment(b"", 0x18, long_mode=False) == SegmentReg(0, 0, 0x18)


@pytest.mark.parametrize(
    ("selector", "size", "address"),
    [
        *((0x10, 8, 0x1010), (0x13, 8, 0x1010), (0x18, 8, 0x1018), (0x18, 16, None), (0x20, 8, None)),
        *((0, 8, None), (3, 8, None), (4, 8, 0x5000), (0x0C, 8, 0x5008), (0x14, 8, None)),
    ],
)
def test_a_descriptor_is_within_its_table(selector: int, size: int, address: int | None) -> None:
    registers = X86Registers(gdt=SystemTableReg(0x1000, 0x1F), ldt=SegmentReg(0x5000, 0x0F, 0x28))
    assert descriptors.descriptor_address(registers, selector, size) == address


def test_in_real_mode_a_selector_is_a_paragraph() -> None:
    assert descriptors.real_mode_segment(0xF000) == SegmentReg(0xF0000, 0xFFFF, 0xF000)


@pytest.mark.parametrize(
    ("code", "number"),
    [
        *((b"\x0f\x22\xd8", 3), (b"\x0f\x22\xc0", 0), (b"\x0f\x22\xe7", 4)),
        *((b"\x0f\x20\xd8", None), (b"\x0f\x22", None), (b"", None)),
    ],
)
def test_a_mov_to_a_control_register_names_it(code: bytes, number: int | None) -> None:
    assert instructions.written_control_register(code) == number


@pytest.mark.parametrize(
    ("cr0", "cr4", "efer", "mode"),
    [
        (0x11, 0x20, 0, PagingMode.OFF),
        (0x80000011, 0, 0, PagingMode.LEGACY),
        (0x80000011, 0x20, 0, PagingMode.PAE),
        (0x80000011, 0x20, 0x100, PagingMode.PAE),
        (0x80000011, 0x20, 0xD00, PagingMode.FOUR_LEVELS),
        (0x80000011, 0x1020, 0xD00, PagingMode.FIVE_LEVELS),
    ],
)
def test_the_mode_of_paging_is_told_by_three_registers(cr0: int, cr4: int, efer: int, mode: PagingMode) -> None:
    assert paging_mode(X86Registers(cr0=cr0, cr4=cr4, efer=efer)) is mode
