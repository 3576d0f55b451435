# SPDX-License-Identifier: Apache-2.0
"""The registers of vCPUs out of the devices' state: what is in it, and what is not taken for it."""

from __future__ import annotations

import pytest
from drivers.qemu.device_states import (
    GENERAL,
    aarch64_state,
    aarch64_text,
    aarch64_vcpu,
    apic,
    cpu,
    section,
    state,
    text,
    vcpu,
)

from libmicrovmi_py.arch.aarch64.registers import STATE as AARCH64_STATE
from libmicrovmi_py.arch.x86.registers import STATE as X86_STATE
from libmicrovmi_py.drivers.qemu.infotext import by_vcpu, parse_aarch64, parse_x86
from libmicrovmi_py.drivers.qemu.vcpus import Vcpus, aarch64_of, chosen, x86_of
from libmicrovmi_py.drivers.saved.sections import sections
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import Architecture

TWO = {0: vcpu(0), 4: vcpu(1)}
HEAD = b"QEVM\0\0\0\3"


def vcpus(*indexes: int, target: str = "x86_64") -> Vcpus:
    return Vcpus([{"cpu-index": index, "target": target} for index in indexes])


def test_every_register_of_every_vcpu_is_told() -> None:
    found = x86_of(state(TWO), vcpus(0, 4))
    assert found == TWO
    assert set(found[0]) == set(X86_STATE)


def test_registers_of_a_processor_of_32_bits() -> None:
    narrow = {name: value & 0xFFFFFFFF for name, value in vcpu(0).items()}
    missing = {*GENERAL[8:], "efer", "star", "lstar", "cstar", "fmask", "kernel_gs_base"}
    expected = {name: value for name, value in narrow.items() if name not in missing}
    assert x86_of(state({0: narrow}, wide=False), vcpus(0, target="i386"))[0] == expected


@pytest.mark.parametrize("version", [0, 11, 13, 1 << 31])
def test_another_version_is_not_known(version: int) -> None:
    assert x86_of(state(TWO, version=version), vcpus(0, 4)) == {}


@pytest.mark.parametrize("data", [b"", b"QEVM", b"\0" * 100, b"QEVM\0\0\0\2" + bytes(50)])
def test_something_else_is_no_device_state(data: bytes) -> None:
    with pytest.raises(IoError, match="no device state"):
        x86_of(data, vcpus(0))


@pytest.mark.parametrize("numbers", [(0,), (0, 4, 5), (0, 1)])
def test_a_state_of_other_vcpus_is_none_of_this_machine(numbers: tuple[int, ...]) -> None:
    with pytest.raises(IoError, match="has 2 vCPUs"):
        x86_of(state(TWO), vcpus(*numbers))


def test_a_device_whose_content_looks_like_a_vcpu_makes_all_of_them_doubtful() -> None:
    forged = section("serial", 0, 1, section("cpu", 4, 12, cpu(vcpu(3))))
    with pytest.raises(IoError, match="has 3 vCPUs"):
        x86_of(state(TWO) + forged, vcpus(0, 4))


def test_a_state_that_ends_early_has_nothing_behind_its_end() -> None:
    data = state({0: vcpu(0)})
    start = data.index(b"\x03cpu\0\0\0\0\0\0\0\x0c")
    for size in range(start + 12, len(data) - 60, 7):
        found = x86_of(data[:size], vcpus(0))
        assert found == {} or {**vcpu(0), **found[0]} == vcpu(0)


@pytest.mark.parametrize(("offset", "byte"), [(236, 1), (1524, 9)])
def test_a_value_that_no_register_can_hold_makes_the_vcpu_unknown(offset: int, byte: int) -> None:
    """A selector of more than 16 bits, TSC_AUX of more than 32."""
    data = bytearray(state({0: vcpu(0)}))
    start = data.index(b"\x03cpu\0\0\0\0\0\0\0\x0c") + 12
    data[start + offset] = byte
    assert x86_of(bytes(data), vcpus(0)) == {}


def test_fields_that_end_elsewhere_make_the_vcpu_unknown() -> None:
    longer = HEAD + section("cpu", 0, 12, cpu(vcpu(0)).replace(b"\x05\x10cpu", b"\x09\x09\x05\x10cpu"))
    assert x86_of(longer, vcpus(0)) == {}


def test_apics_before_the_vcpus_and_with_a_base_of_64_bits_are_those_of_newer_qemus() -> None:
    values = [{**vcpu(0), "apic_base": 0x1_FEE0_0900}, {**vcpu(1), "apic_base": 0x2_FEE0_0800}]
    apics = b"".join(section("apic", 3 * place, 3, apic(each, 3 * place, size=8)) for place, each in enumerate(values))
    cpus = b"".join(section("cpu", place, 12, cpu(each)) for place, each in enumerate(values))
    found = x86_of(HEAD + apics + cpus, vcpus(0, 1))
    assert [each["apic_base"] for each in found.values()] == [0x1_FEE0_0900, 0x2_FEE0_0800]
    assert found[1]["cr8"] == 1


@pytest.mark.parametrize(
    "apics",
    [
        b"",
        section("apic", 0, 4, apic(vcpu(0), 0)),
        section("apic", 0, 3, apic(vcpu(0), 1)),
        section("apic", 0, 3, apic({"apic_base": 0xFEE00901, "cr8": 0}, 0)),
        section("apic", 0, 3, apic(vcpu(0), 0)) * 2,
        section("apic", 0, 3, b"\xfe\xe0\x09")[:-5],
    ],
    ids=["none", "version", "another's", "odd base", "two", "short"],
)
def test_an_apic_that_makes_no_sense_is_not_known(apics: bytes) -> None:
    found = x86_of(HEAD + section("cpu", 0, 12, cpu(vcpu(0))) + apics, vcpus(0))[0]
    assert set(X86_STATE) - set(found) == {"apic_base", "cr8"}


# ------------------------------------------------------------------------------------------------------------- choice


def picked(values: dict[str, int], saved: dict[str, int] | None, *, stands: bool = True) -> dict[str, int]:
    (part,) = by_vcpu(text(0, values).replace("\r\n", "\n")).values()
    return chosen(Architecture.X86, part, saved, stands=stands)


def printed() -> dict[str, int]:
    return parse_x86(text(0, vcpu(0)).replace("\r\n", "\n"))


def test_what_the_monitor_prints_is_taken_without_a_state() -> None:
    unknown = {"star", "lstar", "cstar", "fmask", "kernel_gs_base", "sysenter_cs", "sysenter_esp", "sysenter_eip"}
    unknown |= {"tsc_aux", "xcr0", "apic_base", "cr8"}
    assert picked(vcpu(0), None) == printed()
    assert set(X86_STATE) - set(printed()) == unknown
    assert {**vcpu(0), **printed()} == vcpu(0)


def test_a_state_that_agrees_is_taken_whole() -> None:
    assert picked(vcpu(0), vcpu(0)) == vcpu(0)


def test_a_text_of_another_form_agrees_as_well() -> None:
    (part,) = by_vcpu(text(0, vcpu(0)).replace("\r\n", "\n").replace(" RBX=", "\nRBX=")).values()
    assert chosen(Architecture.X86, part, vcpu(0), stands=True) == vcpu(0)
    assert chosen(Architecture.X86, part, {**vcpu(0), "rbx": 1}, stands=True) == printed()


def test_flags_that_the_monitor_made_up_are_not_taken() -> None:
    assert picked({**vcpu(0), "rflags": 0x2C7}, vcpu(0))["rflags"] == 0x246


@pytest.mark.parametrize("name", ["rip", "rax", "r15", "cr3", "efer", "dr7", "gdt_base", "idt_limit"])
def test_a_state_that_does_not_agree_is_not_taken(name: str) -> None:
    assert picked(vcpu(0), {**vcpu(0), name: 0x123}) == printed()


@pytest.mark.parametrize("name", ["rip", "rax", "cr3", "dr0"])
def test_a_machine_that_runs_may_have_gone_on_meanwhile(name: str) -> None:
    saved = {**vcpu(0), name: 0x123}
    assert picked(vcpu(0), saved, stands=False) == saved


@pytest.mark.parametrize("name", ["efer", "cr4", "gdt_base", "gdt_limit", "idt_base", "idt_limit"])
def test_a_machine_that_runs_keeps_what_hardly_ever_changes(name: str) -> None:
    assert picked(vcpu(0), {**vcpu(0), name: 0x123}, stands=False) == printed()


def test_a_vcpu_in_a_32_bit_mode_agrees_in_the_lower_halves() -> None:
    part = "EAX=00000007 EBX=00000000\nEIP=0000b7b9 EFL=00000246 [---Z-P-]\n"
    saved = {"rax": 0x1_0000_0007, "rbx": 0, "rip": 0xB7B9, "rflags": 0x246, "r8": 5}
    assert chosen(Architecture.X86, part, saved, stands=True) == saved
    assert chosen(Architecture.X86, part, {**saved, "rax": 8}, stands=True)["rax"] == 7


# ------------------------------------------------------------------------------------------------------------ AArch64


@pytest.mark.parametrize("pstate", [0x3C5, 0x3C4, 0x0])
def test_every_register_of_an_aarch64_vcpu_is_told(pstate: int) -> None:
    values = aarch64_vcpu(pstate=pstate)
    found = aarch64_of(aarch64_state({0: values, 1: values}), vcpus(0, 1, target="aarch64"))
    assert found == {0: values, 1: values}
    assert set(values) <= set(AARCH64_STATE)


def test_another_version_of_an_aarch64_vcpu_is_not_known() -> None:
    assert aarch64_of(aarch64_state({0: aarch64_vcpu()}, version=23), vcpus(0, target="aarch64")) == {}


def test_an_aarch64_state_that_ends_early_is_not_known() -> None:
    data = aarch64_state({0: aarch64_vcpu()})
    end = len(data) - 120
    for size in range(data.index(b"\x03cpu") + 12, end, 5):
        assert aarch64_of(data[:size], vcpus(0, target="aarch64")) == {}


def test_the_text_of_an_aarch64_vcpu() -> None:
    (part,) = by_vcpu(aarch64_text(3, aarch64_vcpu()).replace("\r\n", "\n")).values()
    found = parse_aarch64(part)
    assert {**aarch64_vcpu(), **found} == aarch64_vcpu()
    assert set(found) == {*(f"x{number}" for number in range(31)), "pc", "pstate", "sp_el1"}
    assert chosen(Architecture.AARCH64, part, aarch64_vcpu(), stands=True) == aarch64_vcpu()
    assert chosen(Architecture.AARCH64, part, {**aarch64_vcpu(), "x5": 0}, stands=True) == found


def test_a_vcpu_that_executes_aarch32_is_not_known() -> None:
    assert parse_aarch64(" PC=0000000000000000 X00=0000000000000000\nPSTATE=000001d3 ---- svc\n") == {}
    assert parse_aarch64("R00=00000000 R01=00000000\nPSR=400001d3 -Z-- A S svc32\n") == {}
    data = aarch64_state({0: aarch64_vcpu(pstate=0x1D3)})
    assert aarch64_of(data, vcpus(0, target="aarch64")) == {}


def test_a_state_that_is_all_headers_is_not_taken_apart() -> None:
    header = b"\x04" + bytes(4) + b"\x03cpu" + bytes(8)
    with pytest.raises(IoError, match="more than 65536 sections cpu"):
        sections(HEAD + header * 70_000, "cpu")
