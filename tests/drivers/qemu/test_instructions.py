# SPDX-License-Identifier: Apache-2.0
"""Instructions that write control registers and MSRs: bytes as GNU as made them."""

from __future__ import annotations

import random

import pytest

from libmicrovmi_py.drivers.qemu.events.instructions import GENERAL, LONGEST, MSRS, Target, decode, find
from libmicrovmi_py.events import EventKind

CR0, CR3, CR4 = (Target(EventKind.CR, number) for number in (0, 3, 4))

ASSEMBLED = [
    ("mov %rax,%cr0", "0f22c0", CR0, "rax"),
    ("mov %r15,%cr3", "410f22df", CR3, "r15"),
    ("mov %rdi,%cr4", "0f22e7", CR4, "rdi"),
    ("rex.W mov %r12,%cr4", "490f22e4", CR4, "r12"),
    ("ds mov %rsp,%cr4", "3e0f22e4", CR4, "rsp"),
    ("mov %rax,%cr3 with the bits of memory", "0f2218", CR3, "rax"),
    ("clts", "0f06", CR0, ""),
    ("lmsw %ax", "0f01f0", CR0, "rax"),
    ("lmsw %r9w", "410f01f1", CR0, "r9"),
    ("wrmsr", "0f30", MSRS, ""),
    ("cs wrmsr", "2e0f30", MSRS, ""),
    ("wrmsrns", "0f01c6", MSRS, ""),
]
OTHERS = {
    "mov %rax,%cr8": "440f22c0",
    "lock mov %rax,%cr0": "f00f22c0",
    "mov %rax,%cr2": "0f22d0",
    "mov %rax,%dr0": "0f23c0",
    "mov %cr3,%rax": "0f20d8",
    "rdmsr": "0f32",
    "rdmsrlist": "f20f01c6",
    "wrmsrlist": "f30f01c6",
    "smsw %ax": "660f01e0",
    "invlpg (%rax)": "0f0138",
    "syscall": "0f05",
    "nop": "90",
}

REGISTERS = {name: 0x1111 << 12 | number << 4 for number, name in enumerate(GENERAL)}
VALUES = {**REGISTERS, "rip": 0x40_0000, "gs_base": 0xFFFF_8880_0000_0000, "fs_base": 0x7F00_0000_0000}

IN_MEMORY = [
    ("lmsw (%rax)", "0f0130", VALUES["rax"]),
    ("lmsw 8(%rax,%rbx,4)", "0f01749808", VALUES["rax"] + 4 * VALUES["rbx"] + 8),
    ("lmsw 0x12345678(%rip)", "0f013578563412", 0x40_0000 + 7 + 0x12345678),
    ("lmsw %gs:0x1234", "650f01342534120000", VALUES["gs_base"] + 0x1234),
    ("lmsw (%r13)", "410f017500", VALUES["r13"]),
    ("lmsw (%r12)", "410f013424", VALUES["r12"]),
    ("lmsw 0x10(,%r12,8)", "420f0134e510000000", VALUES["r12"] * 8 + 0x10),
    ("lmsw -8(%esp)", "670f017424f8", VALUES["rsp"] - 8),
    ("lmsw %fs:-0x80000000(%rdi)", "640f01b700000080", VALUES["fs_base"] + VALUES["rdi"] - (1 << 31)),
]


@pytest.mark.parametrize(("text", "code", "target", "source"), ASSEMBLED, ids=[row[0] for row in ASSEMBLED])
def test_what_an_instruction_writes_and_from_where(text: str, code: str, target: Target, source: str) -> None:
    data = bytes.fromhex(code)
    found = decode(data + b"\x90" * LONGEST)
    assert found is not None
    assert (found.target, found.length) == (target, len(data))
    assert (GENERAL[found.source] if found.source >= 0 else "") == source
    assert decode(data) == found
    assert all(decode(data[:size]) is None for size in range(len(data)))


@pytest.mark.parametrize("text", OTHERS)
def test_other_instructions_write_nothing_that_is_looked_for(text: str) -> None:
    assert decode(bytes.fromhex(OTHERS[text]) + b"\x90" * LONGEST) is None


@pytest.mark.parametrize(("text", "code", "address"), IN_MEMORY, ids=[row[0] for row in IN_MEMORY])
def test_where_an_operand_in_memory_is(text: str, code: str, address: int) -> None:
    data = bytes.fromhex(code)
    found = decode(data + b"\x90" * LONGEST)
    assert found is not None
    assert (found.target, found.length, found.source) == (CR0, len(data), -1)
    assert found.address(VALUES) == address % (1 << 64)
    assert all(decode(data[:size]) is None for size in range(len(data)))


def test_an_instruction_has_fifteen_bytes_at_the_most() -> None:
    assert decode(b"\x2e" * 12 + b"\x0f\x22\xd8") is not None
    assert decode(b"\x2e" * 13 + b"\x0f\x22\xd8") is None


def test_outside_of_64_bit_mode_there_is_no_prefix_of_that_mode() -> None:
    assert decode(b"\x41\x0f\x22\xd8", wide=False) is None
    assert decode(b"\x0f\x22\xd8", wide=False) is not None


def test_every_beginning_that_is_possible_is_found() -> None:
    code = bytes.fromhex("b8 0000 002e 41 0f22d8 90 660f30")  # mov $0x2e000000,%eax; mov %r8,%cr3
    found = list(find(code))
    assert found == [(6, CR3), (5, CR3), (4, CR3), (11, MSRS), (10, MSRS)]


def test_what_a_jump_behind_a_prefix_would_write_is_found() -> None:
    assert list(find(bytes.fromhex(OTHERS["mov %rax,%cr8"]))) == [(1, CR0)]
    assert list(find(bytes.fromhex(OTHERS["rdmsrlist"]))) == [(1, MSRS)]
    assert list(find(bytes.fromhex(OTHERS["mov %rax,%cr2"] + OTHERS["rdmsr"] + OTHERS["smsw %ax"]))) == []


def test_what_is_found_does_not_depend_on_what_it_stands_in() -> None:
    """Beginnings are those that the decoder takes, with a prefix or an opcode at them: in random bytes, all of them."""
    chance = random.Random(20)
    data = bytes(chance.choice(b"\x0f\x22\x30\x01\x06\x41\x66\xf0\xc6\xd8\xe0\x90") for _ in range(4000))
    expected = {at for at in range(len(data)) if decode(data[at : at + LONGEST]) is not None}
    assert {at for at, _ in find(data)} == expected
    assert len(expected) > 100
