# SPDX-License-Identifier: Apache-2.0
"""vCPUs and registers out of the notes of ELF cores and kdump files, and out of the header of a Windows crash dump."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from drivers.dump import builders
from drivers.dump.builders import PAGE, values
from processors import x86_registers

from libmicrovmi_py import Aarch64Registers, InvalidArgumentError, IoError, Microvmi, NotSupportedError
from libmicrovmi_py.arch.x86.registers import DEBUG, MSRS, STATE, SegmentReg, SystemTableReg
from libmicrovmi_py.model import Architecture

MEMORY = {0: bytes(range(256)) * 16, 0x100000: bytes(PAGE)}
VCPUS = [values(0), values(1)]
GENERAL = {name for name, value in VCPUS[0].items() if isinstance(value, int)}
FROZEN = {*VCPUS[0]} - {"attributes"}
SELECTORS = {f"{name}_selector" for name in builders.SEGMENTS}
QEMU = b"".join(builders.prstatus(vcpu) for vcpu in VCPUS) + b"".join(builders.qemu_note(vcpu) for vcpu in VCPUS)


def opened(folder: Path, content: bytes) -> Microvmi:
    """A file of that content as a machine."""
    path = folder / "dump"
    path.write_bytes(content)
    return Microvmi.open(str(path))


def plain(value: Any) -> int | tuple[int, ...]:
    """A register as ``builders.values`` has it."""
    if isinstance(value, SegmentReg):
        return value.base, value.limit, value.selector
    return (value.base, value.limit) if isinstance(value, SystemTableReg) else value


def assert_has(machine: Microvmi, vcpus: Sequence[Mapping[str, Any]], names: set[str]) -> None:
    """Whether the registers of these names are those that were written, for every vCPU."""
    assert machine.vcpu_count() == len(vcpus)
    for number, expected in enumerate(vcpus):
        registers = x86_registers(machine, number)
        assert {name: plain(getattr(registers, name)) for name in names} == {name: expected[name] for name in names}
    with pytest.raises(InvalidArgumentError, match=f"no vCPU {len(vcpus)}"):
        machine.read_registers(len(vcpus))


@pytest.mark.parametrize(
    "content",
    [
        builders.elf(MEMORY, QEMU),
        builders.elf(MEMORY, QEMU, bits=32, machine=3),
        builders.kdump(MEMORY, QEMU),
        builders.kdump(MEMORY, QEMU, bits=32),
        builders.flattened(builders.kdump(MEMORY, QEMU)),
    ],
    ids=["elf", "elf-32", "kdump", "kdump-32", "flattened"],
)
def test_notes_of_qemu(tmp_path: Path, content: bytes) -> None:
    with opened(tmp_path, content) as machine:
        assert_has(machine, VCPUS, FROZEN)


def test_registers_are_the_callers_own(tmp_path: Path) -> None:
    with opened(tmp_path, builders.elf(MEMORY, QEMU)) as machine:
        x86_registers(machine, 0).cs.base = 7
        assert_has(machine, VCPUS, {"cs"})


def test_notes_of_virtualbox(tmp_path: Path) -> None:
    with opened(tmp_path, builders.elf(MEMORY, builders.virtualbox_notes(VCPUS))) as machine:
        assert_has(machine, VCPUS, FROZEN)
        registers = x86_registers(machine, 1)
        assert (registers.sysenter_cs, registers.sysenter_eip, registers.sysenter_esp) == (0xA1, 0xA2, 0xA3)
        assert (registers.efer, registers.msr_efer, registers.msr_star) == (0xD01, 0xD01, 0xB1)
        assert (registers.msr_lstar, registers.apic_base) == (0xB3, 0xFEE00900)


def test_an_old_virtualbox_tells_the_number_of_vcpus_only(tmp_path: Path) -> None:
    with opened(tmp_path, builders.elf(MEMORY, builders.virtualbox_notes(VCPUS, version=0x10000))) as machine:
        assert machine.vcpu_count() == 2
        with pytest.raises(NotSupportedError, match="nothing is known of the registers of vCPU 0"):
            x86_registers(machine, 0)


def test_what_a_kernel_left_of_its_vcpus(tmp_path: Path) -> None:
    notes = b"".join(builders.prstatus(vcpu) for vcpu in VCPUS)
    with opened(tmp_path, builders.elf(MEMORY, notes)) as machine:
        assert_has(machine, VCPUS, GENERAL - {"cr0", "cr2", "cr3", "cr4"})
        registers = x86_registers(machine, 1)
        assert (registers.cr3, registers.cs) == (0, SegmentReg(0, 0, VCPUS[1]["cs"][2]))
        assert registers.gs == SegmentReg(VCPUS[1]["gs"][0], 0, VCPUS[1]["gs"][2])


def test_what_a_32_bit_kernel_left_of_its_vcpus(tmp_path: Path) -> None:
    notes = b"".join(builders.prstatus_32(vcpu) for vcpu in VCPUS)
    with opened(tmp_path, builders.elf(MEMORY, notes, bits=32, machine=3)) as machine:
        assert_has(machine, VCPUS, {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "rflags"})
        assert x86_registers(machine, 0).ss == SegmentReg(0, 0, VCPUS[0]["ss"][2])


def test_kexec_writes_the_notes_of_a_kernel_into_files_of_the_other_class(tmp_path: Path) -> None:
    notes = b"".join(builders.prstatus_32(vcpu) for vcpu in VCPUS)
    for content in (builders.elf(MEMORY, notes, machine=3), builders.kdump(MEMORY, notes, machine=b"i686")):
        with opened(tmp_path, content) as machine:
            assert_has(machine, VCPUS, {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "rflags"})
    notes = b"".join(builders.prstatus(vcpu) for vcpu in VCPUS)
    with opened(tmp_path, builders.elf(MEMORY, notes, bits=32)) as machine:
        assert_has(machine, VCPUS, GENERAL - {"cr0", "cr2", "cr3", "cr4"})


def test_a_kernel_that_runs_tells_of_no_vcpus(tmp_path: Path) -> None:
    """/proc/kcore has one status, of zeros, for any number of them."""
    told = builders.note(b"CORE", 3, bytes(136)) + builders.note(b"CORE", 4, bytes(range(200)))
    notes = builders.note(b"CORE", 1, bytes(336)) + told + builders.note(b"VMCOREINFO", 0, b"OSRELEASE=6.1.0")
    with (
        opened(tmp_path, builders.elf(MEMORY, notes)) as machine,
        pytest.raises(NotSupportedError, match="the dump driver cannot"),
    ):
        machine.vcpu_count()
    with opened(tmp_path, builders.elf(MEMORY, builders.prstatus(VCPUS[0]) + told)) as machine:
        assert_has(machine, VCPUS[:1], {"rip", "rsp"})


@pytest.mark.parametrize("kind", [1, 5])
def test_the_header_of_a_windows_crash_dump_has_one_processor(tmp_path: Path, kind: int) -> None:
    content = builders.windows(MEMORY, kind=kind, context=builders.windows_context(VCPUS[0]))
    with opened(tmp_path, content) as machine:
        assert machine.vcpu_count() == 2
        registers = x86_registers(machine, 0)
        names = GENERAL - {"cr0", "cr2", "cr3", "cr4"}
        assert {name: getattr(registers, name) for name in names} == {name: VCPUS[0][name] for name in names}
        assert registers.cr3 == 0x1AA000
        assert [getattr(registers, name).selector for name in builders.SEGMENTS] == [
            VCPUS[0][name][2] for name in builders.SEGMENTS
        ]
        with pytest.raises(NotSupportedError, match="nothing is known of the registers of vCPU 1"):
            x86_registers(machine, 1)


def test_a_header_without_context_still_has_the_page_tables(tmp_path: Path) -> None:
    with opened(tmp_path, builders.windows(MEMORY)) as machine:
        registers = x86_registers(machine, 0)
        assert (registers.cr3, registers.rip, registers.cs.selector) == (0x1AA000, 0, 0)


# ------------------------------------------------------------------------------------------- what is known, and no more


def assert_attributes(machine: Microvmi) -> None:
    for vcpu, state in enumerate(machine.read_states()):
        found = {name: state[f"{name}_attributes"] for name in VCPUS[vcpu]["attributes"]}
        assert found == VCPUS[vcpu]["attributes"]


@pytest.mark.parametrize("last", [True, False])
def test_qemu_knows_attributes_and_since_2_12_the_other_base_of_gs(tmp_path: Path, last: bool) -> None:
    notes = b"".join(builders.qemu_note(vcpu, kernel_gs_base=last) for vcpu in VCPUS)
    with opened(tmp_path, builders.elf(MEMORY, notes)) as machine:
        assert_attributes(machine)
        states = machine.read_states()
        assert [state.get("kernel_gs_base") for state in states] == [7 if last else None] * 2
        unknown = {*STATE} - set(states[0])
        assert unknown - {"kernel_gs_base"} == {"cr8", "xcr0", *DEBUG, *MSRS} - {"kernel_gs_base"}


@pytest.mark.parametrize("version", [0x10003, 0x10006])
def test_virtualbox_knows_almost_all(tmp_path: Path, version: int) -> None:
    with opened(tmp_path, builders.elf(MEMORY, builders.virtualbox_notes(VCPUS, version=version))) as machine:
        assert_attributes(machine)
        state = machine.read_state(1)
        assert [state[name] for name in DEBUG] == [0, 1, 2, 3, 6, 7]
        assert [state[name] for name in ("lstar", "cstar", "fmask", "kernel_gs_base")] == [0xB3, 0xB4, 0xB5, 0xB6]
        later = version == 0x10006
        assert (state.get("tsc_aux"), state.get("xcr0")) == ((0xB8, 1) if later else (None, None))
        assert {*STATE} - set(state) == {"cr8"} | (set() if later else {"tsc_aux", "xcr0"})


def test_an_unusable_segment_of_virtualbox_is_not_present(tmp_path: Path) -> None:
    vcpu = values(0)
    vcpu["attributes"]["gs"] = 0x1093
    with opened(tmp_path, builders.elf(MEMORY, builders.virtualbox_notes([vcpu]))) as machine:
        assert machine.read_state()["gs_attributes"] == 0x13


def test_a_kernel_knows_general_registers_and_selectors(tmp_path: Path) -> None:
    general = {*builders.GENERAL, *SELECTORS}
    with opened(tmp_path, builders.elf(MEMORY, builders.prstatus(VCPUS[0]))) as machine:
        assert set(machine.read_state()) == {*general, "fs_base", "gs_base"}
    with opened(tmp_path, builders.elf(MEMORY, builders.prstatus_32(VCPUS[0]), bits=32, machine=3)) as machine:
        assert set(machine.read_state()) == {name for name in general if not name[1:].isdigit()}


@pytest.mark.parametrize(
    ("flags", "known"),
    [
        (0x10001F, {*builders.GENERAL, *SELECTORS, *DEBUG}),
        (0x10000B, {*builders.GENERAL, "cs_selector", "ss_selector"}),
        (0x100001, {"rip", "rsp", "rflags", "cs_selector", "ss_selector"}),
        (0x100004, SELECTORS - {"cs_selector", "ss_selector"}),
        (0x100010, {*DEBUG}),
        (0x1F, set()),
    ],
)
def test_a_windows_context_has_what_its_flags_say(tmp_path: Path, flags: int, known: set[str]) -> None:
    context = bytearray(builders.windows_context(VCPUS[0]))
    struct.pack_into("<I", context, 48, flags)
    struct.pack_into("<6Q", context, 72, *range(0xD0, 0xD6))
    with opened(tmp_path, builders.windows(MEMORY, context=bytes(context))) as machine:
        first, second = machine.read_states()
        assert set(first) == {"cr3", *known}
        assert len(second) == 0
        if "dr7" in known:
            assert [first[name] for name in DEBUG] == list(range(0xD0, 0xD6))


@pytest.mark.parametrize(
    ("pstate", "pointer"), [(0x3C5, "sp_el1"), (0x0, "sp_el0"), (0x3C4, "sp_el0"), (0x3C9, "sp_el2")]
)
@pytest.mark.parametrize("make", ["elf", "kdump", "kdump of QEMU"])
def test_aarch64_notes_have_general_registers_and_no_page_tables(
    tmp_path: Path, make: str, pstate: int, pointer: str
) -> None:
    notes = builders.prstatus_aarch64(0, pstate) + builders.prstatus_aarch64(1, pstate)
    name = b"aarch64" if make == "kdump" else b"Unknown"
    content = builders.elf(MEMORY, notes, machine=183) if make == "elf" else builders.kdump(MEMORY, notes, machine=name)
    with opened(tmp_path, content) as machine:
        assert machine.vcpu_count() == 2
        state = machine.read_state(1)
        assert state.architecture is machine.driver.architecture is Architecture.AARCH64
        assert [state[f"x{number}"] for number in range(31)] == [0xA64001000 + number for number in range(31)]
        assert (state[pointer], state["pc"], state["pstate"]) == (0xA6400101F, 0xA64001020, pstate)
        assert len(state) == 34
        registers = machine.read_registers(1)
        assert isinstance(registers, Aarch64Registers)
        assert (registers.x30, registers.ttbr0_el1) == (0xA6400101E, 0)


@pytest.mark.parametrize(
    "content",
    [
        builders.lime(MEMORY),
        builders.elf(MEMORY),
        builders.elf(MEMORY, QEMU, machine=40),
        builders.kdump(MEMORY),
        builders.kdump(MEMORY, QEMU, version=3),
        builders.windows(MEMORY, machine=0x1C4),
    ],
    ids=["lime", "elf", "elf-arm", "kdump", "kdump-3", "windows-arm"],
)
def test_without_notes_there_are_no_vcpus(tmp_path: Path, content: bytes) -> None:
    with opened(tmp_path, content) as machine:
        for use in (machine.vcpu_count, machine.read_registers):
            with pytest.raises(NotSupportedError, match="the dump driver cannot"):
                use()


@pytest.mark.parametrize(
    ("notes", "text"),
    [
        (builders.qemu_note(VCPUS[0], version=2), "the note of QEMU has version 2"),
        (builders.note(b"QEMU", 0, bytes(100)), "the note of QEMU has 100 bytes, not 432"),
        (builders.qemu_note(VCPUS[0] | {"cs": (0, 0, 0x10000)}), "0x10000 for the selector cs"),
        (builders.qemu_note(VCPUS[0] | {"tr": (0, 0, 0xFFFFFFFF)}), "0xffffffff for the selector tr"),
        (QEMU[:-8], "bytes long"),
        (builders.note(b"CORE", 1, bytes(327)), "an NT_PRSTATUS has 327 bytes"),
        (builders.virtualbox_notes([]), "0 vCPUs"),
        (builders.note(b"VBCORE", 0xB00, bytes(23)), "the note VBCORE has 23 bytes"),
        (builders.note(b"VBCORE", 0xB00, bytes(24)), "magic 0x0"),
        (bytes([1]) * 4 + b"\xff" * 8, "0xffffffff bytes long"),
    ],
)
def test_notes_that_lie_are_an_error(tmp_path: Path, notes: bytes, text: str) -> None:
    for content in (builders.elf(MEMORY, notes), builders.kdump(MEMORY, notes)):
        with pytest.raises(IoError, match=f"{tmp_path}.* is cut short or damaged.*{text}"):
            opened(tmp_path, content)


def test_more_notes_than_any_machine_has_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(IoError, match="more than 8192 notes are more than any machine's"):
        opened(tmp_path, builders.elf(MEMORY, builders.note(b"ANY", 1, b"") * 8193))
