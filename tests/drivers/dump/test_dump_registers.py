# SPDX-License-Identifier: Apache-2.0
"""vCPUs and registers out of the notes of ELF cores and kdump files, and out of the header of a Windows crash dump."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from drivers.dump import builders
from drivers.dump.builders import PAGE, values
from processors import x86_registers

from libmicrovmi_py import InvalidArgumentError, IoError, Microvmi, NotSupportedError
from libmicrovmi_py.arch.x86.registers import SegmentReg, SystemTableReg

MEMORY = {0: bytes(range(256)) * 16, 0x100000: bytes(PAGE)}
VCPUS = [values(0), values(1)]
GENERAL = {name for name, value in VCPUS[0].items() if isinstance(value, int)}
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
        assert_has(machine, VCPUS, set(VCPUS[0]))


def test_registers_are_the_callers_own(tmp_path: Path) -> None:
    with opened(tmp_path, builders.elf(MEMORY, QEMU)) as machine:
        x86_registers(machine, 0).cs.base = 7
        assert_has(machine, VCPUS, {"cs"})


def test_notes_of_virtualbox(tmp_path: Path) -> None:
    with opened(tmp_path, builders.elf(MEMORY, builders.virtualbox_notes(VCPUS))) as machine:
        assert_has(machine, VCPUS, set(VCPUS[0]))
        registers = x86_registers(machine, 1)
        assert (registers.sysenter_cs, registers.sysenter_eip, registers.sysenter_esp) == (0xA1, 0xA2, 0xA3)
        assert (registers.efer, registers.msr_efer, registers.msr_star) == (0xD01, 0xD01, 0xB1)
        assert (registers.msr_lstar, registers.apic_base) == (0xB3, 0xFEE00900)


def test_an_old_virtualbox_tells_the_number_of_vcpus_only(tmp_path: Path) -> None:
    with opened(tmp_path, builders.elf(MEMORY, builders.virtualbox_notes(VCPUS, version=0x10000))) as machine:
        assert machine.vcpu_count() == 2
        with pytest.raises(NotSupportedError, match="registers of 0 vCPUs"):
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
        with pytest.raises(NotSupportedError, match="registers of 1 vCPUs only"):
            x86_registers(machine, 1)


def test_a_header_without_context_still_has_the_page_tables(tmp_path: Path) -> None:
    with opened(tmp_path, builders.windows(MEMORY)) as machine:
        registers = x86_registers(machine, 0)
        assert (registers.cr3, registers.rip, registers.cs.selector) == (0x1AA000, 0, 0)


@pytest.mark.parametrize(
    "content",
    [
        builders.lime(MEMORY),
        builders.elf(MEMORY),
        builders.elf(MEMORY, QEMU, machine=183),
        builders.kdump(MEMORY),
        builders.kdump(MEMORY, QEMU, version=3),
        builders.windows(MEMORY, machine=0xAA64),
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
