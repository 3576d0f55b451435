# SPDX-License-Identifier: Apache-2.0
"""Facts of processors: names of registers by role, descriptors, instructions, modes of paging."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import get_args

import pytest

from libmicrovmi_py.arch import Registers
from libmicrovmi_py.arch.aarch64.paging import page_tables as aarch64_page_tables
from libmicrovmi_py.arch.x86 import descriptors, instructions, msrs
from libmicrovmi_py.arch.x86.paging import page_tables as x86_page_tables
from libmicrovmi_py.arch.x86.paging import paging_mode
from libmicrovmi_py.arch.x86.registers import (
    CODE_AND_DATA,
    CONTROL,
    ENCODED,
    GENERAL,
    INTERCEPTED_CONTROL,
    MSRS,
    NUMBERED,
    SEGMENTS,
    STATE,
    SYSTEM,
    TABLES,
    X86Registers,
)
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.paging import PageTables, Paging


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


def test_the_msrs_of_a_state_have_their_indexes() -> None:
    assert set(msrs.INDEXES) == {*MSRS, "fs_base", "gs_base"} <= set(STATE)
    assert (msrs.INDEXES["lstar"], msrs.INDEXES["tsc_aux"]) == (0xC0000082, 0xC0000103)
    assert all(0 < index <= msrs.INDEX_MAX for index in msrs.INDEXES.values())
    assert len(set(msrs.INDEXES.values())) == len(msrs.INDEXES)


def descriptor(base: int, limit: int, *, rights: int = 0x10) -> bytes:
    low = limit & 0xFFFF | (limit & 0xF0000) << 32 | (base & 0xFFFFFF) << 16 | (base & 0xFF000000) << 32
    return (low | (rights & 0xFF) << 40 | (rights >> 8) << 52).to_bytes(8, "little") + (base >> 32).to_bytes(
        8, "little"
    )


def test_a_descriptor_has_base_and_limit_in_pieces() -> None:
    found = descriptors.decode_segment(descriptor(0x87654321, 0xABCDE, rights=0x49B)[:8], long_mode=False)
    assert found == {"base": 0x87654321, "limit": 0xABCDE, "attributes": 0x49B}


def test_limits_in_pages_include_the_last_byte() -> None:
    found = descriptors.decode_segment(descriptor(0, 0xFFFFF, rights=0xC9B)[:8], long_mode=False)
    assert (found["limit"], found["attributes"]) == (0xFFFFFFFF, 0xC9B)


def test_in_long_mode_only_segments_of_the_system_have_bases() -> None:
    base = 0xFFFF8000_12345678
    system, data = (descriptor(base, 0x67, rights=rights) for rights in (0x8B, 0x93))
    assert descriptors.decode_segment(system, long_mode=True) == {"base": base, "limit": 0x67, "attributes": 0x8B}
    assert descriptors.decode_segment(data[:8], long_mode=True) == {"base": 0, "limit": 0x67, "attributes": 0x93}


@pytest.mark.parametrize(
    ("selector", "size", "address"),
    [
        *((0x10, 8, 0x1010), (0x13, 8, 0x1010), (0x18, 8, 0x1018), (0x18, 16, None), (0x20, 8, None)),
        *((0, 8, None), (3, 8, None), (4, 8, 0x5000), (0x0C, 8, 0x5008), (0x14, 8, None)),
    ],
)
def test_a_descriptor_is_within_its_table(selector: int, size: int, address: int | None) -> None:
    tables = {"gdt_base": 0x1000, "gdt_limit": 0x1F, "ldt_base": 0x5000, "ldt_limit": 0x0F}
    assert descriptors.is_null(selector) is (selector < 4)
    assert descriptors.descriptor_address(tables, selector, size) == address


def test_in_real_mode_a_selector_is_a_paragraph() -> None:
    assert descriptors.real_mode_segment(0xF000) == {"base": 0xF0000, "limit": 0xFFFF}


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
        (0x11, 0x20, 0, Paging.OFF),
        (0x80000011, 0, 0, Paging.X86_32),
        (0x80000011, 0x20, 0, Paging.X86_PAE),
        (0x80000011, 0x20, 0x100, Paging.X86_PAE),
        (0x80000011, 0x20, 0xD00, Paging.X86_4_LEVELS),
        (0x80000011, 0x1020, 0xD00, Paging.X86_5_LEVELS),
    ],
)
def test_the_mode_of_paging_is_told_by_three_registers(cr0: int, cr4: int, efer: int, mode: Paging) -> None:
    assert paging_mode({"cr0": cr0, "cr4": cr4, "efer": efer}) is mode


LONG = {"cr0": 0x8005_0033, "cr3": 0x1234_5801, "cr4": 0x20}
WIDE = 0xFFFF_FE00_0000_0000


@pytest.mark.parametrize(
    ("registers", "mode"),
    [
        ({**LONG, "rip": 0xFFFF_FFFF_8100_0000}, Paging.X86_4_LEVELS),
        ({**LONG, "idt_base": WIDE}, Paging.X86_4_LEVELS),
        ({**LONG, "cr4": 0x1020, "gdt_base": WIDE}, Paging.X86_5_LEVELS),
        ({**LONG, "idt_base": 0xFFFF_F000}, Paging.X86_PAE),
        ({**LONG, "idt_base": WIDE, "efer": 0x100}, Paging.X86_PAE),
        ({**LONG, "idt_base": WIDE, "efer": 0}, Paging.X86_PAE),
    ],
)
def test_long_mode_is_known_without_efer(registers: dict[str, int], mode: Paging) -> None:
    assert paging_mode(registers) is mode


@pytest.mark.parametrize(
    ("registers", "tables"),
    [
        ({**LONG, "efer": 0xD01}, PageTables(Paging.X86_4_LEVELS, 0x1234_5801)),
        ({**LONG, "efer": 0x501}, PageTables(Paging.X86_4_LEVELS, 0x1234_5801, control=2)),
        ({**LONG, "efer": 0}, PageTables(Paging.X86_PAE, 0x1234_5801, control=2)),
        ({**LONG, "idt_base": WIDE}, PageTables(Paging.X86_4_LEVELS, 0x1234_5801)),
        ({"cr0": 0x8000_0011, "cr3": 0x5000, "cr4": 0}, PageTables(Paging.X86_32, 0x5000, control=1)),
        ({"cr0": 0x8000_0011, "cr3": 0x5000, "cr4": 0x10}, PageTables(Paging.X86_32, 0x5000)),
        ({"cr0": 0x10, "cr3": 0x5000, "cr4": 0}, PageTables(Paging.OFF)),
    ],
)
def test_the_registers_of_an_x86_vcpu_name_its_tables(registers: dict[str, int], tables: PageTables) -> None:
    assert x86_page_tables(registers) == tables


ARM = {
    "ttbr0_el1": 1 << 48 | 0x5000,
    "ttbr1_el1": 0x6001,
    "tcr_el1": 0x5_8010_0010,
    "sctlr_el1": 0x3050_0801,
}


@pytest.mark.parametrize("missing", [*LONG, *ARM])
def test_registers_that_are_not_told_name_no_tables(missing: str) -> None:
    known, of = (ARM, aarch64_page_tables) if missing in ARM else (LONG, x86_page_tables)
    with pytest.raises(NotSupportedError, match="name the base"):
        of({name: value for name, value in known.items() if name != missing})


@pytest.mark.parametrize("of", [x86_page_tables, aarch64_page_tables])
def test_registers_that_no_processor_has_name_no_tables(of: Callable[[dict[str, int]], PageTables]) -> None:
    with pytest.raises(NotSupportedError):
        of(dict.fromkeys([*LONG, *ARM], 0))


@pytest.mark.parametrize(("features", "bits"), [(0, 0), (0x1022, 40), (0x1125, 48), (0x1126, 52), (0x100F, 52)])
def test_the_registers_of_an_aarch64_vcpu_name_its_tables(features: int, bits: int) -> None:
    registers = {**ARM, "id_aa64mmfr0_el1": features}
    expected = PageTables(Paging.AARCH64, 1 << 48 | 0x5000, 0x6001, 0x5_8010_0010, bits)
    assert aarch64_page_tables(registers) == expected
    registers["sctlr_el1"] &= ~1
    assert aarch64_page_tables(registers) == PageTables(Paging.OFF)
