# SPDX-License-Identifier: Apache-2.0
"""Address spaces that C is told: the twin of one, and that of a vCPU."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref, c_uint8, c_uint64, sizeof
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from drivers.dump import builders
from pagetables import MIB, Tables, finish_kpti, kpti_pair

INVALID_ARGUMENT, NOT_SUPPORTED = 1, 5
HIGH = 0xFFFF_8000_0000_0000
FOUR_LEVELS = 3


@pytest.fixture
def pair() -> tuple[bytearray, Tables, Tables]:
    """A kernel that isolates its tables: its memory, and the two tables of a process."""
    memory = bytearray(MIB)
    kernel, user = kpti_pair(memory, "x86-4", 0x10000)
    kernel.map(0x400000, 0x5000)
    kernel.map(HIGH, 0x6000)
    kernel.map(HIGH + (1 << 39), 0x7000)
    user._next = kernel.end
    user.map(HIGH, 0x6000)
    finish_kpti(kernel, user)
    memory[0x7000:0x7008] = b"a kernel"
    return memory, kernel, user


@pytest.fixture
def context(lib: Any, tmp_path: Path, pair: tuple[bytearray, Tables, Tables]) -> Iterator[int]:
    """A dump of it, whose first vCPU is in the kernel, and whose second one tells nothing of its tables."""
    memory, kernel, _ = pair
    values = [builders.values(vcpu) for vcpu in range(2)]
    values[0].update(cr0=0x8005_0033, cr3=kernel.base | 5, cr4=0x3506F0, rip=HIGH + (1 << 39))
    values[1].update(cr0=0)
    notes = b"".join(map(builders.qemu_note, values))
    (tmp_path / "core").write_bytes(builders.elf({0: bytes(memory)}, notes))
    opened = lib.microvmi_open(str(tmp_path / "core").encode(), None)
    assert opened, lib.microvmi_last_error()
    yield opened
    lib.microvmi_destroy(opened)


def space(stubs: ModuleType, base: int = 0) -> Any:
    return stubs.microvmi_address_space(sizeof(stubs.microvmi_address_space), FOUR_LEVELS, base)


def members(found: Any) -> tuple[int, ...]:
    return found.paging, found.base, found.upper_base, found.control, found.physical_bits


def test_a_vcpu_of_a_dump_without_efer_names_its_tables(
    lib: Any, context: int, stubs: ModuleType, pair: tuple[bytearray, Tables, Tables]
) -> None:
    found = stubs.microvmi_address_space(struct_size=sizeof(stubs.microvmi_address_space))
    assert lib.microvmi_get_address_space(context, 0, byref(found)), lib.microvmi_last_error()
    assert members(found) == (FOUR_LEVELS, pair[1].base | 5, 0, 0, 0)
    buffer = (c_uint8 * 8)()
    assert lib.microvmi_read_virtual(context, byref(found), HIGH + (1 << 39), buffer, 8, None)
    assert bytes(buffer) == b"a kernel"


@pytest.mark.parametrize(("vcpu", "code"), [(1, NOT_SUPPORTED), (2, INVALID_ARGUMENT)])
def test_a_vcpu_that_tells_no_tables_leaves_the_struct(
    lib: Any, context: int, stubs: ModuleType, vcpu: int, code: int
) -> None:
    found = space(stubs, 77)
    assert not lib.microvmi_get_address_space(context, vcpu, byref(found))
    assert (lib.microvmi_last_error_code(), found.base) == (code, 77)


def test_each_of_two_twins_leads_to_the_other(
    lib: Any, context: int, stubs: ModuleType, pair: tuple[bytearray, Tables, Tables]
) -> None:
    _, kernel, user = pair
    twin = space(stubs, kernel.base | 0x8000_0000_0000_0005)
    for base in (user.base, kernel.base):
        assert lib.microvmi_get_twin_address_space(context, byref(twin), byref(twin)), lib.microvmi_last_error()
        assert twin.base == base | 0x8000_0000_0000_0005
    other = space(stubs, 77)
    twin.base = 0x400000
    assert not lib.microvmi_get_twin_address_space(context, byref(twin), byref(other))
    assert (lib.microvmi_last_error_code(), other.base) == (NOT_SUPPORTED, 77)


def test_a_caller_that_knows_more_is_told_how_much_was_filled(lib: Any, context: int, stubs: ModuleType) -> None:
    size = sizeof(stubs.microvmi_address_space)
    room = (c_uint64 * (size // 8 + 2))(*[0xA5] * (size // 8 + 2))
    found = stubs.microvmi_address_space.from_buffer(room)
    found.struct_size = size + 16
    assert lib.microvmi_get_address_space(context, 0, byref(found))
    assert found.struct_size == size
    assert list(room)[size // 8 :] == [0xA5] * 2
