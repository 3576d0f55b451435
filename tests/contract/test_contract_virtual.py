# SPDX-License-Identifier: Apache-2.0
"""Virtual memory of every driver: the same translations, reads, writes and errors, in C and in Python."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import Structure, byref, c_size_t, c_uint8, c_uint64, sizeof
from types import ModuleType
from typing import Any

import pytest
from contract.calls import (
    INVALID_ARGUMENT,
    NOT_MAPPED,
    NOT_SUPPORTED,
    OK,
    READ_ONLY,
    Answer,
    answer,
    answer_of,
    best_of_3,
    check,
    error_line,
    write,
)
from contract.known import Known
from contract.tables import ITSELF, KERNEL, LARGE, NO_TABLE, USER, Laid
from contract.target import Target
from contract.truth import PAGE, Truth
from pagewalk import Walked, leaves, runs

from libmicrovmi_py import Microvmi
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.drivers.base import SupportsMemoryMap, SupportsRegions
from libmicrovmi_py.errors import AccessError, MicrovmiError, NotMappedError, NotSupportedError
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.model import MemoryKind

MIB = 1 << 20
UNKNOWN = (1 << 64) - 1
FAR = (0, PAGE, 1 << 47, (1 << 63) - 1, (1 << 64) - (1 << 47) - 1, (1 << 64) - PAGE, (1 << 64) - 5, (1 << 64) - 1)
DATA = bytes(range(0x41, 0x61))


@pytest.fixture(scope="module")
def tables(target: Target) -> Laid:
    """The page tables that the machine has in these tests."""
    made = Laid.of(target.pieces)
    before = Truth.of(target.pieces).valid(made.start, len(made.content))
    if not target.writable and before != made.content:
        lacking = "memory that cannot be written, without page tables: lay them by contract.tables.laid()"
        assert os.environ.get("MICROVMI_STANDS"), lacking  # that of a driver kept elsewhere may have no room for them
        pytest.skip(lacking)
    return made


@pytest.fixture
def context(lib: Any, target: Target, tables: Laid) -> Iterator[int]:
    """The machine with these tables, opened through C."""
    with in_c(lib, target, tables) as opened:
        yield opened


@contextmanager
def in_c(lib: Any, target: Target, tables: Laid) -> Iterator[int]:
    opened = lib.microvmi_open(target.uri.encode(), None)
    assert opened, lib.microvmi_last_error()
    try:
        assert not target.writable or write(lib, opened, tables.start, tables.content) == OK
        yield opened
        assert not target.writable or write(lib, opened, tables.start, _before(target, tables)) == OK
    finally:
        lib.microvmi_destroy(opened)


@pytest.fixture
def machine(target: Target, tables: Laid) -> Iterator[Microvmi]:
    """The same, opened through Python."""
    with in_python(target, tables) as opened:
        yield opened


@contextmanager
def in_python(target: Target, tables: Laid) -> Iterator[Microvmi]:
    with Microvmi.open(target.uri) as opened:
        if target.writable:
            opened.write_physical(tables.start, tables.content)
        yield opened
        if target.writable:
            opened.write_physical(tables.start, _before(target, tables))


def _before(target: Target, tables: Laid) -> bytes:
    return Truth.of(target.pieces).valid(tables.start, len(tables.content))


@pytest.fixture
def space(stubs: ModuleType, tables: Laid) -> Any:
    """What C takes."""
    size = sizeof(stubs.microvmi_address_space)
    return stubs.microvmi_address_space(size, tables.space.paging, tables.space.base)


@pytest.fixture
def python_space(machine: Microvmi, tables: Laid) -> AddressSpace:
    """What Python has."""
    return machine.address_space(tables.space.base, paging=tables.space.paging)


def places(tables: Laid) -> list[int]:
    """Where to look: around all edges, and far away."""
    around = {edge + step for edge in tables.edges() for step in (-1, 0, 1, PAGE // 2)}
    return sorted({*around, *FAR})


# ------------------------------------------------------------------------------------------------------- translations


def translated(lib: Any, context: int, stubs: ModuleType, space: Structure, address: int) -> tuple[bool, Walked]:
    """``microvmi_translate_address``."""
    found = stubs.microvmi_translation(struct_size=sizeof(stubs.microvmi_translation))
    done = lib.microvmi_translate_address(context, byref(space), address, byref(found))
    assert done == (lib.microvmi_last_error_code() == OK)
    assert done or lib.microvmi_last_error_code() == NOT_MAPPED, lib.microvmi_last_error()
    physical = None if found.physical_address == UNKNOWN else found.physical_address
    entry_address = None if found.entry_address == UNKNOWN else found.entry_address
    members = found.page_size, found.rights, found.level, found.entry, entry_address
    return bool(done), Walked(found.failure, physical, *members)


def test_every_address_translates_as_the_manual_says(
    lib: Any, context: int, stubs: ModuleType, tables: Laid, space: Any
) -> None:
    for address in places(tables):
        done, found = translated(lib, context, stubs, space, address)
        assert found == tables.walk(address), hex(address)
        assert done == (found.physical is not None)


def test_python_translates_the_same(tables: Laid, python_space: AddressSpace) -> None:
    for address in places(tables):
        assert tuple(python_space.translate(address)) == tuple(tables.walk(address)), hex(address)


# -------------------------------------------------------------------------------------------------------------- reads


@pytest.mark.parametrize("size", [1, 8, PAGE, PAGE + 2, 3 * PAGE])
def test_reads_end_where_the_first_byte_is_missing(lib: Any, context: int, tables: Laid, space: Any, size: int) -> None:
    for address in (edge - back for edge in tables.edges() for back in (0, 1, size, size + 1)):
        got = answer(lib, lib.microvmi_read_virtual, context, byref(space), address, size=size)
        check(got, answer_of(tables.valid(address, size), size), f"virtual read of {size:#x} at {address:#x}")
        got = answer(lib, lib.microvmi_read_virtual_padded, context, byref(space), address, size=size)
        expected = Answer(True, size, tables.padded(address, size), OK)
        check(got, expected, f"padded virtual read of {size:#x} at {address:#x}")


def test_reads_do_not_go_on_at_the_first_address(lib: Any, context: int, tables: Laid, space: Any) -> None:
    for address in FAR:
        for size in (0, 1, 2 * PAGE):
            got = answer(lib, lib.microvmi_read_virtual, context, byref(space), address, size=size)
            check(got, answer_of(tables.valid(address, size), size), f"virtual read of {size:#x} at {address:#x}")
            got = answer(lib, lib.microvmi_read_virtual_padded, context, byref(space), address, size=size)
            check(got, Answer(True, size, tables.padded(address, size), OK), f"padded {size:#x} at {address:#x}")


def test_python_reads_the_same_and_says_the_same(lib: Any, target: Target, tables: Laid, space: Any) -> None:
    told: dict[tuple[int, int], tuple[int, int, str]] = {}
    wanted = [(edge - back, size) for edge in (*tables.edges(), *FAR) for back in (0, 5) for size in (8, PAGE + 9)]
    with in_python(target, tables) as machine:
        memory = machine.address_space(tables.space.base, paging=tables.space.paging)
        for address, size in ((address, size) for address, size in wanted if address >= 0):
            told[address, size] = _by_python(memory, tables, address, size)
    with in_c(lib, target, tables) as context:
        for (address, size), expected in told.items():
            got = answer(lib, lib.microvmi_read_virtual, context, byref(space), address, size=size)
            text = lib.microvmi_last_error().decode()
            assert (got.code, got.done, text) == expected, (hex(address), size)


def _by_python(memory: AddressSpace, tables: Laid, address: int, size: int) -> tuple[int, int, str]:
    buffer, valid = bytearray(b"\xee" * size), tables.valid(address, size)
    assert memory.read_virtual_into(address, buffer) == len(valid)
    assert buffer == valid + b"\xee" * (size - len(valid))
    memory.read_virtual_padded_into(address, buffer)
    assert buffer == tables.padded(address, size)
    memory.seek(address)
    if valid:
        assert memory.read(size) == valid
        assert memory.tell() == address + len(valid)
    if len(valid) == size:
        assert memory.read_virtual(address, size) == valid
        return OK, size, ""
    at = address + len(valid)
    with pytest.raises(NotMappedError) as caught:
        memory.read_virtual(address, size)
    assert (caught.value.address, caught.value.requested, caught.value.completed) == (at, size, len(valid))
    assert caught.value.translation is not None
    assert at > UNKNOWN or tuple(caught.value.translation) == tuple(tables.walk(at))
    return caught.value.code, len(valid), str(caught.value)


def test_each_request_of_a_batch_has_its_own_result(
    lib: Any, context: int, stubs: ModuleType, tables: Laid, space: Any
) -> None:
    wanted = [(edge - back, size) for edge in tables.edges() for back in (0, 3) for size in (0, 1, 8, 5000)]
    wanted += [(address, 8) for address in FAR]
    random.Random(4).shuffle(wanted)
    requests = (stubs.microvmi_read_request * len(wanted))()
    for request, (address, size) in zip(requests, wanted, strict=True):
        request.virtual_address, request.size, request.bytes_read, request.error = address, size, 77, 77
        request.buffer = (c_uint8 * size)(*b"\xee" * size) if size else None
    assert not lib.microvmi_read_virtual_batch(context, byref(space), requests, len(requests))
    assert lib.microvmi_last_error_code() == NOT_MAPPED
    for request, (address, size) in zip(requests, wanted, strict=True):
        got = Answer(request.error == OK, request.bytes_read, bytes(request.buffer[:size]), request.error)
        check(got, answer_of(tables.valid(address, size), size), f"request of {size:#x} at {address:#x}")


def test_a_batch_of_python_has_the_same_results(tables: Laid, python_space: AddressSpace) -> None:
    wanted = [(edge - back, size) for edge in tables.edges() for back in (0, 3) for size in (1, 8, 5000)]
    buffers = [bytearray(size) for _, size in wanted]
    pairs = [(address, buffer) for (address, _), buffer in zip(wanted, buffers, strict=True)]
    for (address, size), buffer, (done, error) in zip(wanted, buffers, python_space.read_batch(pairs), strict=True):
        valid = tables.valid(address, size)
        assert done == len(valid), hex(address)
        assert buffer == valid + bytes(size - len(valid)), hex(address)
        assert (error is None) == (done == size)
        if error is not None:
            assert isinstance(error, NotMappedError)
            assert error.translation is not None
            assert tuple(error.translation) == tuple(tables.walk(address + done))


@pytest.mark.alone
def test_16_padded_mib_of_nothing_cost_less_than_a_second(lib: Any, context: int, tables: Laid, space: Any) -> None:
    buffer = (c_uint8 * (16 * MIB))()
    for address in (KERNEL + 8 * MIB, USER, 1 << 46, 1 << 47):
        arguments = context, byref(space), address, buffer, len(buffer), None
        call = functools.partial(lib.microvmi_read_virtual_padded, *arguments)
        assert best_of_3(call, 1) < 1, hex(address)


# ------------------------------------------------------------------------------------------------------------- writes


def kinds(known: Known, tables: Laid, address: int, size: int) -> set[MemoryKind | None]:
    """Of what kinds the memory is that a virtual range lies in; ``None`` where there is none."""
    found: set[MemoryKind | None] = set()
    told = known.memory_map if known.can(SupportsMemoryMap, SupportsRegions) else ()
    for page in range(address // PAGE * PAGE, address + size, PAGE):
        physical = tables.walk(page).physical
        there = physical is not None and tables.memory.valid(physical, 1)
        kind = next((item.kind for item in told if physical is not None and item.start <= physical < item.end), None)
        found.add((kind or MemoryKind.RAM) if there else None)
    return found


def writes(lib: Any, context: int, space: Any, address: int, data: bytes) -> int:
    """``microvmi_write_virtual``; the error code."""
    done = lib.microvmi_write_virtual(context, byref(space), address, (c_uint8 * len(data))(*data), len(data))
    code = int(lib.microvmi_last_error_code())
    assert done == (code == OK)
    return code


def test_a_write_lands_across_pages_or_changes_nothing(
    lib: Any, context: int, known: Known, target: Target, tables: Laid, space: Any
) -> None:
    landed = 0
    for address in (KERNEL + index * PAGE - 7 for index in range(1, tables.pages + 1)):
        before, kind = tables.valid(address, len(DATA)), kinds(known, tables, address, len(DATA))
        code = writes(lib, context, space, address, DATA)
        if target.writable and kind <= {MemoryKind.RAM, MemoryKind.DEVICE}:
            assert code == OK, lib.microvmi_last_error()
            got = answer(lib, lib.microvmi_read_virtual, context, byref(space), address, size=len(DATA))
            check(got, answer_of(DATA, len(DATA)), f"written at {address:#x}")
            assert writes(lib, context, space, address, before) == OK
            landed += 1
        else:
            assert code in ((NOT_MAPPED, READ_ONLY) if None in kind else (READ_ONLY,)), hex(address)
            error_line(lib)
        got = answer(lib, lib.microvmi_read_virtual, context, byref(space), address, size=len(DATA))
        check(got, answer_of(before, len(DATA)), f"as before at {address:#x}")
    assert landed or not target.writable


def test_python_writes_the_same(known: Known, target: Target, tables: Laid, python_space: AddressSpace) -> None:
    for address in (KERNEL + index * PAGE - 7 for index in (1, 2, 5, 6)):
        before, kind = tables.valid(address, len(DATA)), kinds(known, tables, address, len(DATA))
        if target.writable and kind <= {MemoryKind.RAM, MemoryKind.DEVICE}:
            python_space.seek(address)
            assert python_space.write(DATA) == len(DATA)
            assert python_space.read_virtual(address, len(DATA)) == DATA
            python_space.write_virtual(address, before)
        else:
            with pytest.raises(AccessError) as caught:
                python_space.write_virtual(address, DATA)
            assert caught.value.completed == 0
        assert python_space.read_virtual(address, len(before)) == before


# -------------------------------------------------------------------------------------------------- all that is mapped


def listed(lib: Any, context: int, stubs: ModuleType, space: Any) -> Iterator[tuple[int, ...]]:
    """``microvmi_get_virtual_map``, a few ranges a call."""
    ranges, going_on, count = (stubs.microvmi_virtual_range * 5)(), c_uint64(0), c_size_t(0)
    while True:
        done = lib.microvmi_get_virtual_map(context, byref(space), byref(going_on), ranges, 5, byref(count))
        assert done, lib.microvmi_last_error()
        for row in ranges[: count.value]:
            yield row.start, row.size, row.physical_address, row.rights, row.page_size
        if not going_on.value:
            return


def test_everything_that_is_mapped_is_told_in_c_and_in_python(
    lib: Any, target: Target, stubs: ModuleType, tables: Laid, space: Any
) -> None:
    expected = list(runs(leaves(tables.read, tables.space)))
    assert {USER, LARGE} <= {start for start, *_ in expected}
    with in_c(lib, target, tables) as context:
        assert list(listed(lib, context, stubs, space)) == expected
    with in_python(target, tables) as machine:
        found = machine.address_space(tables.space.base, paging=tables.space.paging).mapped()
        assert [(one.start, one.size, one.physical_address, one.rights, one.page_size) for one in found] == expected


def test_what_is_remembered_of_tables_can_be_forgotten(lib: Any, context: int, tables: Laid, space: Any) -> None:
    for _ in range(2):
        got = answer(lib, lib.microvmi_read_virtual, context, byref(space), USER, size=8)
        check(got, answer_of(tables.valid(USER, 8), 8), "a page of a program")
        assert lib.microvmi_flush_translations(context), lib.microvmi_last_error()


# ----------------------------------------------------------------------------------------------- where tables come from


def test_every_machine_has_virtual_memory(machine: Microvmi) -> None:
    assert Ability.VIRTUAL in machine.abilities.can


def test_the_tables_of_a_vcpu_are_told_alike_or_refused_alike(lib: Any, target: Target, stubs: ModuleType) -> None:
    told: list[object] = []
    for vcpu in (0, 0xFFFE):
        with Microvmi.open(target.uri) as machine:
            try:
                told.append(tuple(machine.address_space(vcpu=vcpu).tables))
            except MicrovmiError as err:
                told.append((err.code, str(err)))
    context = lib.microvmi_open(target.uri.encode(), None)
    for vcpu, expected in zip((0, 0xFFFE), told, strict=True):
        space = stubs.microvmi_address_space(struct_size=sizeof(stubs.microvmi_address_space))
        if lib.microvmi_get_address_space(context, vcpu, byref(space)):
            found: object = (space.paging, space.base, space.upper_base, space.control, space.physical_bits)
        else:
            found = lib.microvmi_last_error_code(), lib.microvmi_last_error().decode()
            assert lib.microvmi_last_error_code() in (INVALID_ARGUMENT, NOT_SUPPORTED)
        assert found == expected
    lib.microvmi_destroy(context)


def test_tables_without_a_twin_are_told_so(lib: Any, context: int, stubs: ModuleType, tables: Laid, space: Any) -> None:
    twin = stubs.microvmi_address_space(struct_size=sizeof(stubs.microvmi_address_space), base=77)
    assert not lib.microvmi_get_twin_address_space(context, byref(space), byref(twin))
    assert lib.microvmi_last_error_code() == NOT_SUPPORTED
    error_line(lib)
    assert twin.base == 77


def test_python_tells_that_as_well(python_space: AddressSpace) -> None:
    with pytest.raises(NotSupportedError):
        python_space.twin()


def test_the_tables_map_themselves(lib: Any, context: int, tables: Laid, space: Any) -> None:
    """What is asked for lies in the highest table: a walk that comes round to it ends all the same."""
    root = tables.space.base
    entry = (ITSELF >> 39) & 511
    address = 0xFFFF << 48 | sum(entry << shift for shift in (12, 21, 30, 39))
    got = answer(lib, lib.microvmi_read_virtual, context, byref(space), address, size=PAGE)
    check(got, answer_of(tables.memory.valid(root, PAGE), PAGE), "the highest table")
    assert {LARGE, NO_TABLE} <= set(tables.edges())
