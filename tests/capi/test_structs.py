# SPDX-License-Identifier: Apache-2.0
"""Structs that callers hand in: each wrong one alone is refused, changes nothing, and every member arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ctypes import Structure, byref, c_uint32, pointer, sizeof
from itertools import count
from types import ModuleType
from typing import Any

import pytest

INVALID_ARGUMENT, TIMEOUT = 1, 9
CR = 1
FIRST_INTERCEPT, FIRST_EVENT = 24, 64
"""Bytes of these structs in their first versions."""
ALL_VCPUS = 0xFFFF
INIT_MACROS = {"event": b"MICROVMI_EVENT_INIT", "reply": b"MICROVMI_REPLY_INIT"}

Open = Callable[[str], int]


@pytest.fixture
def vm(stubs: ModuleType, lib: Any, opened: Open) -> int:
    """A machine of which every write of CR3 is told."""
    context = opened("vmi://fake/")
    intercept = stubs.microvmi_intercept(struct_size=sizeof(stubs.microvmi_intercept), kind=CR, number=3)
    assert lib.microvmi_toggle_intercept(context, ALL_VCPUS, byref(intercept), True)
    return context


@pytest.fixture
def event(stubs: ModuleType, lib: Any, vm: int) -> Any:
    """An open event of it."""
    told = stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event))
    assert lib.microvmi_listen(vm, 2000, byref(told)), lib.microvmi_last_error()
    return told


def new_reply(stubs: ModuleType, **values: Any) -> Any:
    return stubs.microvmi_reply(**{"struct_size": sizeof(stubs.microvmi_reply), **values})


def refused(lib: Any, done: bool, words: bytes) -> None:
    assert not done
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
    assert words in lib.microvmi_last_error()


@pytest.mark.parametrize("short", [0, 1, 8])
def test_a_reply_whose_size_is_too_small_leaves_the_event_open(
    stubs: ModuleType, lib: Any, vm: int, event: Any, short: int
) -> None:
    for size in (short, sizeof(stubs.microvmi_reply) - 1):
        reply = new_reply(stubs, struct_size=size)
        refused(lib, lib.microvmi_reply_event(vm, byref(event), byref(reply)), INIT_MACROS["reply"])
    assert lib.microvmi_reply_event(vm, byref(event), byref(new_reply(stubs))), lib.microvmi_last_error()


def test_an_event_whose_size_is_too_small_is_neither_filled_nor_answered(
    stubs: ModuleType, lib: Any, vm: int, event: Any
) -> None:
    for size in (0, FIRST_EVENT - 1):
        small = stubs.microvmi_event(struct_size=size, id=event.id)
        refused(lib, lib.microvmi_reply_event(vm, byref(small), None), INIT_MACROS["event"])
        refused(lib, lib.microvmi_listen(vm, 0, byref(small)), INIT_MACROS["event"])
    assert lib.microvmi_reply_event(vm, byref(event), None), lib.microvmi_last_error()


def test_an_intercept_whose_size_is_too_small_is_not_set(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm = opened("vmi://fake/")
    told = stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event))
    for size in (0, FIRST_INTERCEPT - 1):
        small = stubs.microvmi_intercept(struct_size=size, kind=CR, number=3)
        refused(lib, lib.microvmi_toggle_intercept(vm, 0, byref(small), True), b"MICROVMI_INTERCEPT_INIT")
    assert not lib.microvmi_listen(vm, 50, byref(told))


def test_a_caller_of_the_first_version_intercepts_and_is_told_what_he_knows(
    stubs: ModuleType, lib: Any, opened: Open
) -> None:
    vm = opened("vmi://fake/")
    known = stubs.microvmi_intercept(struct_size=FIRST_INTERCEPT, kind=CR, number=3, size=77, access=99, reserved=1)
    assert lib.microvmi_toggle_intercept(vm, ALL_VCPUS, byref(known), True), lib.microvmi_last_error()
    event = stubs.microvmi_event(struct_size=FIRST_EVENT, instruction_pointer=77, stands=77, lost=77)
    assert lib.microvmi_listen(vm, 2000, byref(event)), lib.microvmi_last_error()
    assert (event.struct_size, event.kind, event.new_value) == (FIRST_EVENT, CR, 0x1000)
    assert (event.instruction_pointer, event.stands, event.lost) == (77, 77, 77)
    assert lib.microvmi_reply_event(vm, byref(event), None), lib.microvmi_last_error()


ACCESS, BREAKPOINT = 6, 3
EVERY_WRITE, OBSERVE, HARDWARE = 1, 2, 4
WRONG: list[tuple[dict[str, int], bytes]] = [
    ({"kind": CR, "number": 3, "flags": 8}, b"flags are 0x8"),
    ({"kind": CR, "number": 3, "flags": 0xFFFFFFFF}, b"flags are 0xffffffff"),
    ({"kind": CR, "number": 0, "flags": EVERY_WRITE}, b"for CR 3"),
    ({"kind": 2, "number": 3, "flags": OBSERVE}, b"OBSERVE is for control registers"),
    ({"kind": CR, "number": 3, "flags": EVERY_WRITE | OBSERVE}, b"two intercepts"),
    ({"kind": CR, "number": 3, "flags": HARDWARE}, b"HARDWARE is for a breakpoint"),
    ({"kind": BREAKPOINT, "flags": HARDWARE}, b"HARDWARE is for a breakpoint"),
    ({"kind": CR, "number": 3, "size": 8}, b"has no size"),
    ({"kind": BREAKPOINT, "address": 0x1000, "access": 1}, b"has no size and no access"),
    ({"kind": ACCESS, "address": 0x1000, "access": 2}, b"no range"),
    ({"kind": ACCESS, "address": 2**64 - 8, "size": 9, "access": 2}, b"no range"),
    ({"kind": ACCESS, "address": 0x1000, "size": 2**64 - 1, "access": 2}, b"no range"),
    ({"kind": ACCESS, "address": 0x1000, "size": 8}, b"access is 0x0"),
    ({"kind": ACCESS, "address": 0x1000, "size": 8, "access": 8}, b"access is 0x8"),
    ({"struct_size": FIRST_INTERCEPT, "kind": ACCESS, "address": 0x1000, "size": 8, "access": 2}, b"no range"),
]


@pytest.mark.parametrize(("members", "words"), WRONG)
def test_an_intercept_with_a_member_that_is_wrong_is_refused(
    stubs: ModuleType, lib: Any, opened: Open, members: dict[str, int], words: bytes
) -> None:
    vm = opened("vmi://fake/")
    wrong = stubs.microvmi_intercept(**{"struct_size": sizeof(stubs.microvmi_intercept), **members})
    for enabled in (True, False):
        refused(lib, lib.microvmi_toggle_intercept(vm, ALL_VCPUS, byref(wrong), enabled), words)


def test_abilities_for_a_caller_of_the_first_version_end_where_his_do(
    stubs: ModuleType, lib: Any, opened: Open
) -> None:
    vm, first = opened("vmi://fake/"), stubs.microvmi_abilities.flags.offset
    known = stubs.microvmi_abilities(struct_size=first, flags=(77,) * 16, stands=(77,) * 16)
    assert lib.microvmi_get_abilities(vm, byref(known)), lib.microvmi_last_error()
    assert (known.struct_size, set(known.flags), set(known.stands)) == (first, {77}, {77})
    assert known.answers[CR] == 7


@pytest.mark.parametrize("tag", [2, -1, 77])
def test_registers_of_an_unknown_tag_are_not_written(
    stubs: ModuleType, lib: Any, vm: int, event: Any, tag: int
) -> None:
    registers, before, after = stubs.Registers(), stubs.Registers(), stubs.Registers()
    assert lib.microvmi_read_registers(vm, 0, byref(before))
    registers.tag, registers.x86.rax = tag, 0xBAD
    refused(lib, lib.microvmi_write_registers(vm, 0, byref(registers)), b"registers: there is no tag")
    reply = new_reply(stubs, registers=pointer(registers))
    refused(lib, lib.microvmi_reply_event(vm, byref(event), byref(reply)), b"registers: there is no tag")
    assert lib.microvmi_read_registers(vm, 0, byref(after))
    assert bytes(after) == bytes(before)
    assert lib.microvmi_reply_event(vm, byref(event), None), lib.microvmi_last_error()


def members(struct: Any, prefix: str = "") -> Iterator[tuple[Any, str]]:
    """Every number in a struct, those of structs in it too."""
    for name, *_ in struct._fields_:
        value = getattr(struct, name)
        if isinstance(value, Structure):
            yield from members(value, f"{prefix}{name}.")
        elif isinstance(value, int):
            yield struct, name


def numbered(stubs: ModuleType) -> Any:
    """Registers of which no two members are alike, each as wide as it can be."""
    registers = stubs.Registers()
    number = count(1)
    for struct, name in members(registers.x86):
        setattr(struct, name, 0xA1B2C3D4_E5F60000 + next(number))
    registers.x86.efer = registers.x86.msr_efer  # they are one register
    return registers


def test_every_register_that_is_written_is_read_again(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm, written, back = opened("vmi://fake/?vcpus=2"), numbered(stubs), stubs.Registers()
    assert len({getattr(struct, name) for struct, name in members(written.x86)}) > 40
    assert lib.microvmi_write_registers(vm, 1, byref(written)), lib.microvmi_last_error()
    assert lib.microvmi_read_registers(vm, 1, byref(back))
    pairs = zip(members(back.x86), members(written.x86), strict=True)
    different = [name for (got, name), (put, _) in pairs if getattr(got, name) != getattr(put, name)]
    assert different == []
    assert lib.microvmi_read_registers(vm, 0, byref(back))
    assert back.x86.rip == 0xFFF0


def test_so_is_every_register_of_an_answer(stubs: ModuleType, lib: Any, vm: int, event: Any) -> None:
    written, back = numbered(stubs), stubs.Registers()
    reply = new_reply(stubs, action=1, registers=pointer(written))
    assert lib.microvmi_reply_event(vm, byref(event), byref(reply)), lib.microvmi_last_error()
    assert lib.microvmi_read_registers(vm, 0, byref(back))
    assert bytes(back) == bytes(written)


@pytest.mark.parametrize("timeout_ms", [0, 15])
def test_listen_waits_as_many_milliseconds_as_it_is_told(
    stubs: ModuleType, lib: Any, opened: Open, timeout_ms: int
) -> None:
    vm, told = opened("vmi://fake/"), stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event))
    started = time.monotonic()
    assert not lib.microvmi_listen(vm, timeout_ms, byref(told))
    took = time.monotonic() - started
    assert lib.microvmi_last_error_code() == TIMEOUT
    assert timeout_ms / 1000 <= took + 0.001
    assert took < timeout_ms / 1000 + 5


@pytest.mark.parametrize("access", [8, 9, 16, 0xFFFFFFFF])
def test_an_access_that_there_is_not_is_refused(lib: Any, opened: Open, access: int) -> None:
    vm, told = opened("vmi://fake/"), c_uint32()
    assert lib.microvmi_set_page_access(vm, 0x2000, 3)
    refused(lib, lib.microvmi_set_page_access(vm, 0x2000, access), b"not made of read")
    assert lib.microvmi_get_page_access(vm, 0x2000, byref(told))
    assert told.value == 3
