# SPDX-License-Identifier: Apache-2.0
"""The machine made of bytes: its parameters, and that it plays every capability."""

from __future__ import annotations

import pytest
from processors import x86_registers

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.arch.state import registers_of
from libmicrovmi_py.drivers.fake import FakeDriver, reset_state
from libmicrovmi_py.errors import InvalidArgumentError, IoError, NotMappedError, NotSupportedError, ReadOnlyError
from libmicrovmi_py.events import EventKind, Intercept, PageAccess
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import PAGE_SIZE, Architecture, MemoryKind, MemoryRange


def test_by_default_every_frame_holds_its_number() -> None:
    with Microvmi.open("vmi://fake/") as machine:
        assert machine.max_addr == 1 << 20
        assert machine.read_physical(0x5000, PAGE_SIZE) == (5).to_bytes(8, "little") * 512
        assert machine.memory_map() == (MemoryRange(0, 1 << 20),)


def test_holes_rom_and_vcpus_come_from_the_uri() -> None:
    uri = "vmi://fake/?size=0x10000&holes=0x4000-0x6000,0x8000-0x9000&rom=0x6000-0x7000&vcpus=3&pattern=zero"
    with Microvmi.open(uri) as machine:
        assert machine.memory_map() == (
            MemoryRange(0, 0x4000),
            MemoryRange(0x6000, 0x1000, MemoryKind.ROM),
            MemoryRange(0x7000, 0x1000),
            MemoryRange(0x9000, 0x7000),
        )
        assert machine.vcpu_count() == 3
        assert machine.read_state(2) == reset_state(Architecture.X86)
        assert machine.read_physical(0, 0x4000) == bytes(0x4000)
        with pytest.raises(NotMappedError):
            machine.read_physical(0x8FFF, 2)
        with pytest.raises(ReadOnlyError):
            machine.write_physical(0x6FFF, b"x")


def test_the_maximum_address_is_the_end_of_ram() -> None:
    driver = FakeDriver({0: bytearray(PAGE_SIZE), 0x8000: bytearray(PAGE_SIZE)}, rom=[0x8000])
    assert driver.max_addr == PAGE_SIZE
    assert Microvmi.from_driver(driver).read_physical(0x8000, 4) == bytes(4)


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("size=0", "size=0x0"),
        ("size=4097", "size=0x1001"),
        ("size=0x100001000", "size=0x100001000"),
        ("size=big", "size=big: not an integer"),
        ("vcpus=0", "vcpus=0"),
        ("pattern=stripes", "pattern=stripes"),
        ("holes=0x1000", "0x1000 is not START-END"),
        ("holes=0x1000-0x1000", "0x1000-0x1000 is not START-END"),
        ("rom=0x1000-0x1800", "0x1000-0x1800 is not START-END"),
        ("architecture=mips", "architecture=mips: use x86 or aarch64"),
        ("colour=red", "no parameter colour; it has vm_name, cache, size"),
    ],
)
def test_wrong_parameters_are_named(query: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        Microvmi.open(f"vmi://fake/?{query}")


def test_memory_must_be_whole_frames_and_apart() -> None:
    for memory in ({1: bytearray(PAGE_SIZE)}, {0: bytearray(5)}):
        with pytest.raises(InvalidArgumentError, match="whole frames"):
            FakeDriver(memory)
    with pytest.raises(InvalidArgumentError, match="0x1000 is given twice"):
        FakeDriver({0: bytearray(2 * PAGE_SIZE), PAGE_SIZE: bytearray(PAGE_SIZE)})


def test_frames_that_are_to_fail_do() -> None:
    uri = "vmi://fake/?size=0x10000&unreadable=0x4000-0x6000&unwritable=0x8000-0x9000,0xa000-0xb000"
    with Microvmi.open(uri) as machine:
        for frame in range(16):
            address = frame * PAGE_SIZE
            readable, writable = frame not in (4, 5), frame not in (4, 5, 8, 10)
            if readable:
                assert machine.read_physical(address, PAGE_SIZE) == frame.to_bytes(8, "little") * 512
            else:
                with pytest.raises(IoError, match=f"{address:#x} cannot be read"):
                    machine.read_physical(address, PAGE_SIZE)
            if writable:
                machine.write_physical(address, b"new")
                assert machine.read_physical(address, 3) == b"new"
            else:
                with pytest.raises(IoError):
                    machine.write_physical(address, b"new")
        assert machine.read_physical(0x8000, 8) == (8).to_bytes(8, "little")


def test_an_aarch64_machine_has_registers_and_no_events() -> None:
    with Microvmi.open("vmi://fake/?architecture=aarch64") as machine:
        assert machine.read_state() == reset_state(Architecture.AARCH64)
        abilities = machine.abilities
        assert Ability.WRITE_REGISTERS in abilities.can
        assert not abilities.can & (Ability.EVENTS | Ability.PAGE_ACCESS)
        with pytest.raises(NotSupportedError):
            machine.toggle_intercept(Intercept(EventKind.SINGLE_STEP))
        with pytest.raises(NotSupportedError):
            machine.set_page_access(0, PageAccess.READ)
        with pytest.raises(NotSupportedError):
            machine.get_page_access(0)


def test_a_state_that_was_read_is_a_copy() -> None:
    driver = FakeDriver({0: bytearray(PAGE_SIZE)})
    before = driver.read_states(None)[0]
    driver.write_state(0, {"rax": 77})
    assert (before["rax"], driver.read_states(None)[0]["rax"]) == (0, 77)


def test_registers_that_were_read_are_a_copy() -> None:
    with Microvmi.open("vmi://fake/") as machine:
        x86_registers(machine).rip = 77
        x86_registers(machine).cs.base = 77
        assert x86_registers(machine) == registers_of(reset_state(Architecture.X86))
        written = x86_registers(machine)
        machine.write_registers(written)
        written.cs.base = 77
        assert x86_registers(machine) == registers_of(reset_state(Architecture.X86))


def test_closing_gives_page_accesses_back() -> None:
    driver = FakeDriver({0: bytearray(2 * PAGE_SIZE)})
    with Microvmi.from_driver(driver) as machine:
        machine.set_page_access(PAGE_SIZE, PageAccess.READ)
        assert driver.get_page_access(1) == PageAccess.READ
    assert driver.get_page_access(1) == PageAccess.ALL
