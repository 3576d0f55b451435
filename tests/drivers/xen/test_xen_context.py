# SPDX-License-Identifier: Apache-2.0
"""The saved state of a vCPU: registers out of it, and into it without a change to anything else."""

from __future__ import annotations

import struct
from dataclasses import fields

import pytest

from libmicrovmi_py.arch.x86 import registers as x86
from libmicrovmi_py.arch.x86.registers import SegmentReg, SystemTableReg, X86Registers
from libmicrovmi_py.drivers.xen import context
from libmicrovmi_py.errors import InvalidArgumentError, IoError

# Where Xen's public header has what, in bytes; written down apart from the driver's own table.
OFFSETS = {
    "rax": 512,
    "rbx": 520,
    "rsp": 568,
    "r15": 632,
    "rip": 640,
    "rflags": 648,
    "cr0": 656,
    "cr3": 672,
    "cr4": 680,
}
SYSTEM = {"sysenter_cs": 920, "sysenter_eip": 936, "msr_lstar": 960, "msr_star": 968, "msr_efer": 992}
SEGMENTS = {"cs": (736, 768, 808), "ss": (756, 788, 848), "tr": (760, 792, 856), "ldt": (764, 796, 864)}
TABLES = {"idt": (800, 872), "gdt": (804, 880)}


def record() -> bytes:
    """A record in which no two bytes next to each other are the same."""
    return bytes((7 * index + index // 256) % 256 for index in range(context.CPU_SIZE))


def quad(content: bytes, offset: int) -> int:
    return int(struct.unpack_from("<Q", content, offset)[0])


def word(content: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", content, offset)[0])


def test_registers_are_where_the_header_has_them() -> None:
    content = record()
    found = context.registers(content, apic_base=0xFEE00900)
    for name, offset in {**OFFSETS, **SYSTEM}.items():
        assert getattr(found, name) == quad(content, offset), name
    for name, (selector, limit, base) in SEGMENTS.items():
        expected = SegmentReg(quad(content, base), word(content, limit), word(content, selector) & 0xFFFF)
        assert getattr(found, name) == expected, name
    for name, (limit, base) in TABLES.items():
        assert getattr(found, name) == SystemTableReg(quad(content, base), word(content, limit) & 0xFFFF), name
    assert found.efer == found.msr_efer
    assert found.apic_base == 0xFEE00900


def test_registers_that_are_written_back_change_nothing() -> None:
    content = record()
    assert context.changed(content, context.registers(content)) == content


def test_every_register_can_be_changed_by_itself() -> None:
    content = record()
    for name in (*x86.GENERAL, *x86.SYSTEM):
        wanted = context.registers(content)
        setattr(wanted, name, 0x1122334455667788)
        changed = context.changed(content, wanted)
        expected = context.registers(content)
        if name != "apic_base":
            setattr(expected, name, 0x1122334455667788)
        expected.efer = expected.msr_efer = 0x1122334455667788 if "efer" in name else expected.efer
        assert context.registers(changed) == expected, name
        assert sum(old != new for old, new in zip(content, changed, strict=True)) <= 8, name


def test_every_segment_can_be_changed_and_keeps_its_attributes() -> None:
    content = record()
    wanted = context.registers(content)
    for number, name in enumerate(x86.SEGMENTS):
        setattr(wanted, name, SegmentReg(number, number + 1, number + 2))
    changed = context.changed(content, wanted)
    assert context.registers(changed) == wanted
    assert changed[888:920] == content[888:920]


def test_a_value_that_does_not_fit_is_an_argument_error() -> None:
    wanted = X86Registers(rax=1 << 64)
    with pytest.raises(InvalidArgumentError, match="does not fit"):
        context.changed(record(), wanted)


def test_every_member_of_registers_comes_out_of_the_record() -> None:
    content = bytes([0xFF]) * context.CPU_SIZE
    found = context.registers(content, apic_base=1)
    assert all(getattr(found, field.name) != getattr(X86Registers(), field.name) for field in fields(X86Registers))


def packed(code: int, instance: int, content: bytes) -> bytes:
    return struct.pack("<HHI", code, instance, len(content)) + content


def test_only_the_header_and_one_vcpu_are_loaded_again() -> None:
    header, end = packed(1, 0, b"header"), packed(0, 0, b"")
    first, second = packed(2, 0, record()), packed(2, 1, record()[::-1])
    state = header + first + packed(5, 0, b"lapic") + second + end
    found, cpu = context.only(state, 1)
    assert cpu.content == record()[::-1]
    assert context.packed(found, cpu) == header + second + end


@pytest.mark.parametrize(
    "state",
    [
        b"",
        packed(1, 0, b"header"),
        packed(1, 0, b"header") + packed(2, 0, record())[:-1],
        packed(1, 0, b"header") + packed(2, 0, b"short") + packed(0, 0, b""),
        packed(1, 0, b"header") + packed(2, 1, record()) + packed(0, 0, b""),
        packed(2, 0, record()) + packed(0, 0, b""),
    ],
    ids=["nothing", "no end", "cut off", "too short", "another vCPU", "no header"],
)
def test_a_state_without_the_vcpu_is_an_error(state: bytes) -> None:
    with pytest.raises(IoError):
        context.only(state, 0)


CPU_QUADS = (
    *("rax", "rbx", "rcx", "rdx", "rbp", "rsi", "rdi", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rip", "rflags", "cr0", "cr2", "cr3", "cr4"),
)
"""Of ``struct hvm_hw_cpu``, from byte 512 on, 8 bytes each."""

SEGMENT_ORDER = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt", "idt", "gdt")
"""Selectors from byte 736 on, but of the tables; limits from 768, bases from 808."""


def test_no_register_of_the_record_is_told_for_another() -> None:
    content = bytearray(context.CPU_SIZE)
    expected = X86Registers()
    for place, name in enumerate(CPU_QUADS):
        struct.pack_into("<Q", content, 512 + 8 * place, 0x8123456789AB0000 + place)
        setattr(expected, name, 0x8123456789AB0000 + place)
    for place, name in enumerate(SEGMENT_ORDER):
        base, limit = 0xFFFF800000000000 + place, 0x1000 + place
        struct.pack_into("<I", content, 768 + 4 * place, limit)
        struct.pack_into("<Q", content, 808 + 8 * place, base)
        if name in ("idt", "gdt"):
            setattr(expected, name, SystemTableReg(base, limit))
        else:
            struct.pack_into("<I", content, 736 + 4 * place, 8 * place + 3)
            setattr(expected, name, SegmentReg(base, limit, 8 * place + 3))
    for name, offset in {**SYSTEM, "sysenter_esp": 928}.items():
        struct.pack_into("<Q", content, offset, 0x1123456789AB0000 + offset)
        setattr(expected, name, 0x1123456789AB0000 + offset)
    expected.efer, expected.apic_base = expected.msr_efer, 0xFEE00900
    found = context.registers(bytes(content), apic_base=0xFEE00900)
    different = [
        field.name for field in fields(X86Registers) if getattr(found, field.name) != getattr(expected, field.name)
    ]
    assert different == []
