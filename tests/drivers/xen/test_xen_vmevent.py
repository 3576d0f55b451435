# SPDX-License-Identifier: Apache-2.0
"""Entries of the ring of events: what they say, and what they are answered."""

from __future__ import annotations

import struct

import pytest

from libmicrovmi_py.arch.x86.registers import GENERAL
from libmicrovmi_py.drivers.xen import vmevent
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import UNKNOWN_ADDRESS, EventKind, PageAccess, Stop

PAUSED, SINGLE_STEP_TOGGLE, FOREIGN = 1, 1 << 4, 1 << 1
VCPU = 3
RIP = 0xFFFFFFFF81000123
RIP_AT = 56 + 19 * 8


def request(reason: int, body: bytes, flags: int = PAUSED | FOREIGN, version: int = 7) -> vmevent.Request:
    """An entry as Xen writes it."""
    head = struct.pack("<IIIIHHHH", version, flags, reason, VCPU, 0, 0, 0, 0)
    raw = bytearray((head + body).ljust(vmevent.SIZES[version], b"\x11"))
    struct.pack_into("<Q", raw, RIP_AT, RIP)
    return vmevent.Request(bytes(raw))


@pytest.mark.parametrize(("index", "number"), [(0, 0), (1, 3), (2, 4)])
def test_a_write_of_a_control_register(index: int, number: int) -> None:
    found = request(4, struct.pack("<IIQQ", index, 0, 0x1000, 0x2000)).stop()
    assert found == Stop(EventKind.CR, VCPU, number=number, new_value=0x1000, old_value=0x2000)


def test_a_write_of_an_msr() -> None:
    found = request(5, struct.pack("<QQQ", 0xC0000082, 1, 2)).stop()
    assert found == Stop(EventKind.MSR, VCPU, number=0xC0000082, new_value=1, old_value=2)


def test_a_breakpoint_is_at_its_instruction() -> None:
    entry = request(6, struct.pack("<QQIB3x", 0x1234, 0, 1, 6))
    found = entry.stop()
    expected = Stop(EventKind.BREAKPOINT, VCPU, physical_address=0x1234123, virtual_address=RIP, instruction_length=1)
    assert found == expected
    assert entry.breakpoint == (1, 6)
    assert found is not None
    assert found.token is entry


def test_a_single_step_is_at_its_instruction() -> None:
    found = request(7, struct.pack("<Q", 0x1234)).stop()
    assert found == Stop(EventKind.SINGLE_STEP, VCPU, physical_address=0x1234123, virtual_address=RIP)


@pytest.mark.parametrize(("told", "virtual"), [(1 << 3, 0xFFFF800000000ABC), (0, UNKNOWN_ADDRESS)])
def test_an_access_is_at_the_memory(told: int, virtual: int) -> None:
    found = request(1, struct.pack("<QQQI4x", 0x77, 0xABC, 0xFFFF800000000ABC, 0b110 | told)).stop()
    assert found == Stop(
        EventKind.PAGE_ACCESS,
        VCPU,
        physical_address=0x77ABC,
        virtual_address=virtual,
        access=PageAccess.WRITE | PageAccess.EXECUTE,
    )


@pytest.mark.parametrize("entry", [request(10, b""), request(0, b""), request(4, struct.pack("<I", 3))])
def test_what_nobody_can_have_asked_for_is_no_stop(entry: vmevent.Request) -> None:
    assert entry.stop() is None
    assert entry.waits


def test_an_answer_repeats_the_request_and_lets_the_vcpu_go_on() -> None:
    entry = request(4, b"\x22" * 32, flags=PAUSED | FOREIGN | SINGLE_STEP_TOGGLE)
    answer = entry.answer()
    assert answer[4:8] == struct.pack("<I", PAUSED)
    assert answer[:4] + answer[8:] == entry.raw[:4] + entry.raw[8:]


def test_an_answer_to_a_vcpu_that_does_not_wait_wakes_none() -> None:
    entry = request(4, b"", flags=0)
    assert not entry.waits
    assert entry.answer()[4:8] == bytes(4)


@pytest.mark.parametrize("waits", [True, False])
def test_a_stop_tells_whether_its_vcpu_waits(waits: bool) -> None:
    found = request(7, b"", flags=PAUSED if waits else 0).stop()
    assert found is not None
    assert found.waits is waits


def test_an_answer_can_set_registers() -> None:
    names = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8")
    registers = dict.fromkeys(GENERAL, 0) | {name: value for value, name in enumerate(names, 1)}
    registers |= {"r15": 16, "rflags": 0x202, "rip": 0x99}
    entry = request(4, b"")
    answer = entry.answer(registers=registers)
    assert answer[4:8] == struct.pack("<I", PAUSED | 1 << 8)
    assert struct.unpack_from("<17Q", answer, 56) == (1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 16, 0x202)
    assert struct.unpack_from("<Q", answer, RIP_AT) == (0x99,)
    assert answer[RIP_AT + 8 :] == entry.raw[RIP_AT + 8 :]


@pytest.mark.parametrize(("version", "size"), [(6, 384), (7, 400)])
def test_a_response_to_nothing_frees_one_vcpu(version: int, size: int) -> None:
    response = vmevent.release(version, 5)
    assert len(response) == size
    assert struct.unpack_from("<IIII", response) == (version, PAUSED, 4, 5)


def test_a_version_of_the_interface_that_is_not_known_is_refused() -> None:
    with pytest.raises(NotSupportedError, match="version 8"):
        vmevent.entry_size(8)
