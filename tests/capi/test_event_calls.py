# SPDX-License-Identifier: Apache-2.0
"""Events through the C API: the loop of a listener, answers, and the end while somebody listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from ctypes import byref, pointer, sizeof
from types import ModuleType
from typing import Any

import pytest

INVALID_CONTEXT, NOT_SUPPORTED = 2, 5
CR, ACCESS = 1, 4
DENY = 2
ALL_VCPUS = 0xFFFF

Open = Callable[[str], int]


def intercept(stubs: ModuleType, kind: int, number: int = 0) -> Any:
    return stubs.microvmi_intercept(struct_size=sizeof(stubs.microvmi_intercept), kind=kind, number=number)


def listened(stubs: ModuleType, lib: Any, vm: int, timeout_ms: int = 2000) -> Any:
    event = stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event))
    assert lib.microvmi_listen(vm, timeout_ms, byref(event)), lib.microvmi_last_error()
    return event


def test_a_thousand_events_are_answered(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm = opened("vmi://fake/?vcpus=2")
    assert lib.microvmi_toggle_intercept(vm, ALL_VCPUS, byref(intercept(stubs, CR, 3)), True)
    last = {0: 0, 1: 0}
    for _ in range(1000):
        event = listened(stubs, lib, vm)
        assert (event.kind, event.number, event.old_value) == (CR, 3, last[event.vcpu])
        assert lib.microvmi_reply_event(vm, byref(event), None)
        last[event.vcpu] = event.new_value


def test_an_answer_denies_and_changes_registers(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm = opened("vmi://fake/")
    assert lib.microvmi_toggle_intercept(vm, 0, byref(intercept(stubs, CR, 3)), True)
    event, registers = listened(stubs, lib, vm), stubs.Registers()
    assert lib.microvmi_read_registers(vm, 0, byref(registers))
    registers.x86.rbx = 0xFEED
    reply = stubs.microvmi_reply(struct_size=sizeof(stubs.microvmi_reply), action=DENY, registers=pointer(registers))
    assert lib.microvmi_reply_event(vm, byref(event), byref(reply))
    assert lib.microvmi_read_registers(vm, 0, byref(registers))
    assert (registers.x86.rbx, registers.x86.cr3) == (0xFEED, event.old_value)


def test_an_event_for_a_larger_struct_says_how_much_of_it_is_filled(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm = opened("vmi://fake/")
    size = sizeof(stubs.microvmi_event)
    room = (stubs.microvmi_event * 2)()
    room[0].struct_size, room[1].id = 2 * size, 77
    assert lib.microvmi_set_page_access(vm, 0x2345, 0)
    assert lib.microvmi_toggle_intercept(vm, ALL_VCPUS, byref(intercept(stubs, ACCESS)), True)
    assert lib.microvmi_listen(vm, 1000, room)
    assert (room[0].struct_size, room[0].physical_address, room[0].access, room[1].id) == (size, 0x2000, 1, 77)


def test_destroy_ends_a_wait_at_once(stubs: ModuleType, lib: Any) -> None:
    vm = lib.microvmi_open(b"vmi://fake/", None)
    results: list[tuple[bool, int]] = []

    def listen() -> None:
        event = stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event))
        results.append((lib.microvmi_listen(vm, 600_000, byref(event)), lib.microvmi_last_error_code()))

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(0.1)
    before = time.monotonic()
    lib.microvmi_destroy(vm)
    thread.join(5)
    assert time.monotonic() - before < 2
    assert results == [(False, INVALID_CONTEXT)]


def test_an_image_has_no_events(
    stubs: ModuleType, lib: Any, opened: Open, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = tmp_path_factory.mktemp("image") / "memory.raw"
    image.write_bytes(bytes(4096))
    vm = opened(str(image))
    event = stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event))
    registers = stubs.Registers()
    calls: tuple[Callable[[], object], ...] = (
        lambda: lib.microvmi_toggle_intercept(vm, 0, byref(intercept(stubs, CR, 3)), True),
        lambda: lib.microvmi_listen(vm, 0, byref(event)),
        lambda: lib.microvmi_reply_event(vm, byref(event), None),
        lambda: lib.microvmi_set_page_access(vm, 0, 7),
        lambda: lib.microvmi_write_registers(vm, 0, byref(registers)),
    )
    for call in calls:
        assert not call()
        assert lib.microvmi_last_error_code() == NOT_SUPPORTED
        assert b"the dump driver cannot" in lib.microvmi_last_error()
