# SPDX-License-Identifier: Apache-2.0
"""The saved state of a vCPU: registers out of it, and into it without a change to anything else."""

from __future__ import annotations

import struct

import pytest

from libmicrovmi_py.arch.x86.registers import STATE, WIDTHS
from libmicrovmi_py.drivers.saved import xenstate
from libmicrovmi_py.errors import IoError

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
SYSTEM = {"sysenter_cs": 920, "sysenter_eip": 936, "kernel_gs_base": 944, "lstar": 960, "star": 968, "cstar": 976}
SYSTEM |= {"fmask": 984, "efer": 992, "dr0": 688, "dr3": 712, "dr6": 720, "dr7": 728}
SEGMENTS = {
    "cs": (736, 768, 808, 888),
    "ss": (756, 788, 848, 908),
    "tr": (760, 792, 856, 912),
    "ldt": (764, 796, 864, 916),
}
TABLES = {"idt": (800, 872), "gdt": (804, 880)}
APIC = {"apic_base", "cr8", "xcr0"}


def record() -> bytes:
    """A record in which no two bytes next to each other are the same."""
    return bytes((7 * index + index // 256) % 256 for index in range(xenstate.CPU_SIZE))


def quad(content: bytes, offset: int) -> int:
    return int(struct.unpack_from("<Q", content, offset)[0])


def word(content: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", content, offset)[0])


def test_registers_are_where_the_header_has_them() -> None:
    content = record()
    found = xenstate.values(content)
    for name, offset in {**OFFSETS, **SYSTEM}.items():
        assert found[name] == quad(content, offset), name
    assert found["tsc_aux"] == word(content, 1000)
    for name, (selector, limit, base, attributes) in SEGMENTS.items():
        assert found[f"{name}_base"] == quad(content, base)
        assert found[f"{name}_limit"] == word(content, limit)
        assert found[f"{name}_selector"] == word(content, selector) & 0xFFFF
        assert found[f"{name}_attributes"] == word(content, attributes) & 0xFFF
    for name, (limit, base) in TABLES.items():
        assert (found[f"{name}_base"], found[f"{name}_limit"]) == (quad(content, base), word(content, limit) & 0xFFFF)


def test_the_record_has_all_registers_but_those_of_the_apic_and_xcr0() -> None:
    assert set(xenstate.values(record())) == xenstate.WRITABLE == {*STATE} - APIC


def test_registers_that_are_written_back_change_nothing() -> None:
    content = bytes(xenstate.CPU_SIZE)
    assert xenstate.changed(content, xenstate.values(content)) == content
    assert xenstate.become(record(), xenstate.values(record())) == record()


@pytest.mark.parametrize("name", sorted({*STATE} - APIC))
def test_every_register_can_be_changed_by_itself(name: str) -> None:
    content, value = record(), 0x1122334455667788 & (1 << WIDTHS.get(name, 64)) - 1
    changed = xenstate.changed(content, {name: value})
    assert xenstate.values(changed) == {**xenstate.values(content), name: value}
    assert sum(old != new for old, new in zip(content, changed, strict=True)) <= 8


def test_what_is_not_in_the_record_is_left_out() -> None:
    assert xenstate.changed(record(), {"apic_base": 1, "cr8": 2}) == record()


def packed(code: int, instance: int, content: bytes) -> bytes:
    return struct.pack("<HHI", code, instance, len(content)) + content


def test_only_the_header_and_one_vcpu_are_loaded_again() -> None:
    header, end = packed(1, 0, b"header"), packed(0, 0, b"")
    first, second = packed(2, 0, record()), packed(2, 1, record()[::-1])
    state = header + first + packed(5, 0, b"lapic") + second + end
    found, cpu = xenstate.only(state, 1)
    assert cpu.content == record()[::-1]
    assert xenstate.packed(found, cpu) == header + second + end


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
        xenstate.only(state, 0)


def saved(vcpu: int) -> bytes:
    """All records of a vCPU that tell registers."""
    apic, priority, extended = (
        struct.pack("<Q16x", 0xFEE00900),
        bytes(0x80) + b"\x5f".ljust(0x380, b"\0"),
        bytearray(600),
    )
    struct.pack_into("<2Q", extended, 0, 0xFF, 0x77)
    return b"".join(
        (packed(2, vcpu, record()), packed(5, vcpu, apic), packed(6, vcpu, priority), packed(16, vcpu, bytes(extended)))
    )


def test_the_apic_and_extended_state_tell_the_rest() -> None:
    state = packed(1, 0, b"header") + saved(0) + packed(2, 1, record()) + packed(5, 2, bytes(24)) + packed(0, 0, b"")
    first, second, offline, missing = xenstate.states(state, range(4))
    assert {name: first[name] for name in APIC} == {"apic_base": 0xFEE00900, "cr8": 5, "xcr0": 0x77}
    assert set(first) == set(STATE)
    assert second == xenstate.values(record())
    assert (len(offline), len(missing)) == (0, 0)


CPU_QUADS = (
    *("rax", "rbx", "rcx", "rdx", "rbp", "rsi", "rdi", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rip", "rflags", "cr0", "cr2", "cr3", "cr4"),
)
"""Of ``struct hvm_hw_cpu``, from byte 512 on, 8 bytes each."""

SEGMENT_ORDER = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt", "idt", "gdt")
"""Selectors from byte 736 on, but of the tables; limits from 768, bases from 808."""


def test_no_register_of_the_record_is_told_for_another() -> None:
    content = bytearray(xenstate.CPU_SIZE)
    expected: dict[str, int] = {}

    def put(form: str, offset: int, name: str, value: int) -> None:
        struct.pack_into(form, content, offset, value)
        expected[name] = value

    for place, name in enumerate((*CPU_QUADS, "dr0", "dr1", "dr2", "dr3", "dr6", "dr7")):
        put("<Q", 512 + 8 * place, name, 0x8123456789AB0000 + place)
    for place, name in enumerate(SEGMENT_ORDER):
        put("<I", 768 + 4 * place, f"{name}_limit", 0x1000 + place)
        put("<Q", 808 + 8 * place, f"{name}_base", 0xFFFF800000000000 + place)
        if name not in ("idt", "gdt"):
            put("<I", 736 + 4 * place, f"{name}_selector", 8 * place + 3)
            put("<I", 888 + 4 * place, f"{name}_attributes", 0xA90 + place)
    for name, offset in {**SYSTEM, "sysenter_esp": 928}.items():
        if name not in ("dr0", "dr3", "dr6", "dr7"):
            put("<Q", offset, name, 0x1123456789AB0000 + offset)
    put("<I", 1000, "tsc_aux", 0x12345678)
    assert xenstate.values(bytes(content)) == expected
