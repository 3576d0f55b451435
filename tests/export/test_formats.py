# SPDX-License-Identifier: Apache-2.0
"""What is written as raw, LiME or ELF opens as a dump with the same memory, addresses and registers."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from pagetables import Tables

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.state import NAMES, VcpuState
from libmicrovmi_py.arch.x86.registers import STATE, WIDTHS
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.export import Layout, elf, lime, raw
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.model import Architecture

PAGE = 4096
KEPT_BY_QEMU = {name for name in STATE if name.split("_")[-1] in ("base", "limit", "selector", "attributes")}
KEPT_BY_QEMU -= {"apic_base"}
KEPT_BY_QEMU |= {"kernel_gs_base", "cr0", "cr2", "cr3", "cr4", *STATE[:18]}


def state_of(seed: int, architecture: Architecture = Architecture.X86) -> VcpuState:
    """Every register with a value of its own that fits."""
    names = NAMES[architecture]
    values = {
        name: (0x0123456789ABCDEF * (seed + at)) % (1 << WIDTHS.get(name, 64)) for at, name in enumerate(names, 1)
    }
    return VcpuState(architecture, values)


def machine(
    starts: Sequence[int] = (0, 4 * PAGE, 5 * PAGE), states: Sequence[VcpuState] = (), rom: Sequence[int] = ()
) -> Microvmi:
    """Two pages at each start but the last, which has one; every page holds its address."""
    sizes = [2 * PAGE if start + PAGE not in starts else PAGE for start in starts]
    memory = {
        start: bytearray(start.to_bytes(8, "little") * (size // 8)) for start, size in zip(starts, sizes, strict=True)
    }
    return Microvmi.from_driver(FakeDriver(memory, rom=rom, states=states or [state_of(1)]))


def written(layout: Layout, path: Path) -> str:
    content = bytearray(layout.size)
    assert layout.read_into(0, content) == layout.size
    path.write_bytes(content)
    return str(path)


def memory_of(vm: Microvmi) -> Mapping[int, bytes]:
    return {
        start: vm.read_physical(start, PAGE) for item in vm.memory_map() for start in range(item.start, item.end, PAGE)
    }


@pytest.mark.parametrize("make", [lime, elf])
@pytest.mark.parametrize("starts", [(0,), (0, 4 * PAGE), (PAGE, 4 * PAGE, 5 * PAGE), (1 << 40,)])
def test_a_dump_has_the_memory_and_nothing_else(
    make: Callable[[Microvmi], Layout], starts: Sequence[int], tmp_path: Path
) -> None:
    with machine(starts) as vm, Microvmi.open(written(make(vm), tmp_path / "dump")) as dump:
        assert memory_of(dump) == memory_of(vm)
        assert dump.max_addr == vm.max_addr


def test_raw_has_each_byte_at_its_address(tmp_path: Path) -> None:
    with machine() as vm:
        expected = bytearray(vm.max_addr)
        vm.read_physical_padded_into(0, expected)
        assert Path(written(raw(vm), tmp_path / "raw")).read_bytes() == expected


@pytest.mark.parametrize("make", [raw, lime])
def test_what_is_behind_the_end_of_main_memory_is_in_no_plain_file(
    make: Callable[[Microvmi], Layout], tmp_path: Path
) -> None:
    with machine((0, PAGE, 1 << 20), rom=[1 << 20]) as vm, Microvmi.open(written(make(vm), tmp_path / "dump")) as dump:
        assert dump.max_addr == vm.max_addr == 3 * PAGE


def test_an_elf_core_has_what_is_behind_it_as_well(tmp_path: Path) -> None:
    with machine((0, PAGE, 1 << 20), rom=[1 << 20]) as vm, Microvmi.open(written(elf(vm), tmp_path / "dump")) as dump:
        assert memory_of(dump) == memory_of(vm)


def test_neighbours_are_one_range_in_the_file(tmp_path: Path) -> None:
    with machine((0, 2 * PAGE), rom=[2 * PAGE]) as vm:
        assert [(item.address, item.size) for item in elf(vm).segments if item.content is None] == [(0, 4 * PAGE)]


def test_registers_of_x86_come_back(tmp_path: Path) -> None:
    states = [state_of(1), state_of(1000)]
    with machine(states=states) as vm, Microvmi.open(written(elf(vm), tmp_path / "dump")) as dump:
        assert dump.vcpu_count() == 2
        for state, found in zip(states, dump.read_states(), strict=True):
            assert dict(found) == {name: state[name] for name in KEPT_BY_QEMU}


def test_registers_of_aarch64_come_back(tmp_path: Path) -> None:
    states = [
        VcpuState(Architecture.AARCH64, {**state_of(at, Architecture.AARCH64), "pstate": mode})
        for at, mode in enumerate((0x3C5, 0x3C4, 0x80000000, 0x3C9))
    ]
    with machine(states=states) as vm, Microvmi.open(written(elf(vm), tmp_path / "dump")) as dump:
        found = dump.read_states()
        assert [set(item) & {"sp_el0", "sp_el1", "sp_el2"} for item in found] == [
            {"sp_el1"},
            {"sp_el0"},
            {"sp_el0"},
            {"sp_el2"},
        ]
        assert all(dict(item).items() <= dict(state).items() for item, state in zip(found, states, strict=True))
        assert all(len(item) == 34 for item in found)


def test_without_page_tables_nothing_says_that_there_are_none(tmp_path: Path) -> None:
    states = [VcpuState(Architecture.X86, {"rip": 0x1234, "fs_base": 7, "cs_selector": 16})]
    with machine(states=states) as vm, Microvmi.open(written(elf(vm), tmp_path / "dump")) as dump:
        (found,) = dump.read_states()
        assert "cr3" not in found
        assert (found["rip"], found["fs_base"], found["cs_selector"], found["rax"]) == (0x1234, 7, 16, 0)


def test_a_vcpu_of_which_nothing_is_known_has_no_note(tmp_path: Path) -> None:
    states = [VcpuState(Architecture.X86, {}), state_of(5)]
    with machine(states=states) as vm, Microvmi.open(written(elf(vm), tmp_path / "dump")) as dump:
        assert dump.vcpu_count() == 1
        assert b"CORE" + bytes(4 + 32) + struct.pack("<I", 2) in Path(tmp_path / "dump").read_bytes()


def test_a_machine_without_registers_is_memory_only(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"x" * PAGE)
    with Microvmi.open(str(tmp_path / "raw")) as vm, Microvmi.open(written(elf(vm), tmp_path / "dump")) as dump:
        assert memory_of(dump) == {0: b"x" * PAGE}
        assert "VCPU_COUNT" not in repr(dump.abilities.can)


@pytest.mark.parametrize("count", [0xFFFD, 0xFFFE])
def test_more_ranges_than_the_header_has_room_for(count: int, tmp_path: Path) -> None:
    """With the notes 65534, the most, and 65535, which stands for a number elsewhere."""
    starts = [2 * at * PAGE for at in range(count)]
    memory = {start: bytearray(PAGE) for start in starts}
    memory[starts[-1]][:4] = b"last"
    with Microvmi.from_driver(FakeDriver(memory)) as vm:
        layout = elf(vm)
        head = bytearray(layout.segments[0].size)
        layout.read_into(0, head)
        assert struct.unpack_from("<H", head, 56)[0] == min(count + 1, 0xFFFF)
        path = tmp_path / "dump"
        with path.open("wb") as file:
            file.write(head)
            file.truncate(layout.size)
            file.seek(layout.segments[-1].offset)
            file.write(b"last")
        with Microvmi.open(str(path)) as dump:
            assert dump.read_physical(starts[-1], 4) == b"last"
            assert len(dump.memory_map()) == count


@dataclasses.dataclass
class Kernel:
    """What is known of a guest's kernel."""

    machine: Microvmi
    space: AddressSpace
    symbols: Mapping[str, int]
    phys_base: int = 0
    vmcoreinfo: bytes | None = b"OSRELEASE=6.1\nPAGESIZE=4096\n"
    release: str = "6.1"
    banner: str = "Linux version 6.1 (somebody@somewhere) (gcc 12) #1 SMP of a day"


TEXT = 0xFFFFFFFF81000000


def guest(pages: Sequence[int]) -> tuple[Microvmi, Tables]:
    """A machine whose kernel's text is in these pages."""
    content = bytearray(64 * PAGE)
    content[8 * PAGE : 9 * PAGE] = b"text" * (PAGE // 4)
    tables = Tables(content, "x86-4", 32 * PAGE)
    for at, page in enumerate(pages):
        tables.map(TEXT + at * PAGE, page * PAGE)
    return Microvmi.from_driver(FakeDriver({0: content})), tables


def program_headers(layout: Layout) -> list[tuple[int, ...]]:
    head = bytearray(layout.segments[0].size)
    layout.read_into(0, head)
    (count,) = struct.unpack_from("<H", head, 56)
    return list(struct.iter_unpack("<2I6Q", head[64 : 64 + 56 * count]))


def test_the_kernel_s_text_is_a_segment_by_virtual_address(tmp_path: Path) -> None:
    vm, tables = guest((8, 9))
    with vm:
        kernel = Kernel(vm, vm.address_space(tables.base), {"_text": TEXT, "_end": TEXT + 2 * PAGE})
        layout = elf(vm, kernel)
        *_, text = program_headers(layout)
        assert text[3:7] == (TEXT, 8 * PAGE, 2 * PAGE, 2 * PAGE)
        found = bytearray(4)
        layout.read_into(text[2], found)
        assert found == b"text"
        assert b"VMCOREINFO\0\0OSRELEASE=6.1\nPAGESIZE=4096\n" in Path(written(layout, tmp_path / "dump")).read_bytes()
        with Microvmi.open(str(tmp_path / "dump")) as dump:
            assert memory_of(dump) == memory_of(vm)


@pytest.mark.parametrize(
    ("pages", "symbols"),
    [
        ((8, 10), {"_text": TEXT, "_end": TEXT + 2 * PAGE}),
        ((8,), {"_text": TEXT, "_end": TEXT + 2 * PAGE}),
        ((8, 9), {"_text": TEXT + PAGE, "_end": TEXT}),
        ((8, 9), {"_text": TEXT}),
        ((63, 64), {"_text": TEXT, "_end": TEXT + 2 * PAGE}),
    ],
    ids=["in two places", "not mapped", "ends before it begins", "without an end", "beyond memory"],
)
def test_a_text_that_is_not_one_piece_of_memory_is_left_out(pages: Sequence[int], symbols: Mapping[str, int]) -> None:
    vm, tables = guest(pages)
    with vm:
        assert len(program_headers(elf(vm, Kernel(vm, vm.address_space(tables.base), symbols)))) == 2


DIRECT = 0xFFFF_8880_0000_0000


@pytest.mark.parametrize("told", [None, DIRECT, 0xFFFF_9900_0000_0000])
def test_memory_has_the_addresses_that_the_kernel_has_it_at(told: int | None) -> None:
    """By the variable that tells where, or where it is without one; behind RAM is memory that it has nowhere."""
    content = bytearray(64 * PAGE)
    tables = Tables(content, "x86-4", 32 * PAGE)
    symbols = {} if told is None else {"page_offset_base": TEXT + 8}
    if told:
        content[8 * PAGE + 8 : 8 * PAGE + 16] = told.to_bytes(8, "little")
    tables.map(TEXT, 8 * PAGE)
    for page in range(1, 60):
        tables.map((told or DIRECT) + page * PAGE, page * PAGE)
    memory = {0: content, 1 << 30: bytearray(PAGE)}
    with Microvmi.from_driver(FakeDriver(memory, rom=[1 << 30])) as vm:
        *_, low, high = program_headers(elf(vm, Kernel(vm, vm.address_space(tables.base), symbols)))
        assert low[3:6] == (told or DIRECT, 0, 64 * PAGE)
        assert high[3:6] == ((1 << 63) + (1 << 30), 1 << 30, PAGE)


def test_a_mapping_that_leads_elsewhere_is_not_taken_for_it() -> None:
    content = bytearray(64 * PAGE)
    tables = Tables(content, "x86-4", 32 * PAGE)
    for page in range(64):
        tables.map(DIRECT + page * PAGE, (page ^ 1) * PAGE)
    with Microvmi.from_driver(FakeDriver({0: content})) as vm:
        (*_, low) = program_headers(elf(vm, Kernel(vm, vm.address_space(tables.base), {})))
        assert low[3] == 1 << 63


@pytest.mark.parametrize("told", [0xFFFF_FFFF_FFFF_F000, 0, 1, 0x7FFF_FFFF_FFFF_FFFF])
def test_a_guest_that_tells_nonsense_gets_no_addresses(told: int) -> None:
    content = bytearray(64 * PAGE)
    content[8 * PAGE : 8 * PAGE + 8] = told.to_bytes(8, "little")
    tables = Tables(content, "x86-4", 32 * PAGE)
    tables.map(TEXT, 8 * PAGE)
    with Microvmi.from_driver(FakeDriver({0: content})) as vm:
        kernel = Kernel(vm, vm.address_space(tables.base), {"page_offset_base": TEXT})
        (*_, low) = program_headers(elf(vm, kernel))
        assert low[3] == 1 << 63


@pytest.mark.parametrize(
    ("place", "phys_base"),
    [(0, 0), (0x36CC_C000_0000, 0xFFF0_C933_4000_0000)],
    ids=["at the beginning of its half", "moved, and built for 52 bits"],
)
def test_memory_of_an_aarch64_kernel_is_where_it_has_it(place: int, phys_base: int) -> None:
    content = bytearray(128 * PAGE)
    tables = Tables(content, "aarch64-4k", 64 * PAGE)
    for page in range(60):
        tables.map(tables.mode.high + place + page * PAGE, page * PAGE)
    with Microvmi.from_driver(FakeDriver({0: content}, states=[state_of(1, Architecture.AARCH64)])) as vm:
        space = vm.address_space(tables.base, upper_base=tables.upper_base, control=tables.mode.control)
        (*_, low) = program_headers(elf(vm, Kernel(vm, space, {}, phys_base=phys_base)))
        assert low[3] == tables.mode.high + place
        (*_, low) = program_headers(elf(vm, Kernel(vm, space, {}, phys_base=1 << 30)))
        assert low[3] == 1 << 63
