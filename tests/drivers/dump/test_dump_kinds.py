# SPDX-License-Identifier: Apache-2.0
"""Which memory of a hypervisor's dump is main memory, which belongs to devices, and where main memory ends.

The dumps are PCs of 2 MiB as QEMU lays them out, with what other machines and settings add to them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from drivers.dump import builders
from drivers.dump.builders import PAGE, Memory, values
from processors import x86_registers

from libmicrovmi_py import Microvmi, NotSupportedError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
NOTES = builders.prstatus(values(0)) + builders.qemu_note(values(0))
Row = tuple[int, int, str]


def pages(count: int, seed: int) -> bytes:
    """Pages of different bytes; the first one has other ones than the rest."""
    return struct.pack("<Q", seed) * 512 + bytes([seed % 256]) * PAGE * (count - 1)


def laid(*places: tuple[int, int]) -> dict[int, bytes]:
    """Memory of (start, size)."""
    return {start: pages(size // PAGE, start // PAGE) for start, size in places}


def over(memory: Memory, *others: Memory) -> dict[int, bytes]:
    """The memory with pages of ``others`` in place of its own."""
    result = dict(memory)
    for at, content in (item for other in others for item in other.items()):
        start = next(start for start in memory if start <= at < start + len(memory[start]))
        whole, place = result[start], at - start
        result[start] = whole[:place] + content + whole[place + len(content) :]
    return result


LOW = laid((0, 640 * KIB), (0xC0000, 2 * MIB - 0xC0000))
VIDEO = laid((0xFD000000, 4 * PAGE))
FIRMWARE = laid((0xFFFFE000, 2 * PAGE))
PC = LOW | VIDEO | FIRMWARE
PC_KINDS: list[Row] = [
    (0, 640 * KIB, "RAM"),
    (0xC0000, 2 * MIB, "RAM"),
    (0xFD000000, 0xFD004000, "DEVICE"),
    (0xFFFFE000, 4 * GIB, "ROM"),
]
HIGH = laid((4 * GIB, 2 * MIB))
BAR = laid((5 * GIB, MIB))


def elf(memory: Memory) -> bytes:
    """As QEMU writes it."""
    return builders.elf(memory, NOTES, virtual=0)


def kdump(memory: Memory) -> bytes:
    """As QEMU 7 writes it: both bitmaps are the same."""
    return builders.kdump(memory, NOTES, exists=[(start, len(content)) for start, content in memory.items()])


def unknown(memory: Memory) -> bytes:
    """As QEMU 10 writes it: flattened, and the machine is unknown."""
    places = [(start, len(content)) for start, content in memory.items()]
    return builders.flattened(builders.kdump(memory, NOTES, exists=places, machine=b"Unknown"), 1 << 16)


WRITERS: dict[str, Callable[[Memory], bytes]] = {"elf": elf, "kdump": kdump, "kdump of QEMU 10": unknown}


def opened(folder: Path, content: bytes) -> Microvmi:
    """A file of that content as a machine."""
    path = folder / "dump"
    path.write_bytes(content)
    return Microvmi.open(str(path))


def kinds(machine: Microvmi) -> list[Row]:
    """(start, one past the end, kind); neighbours of one kind joined."""
    rows: list[Row] = []
    for item in machine.memory_map():
        before = rows.pop() if rows and rows[-1][1:] == (item.start, item.kind.name) else None
        rows.append((before[0] if before else item.start, item.end, item.kind.name))
    return rows


SPLIT = [(0, 2 * MIB), (4 * GIB, 2 * MIB)]
WHOLE: dict[str, tuple[Memory, list[Row], int]] = {
    "a PC": (PC, PC_KINDS, 2 * MIB),
    "more RAM above 4 GiB": (
        PC | HIGH,
        [*PC_KINDS, (4 * GIB, 4 * GIB + 2 * MIB, "RAM")],
        4 * GIB + 2 * MIB,
    ),
    "a device above that": (
        PC | HIGH | laid((7 * GIB, MIB)),
        [*PC_KINDS, (4 * GIB, 4 * GIB + 2 * MIB, "RAM"), (7 * GIB, 7 * GIB + MIB, "DEVICE")],
        4 * GIB + 2 * MIB,
    ),
    "memory plugged in at the next GiB": (
        PC | HIGH | laid((5 * GIB, MIB)),
        [*PC_KINDS, (4 * GIB, 4 * GIB + 2 * MIB, "RAM"), (5 * GIB, 5 * GIB + MIB, "RAM")],
        5 * GIB + MIB,
    ),
    "a device there, as the firmware told": (
        over(PC | HIGH | laid((5 * GIB, MIB)), builders.smbios(SPLIT)),
        [*PC_KINDS, (4 * GIB, 4 * GIB + 2 * MIB, "RAM"), (5 * GIB, 5 * GIB + MIB, "DEVICE")],
        4 * GIB + 2 * MIB,
    ),
    "a device right behind RAM, as the firmware told": (
        over(PC | laid((4 * GIB, 3 * MIB)), builders.smbios(SPLIT, wide=True)),
        [*PC_KINDS, (4 * GIB, 4 * GIB + 2 * MIB, "RAM"), (4 * GIB + 2 * MIB, 4 * GIB + 3 * MIB, "DEVICE")],
        4 * GIB + 2 * MIB,
    ),
    "a device at 4 GiB, as the firmware told": (
        over(PC | HIGH, builders.smbios([(0, 2 * MIB)])),
        [*PC_KINDS, (4 * GIB, 4 * GIB + 2 * MIB, "DEVICE")],
        2 * MIB,
    ),
    "memory plugged in at 4 GiB, as the firmware told": (
        over(
            PC | HIGH | laid((7 * GIB, MIB)),
            builders.smbios([(0, 2 * MIB)]),
            builders.acpi([(0, 640 * KIB), (MIB, MIB), (4 * GIB, 2 * GIB)]),
        ),
        [*PC_KINDS, (4 * GIB, 4 * GIB + 2 * MIB, "RAM"), (7 * GIB, 7 * GIB + MIB, "DEVICE")],
        4 * GIB + 2 * MIB,
    ),
    "a firmware that told of another end": (
        over(PC | HIGH, builders.smbios([(0, MIB + PAGE)])),
        [*PC_KINDS, (4 * GIB, 4 * GIB + 2 * MIB, "RAM")],
        4 * GIB + 2 * MIB,
    ),
    "ranges that are switched off": (
        over(PC | HIGH, builders.smbios([(0, 2 * MIB)]), builders.acpi([(4 * GIB, GIB)], flags=2)),
        [*PC_KINDS, (4 * GIB, 4 * GIB + 2 * MIB, "DEVICE")],
        2 * MIB,
    ),
    "no video memory": (
        laid((0, 2 * MIB)) | FIRMWARE,
        [(0, 2 * MIB, "RAM"), (0xFFFFE000, 4 * GIB, "ROM")],
        2 * MIB,
    ),
    "no chip set": (
        over(laid((0, 2 * MIB)), {MIB - 2 * PAGE: FIRMWARE[0xFFFFE000]}) | FIRMWARE,
        [
            (0, MIB - 2 * PAGE, "RAM"),
            (MIB - 2 * PAGE, MIB, "DEVICE"),
            (MIB, 2 * MIB, "RAM"),
            (0xFFFFE000, 4 * GIB, "DEVICE"),
        ],
        2 * MIB,
    ),
    "RAM that begins a segment at 1 MiB": (
        laid((0, 640 * KIB), (MIB, MIB)) | VIDEO | FIRMWARE,
        [PC_KINDS[0], (MIB, 2 * MIB, "RAM"), *PC_KINDS[2:]],
        2 * MIB,
    ),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_whole_dump_has_the_kinds_of_its_machine(tmp_path: Path, writer: str, name: str) -> None:
    memory, expected, end = WHOLE[name]
    with opened(tmp_path, WRITERS[writer](memory)) as machine:
        assert kinds(machine) == expected
        assert machine.max_addr == end
        assert machine.vcpu_count() == 1
        for start, content in memory.items():
            assert machine.read_physical(start, len(content)) == content


def test_memory_above_4_tib_is_told_in_bytes(tmp_path: Path) -> None:
    place = 5 << 40
    for wide in (False, True):
        memory = over(PC | HIGH | laid((place, MIB)), builders.smbios([*SPLIT, (place, MIB)], wide=wide))
        with opened(tmp_path, elf(memory)) as machine:
            assert kinds(machine)[-2:] == [(4 * GIB, 4 * GIB + 2 * MIB, "RAM"), (place, place + MIB, "RAM")]
            assert machine.max_addr == place + MIB


FILTERED = (
    laid((0x1000, PAGE), (0x101000, PAGE), (0x7FFF000, PAGE), (0xFD000000, PAGE), (0xFFFFE000, PAGE)) | HIGH | BAR
)
"""A machine of 128 MiB, and more above 4 GiB, of which some pages are there."""

FILTERED_KINDS: list[Row] = [
    (0x1000, 0x2000, "RAM"),
    (0x101000, 0x102000, "RAM"),
    (0x7FFF000, 0x8000000, "RAM"),
    (0xFD000000, 0xFD001000, "DEVICE"),
    (0xFFFFE000, 0xFFFFF000, "DEVICE"),
    (4 * GIB, 4 * GIB + 2 * MIB, "RAM"),
    (5 * GIB, 5 * GIB + MIB, "RAM"),
]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_hole_of_a_filtered_dump_is_no_end_of_ram(tmp_path: Path, writer: str) -> None:
    with opened(tmp_path, WRITERS[writer](FILTERED)) as machine:
        assert kinds(machine) == FILTERED_KINDS
        assert machine.max_addr == 5 * GIB + MIB


def test_the_sizes_of_segments_in_memory_tell_what_was_left_out(tmp_path: Path) -> None:
    memory = laid((0, PAGE), (0xC0000, PAGE), (4 * MIB, PAGE), (0xFD000000, PAGE), (0xFFFFE000, PAGE))
    sizes = {0: 640 * KIB, 0xC0000: 4 * MIB - 0xC0000, 4 * MIB: 4 * MIB, 0xFD000000: 16 * MIB, 0xFFFFE000: 0x2000}
    with opened(tmp_path, builders.elf(memory, NOTES, sizes=sizes, virtual=0)) as machine:
        assert [row[2] for row in kinds(machine)] == ["RAM", "RAM", "RAM", "DEVICE", "ROM"]
        assert machine.max_addr == 8 * MIB
        assert machine.memory.seek(0, 2) == 8 * MIB
        assert machine.padded_memory.read() == b"".join(
            [memory[0].ljust(0xC0000, b"\0"), memory[0xC0000].ljust(4 * MIB - 0xC0000, b"\0"), memory[4 * MIB]]
        ).ljust(8 * MIB, b"\0")
    with opened(tmp_path, builders.elf(memory, sizes=sizes)) as machine:  # of a kernel: devices are no part of it
        assert {row[2] for row in kinds(machine)} == {"RAM"}
        assert machine.max_addr == 4 * GIB


def test_a_size_in_memory_beyond_any_machine_is_not_believed(tmp_path: Path) -> None:
    memory = laid((0x1000, PAGE), (4 * MIB, PAGE))
    for notes in (NOTES, b""):
        with opened(tmp_path, builders.elf(memory, notes, sizes={0x1000: 2 * MIB, 4 * MIB: 1 << 60}, virtual=0)) as vm:
            assert vm.max_addr == 4 * MIB + PAGE


def test_the_first_bitmap_tells_what_was_left_out(tmp_path: Path) -> None:
    memory = laid((0x1000, PAGE), (0x200000, PAGE), (0xFD000000, PAGE))
    exists = [(0, 640 * KIB), (0xC0000, 8 * MIB - 0xC0000), (0xFD000000, 4 * PAGE), (0xFFFFE000, 2 * PAGE)]
    for notes, end in ((NOTES, 8 * MIB), (b"", 4 * GIB)):
        with opened(tmp_path, builders.kdump(memory, notes, exists=exists)) as machine:
            assert machine.max_addr == end
            assert sum(row[2] == "RAM" for row in kinds(machine)) == (2 if notes else 3)


def test_segments_by_page_tables_do_not_tell_where_ram_ends_but_the_firmware_does(tmp_path: Path) -> None:
    memory = laid((0, 640 * KIB), (0xC0000, 0x40000), (0x200000, MIB), (0xFD000000, PAGE))
    sizes = {0x200000: 64 * MIB, 0xFD000000: 16 * MIB}  # mapped, but not all of it is memory
    told = over(memory, builders.smbios([(0, 8 * MIB)]))
    for content, end in ((memory, 3 * MIB), (told, 8 * MIB)):
        written = builders.elf(content, NOTES, sizes=sizes, virtual=0xFFFF888000000000)
        with opened(tmp_path, written) as machine:
            assert [row[2] for row in kinds(machine)] == ["RAM", "RAM", "RAM", "DEVICE"]
            assert machine.max_addr == end


def test_a_part_of_memory_is_ram_unless_devices_are_there(tmp_path: Path) -> None:
    for start, kind in ((8 * MIB, "RAM"), (0xC0000000, "RAM"), (6 * GIB, "RAM")):
        with opened(tmp_path, elf(laid((start, MIB)))) as machine:
            assert kinds(machine) == [(start, start + MIB, kind)]
            assert machine.max_addr == start + MIB
    with opened(tmp_path, elf(VIDEO)) as machine:  # nothing else was asked for
        assert kinds(machine) == [(0xFD000000, 0xFD004000, "RAM")]
        assert machine.max_addr == 0xFD004000


@pytest.mark.parametrize("machine", [b"Unknown", b""])
def test_a_kdump_of_a_machine_that_is_not_named_is_a_pc_if_qemus_own_note_is_there(
    tmp_path: Path, machine: bytes
) -> None:
    with opened(tmp_path, builders.kdump(PC, NOTES, machine=machine)) as vm:
        assert vm.vcpu_count() == 1
        assert x86_registers(vm, 0).rip == values(0)["rip"]
    arm = builders.note(b"CORE", 1, bytes(148))
    for notes, name in ((builders.prstatus(values(0)), machine), (arm, machine), (NOTES, b"ppc64le")):
        with opened(tmp_path, builders.kdump(PC, notes, machine=name)) as vm:
            with pytest.raises(NotSupportedError):
                vm.vcpu_count()
            assert {row[2] for row in kinds(vm)} == {"RAM"}


def _spoilt(memory: Memory, at: int, content: bytes) -> Memory:
    (start,) = memory
    whole = memory[start]
    return {start: whole[:at] + content + whole[at + len(content) :]}


GOOD, TABLES = builders.smbios([(0, 2 * MIB)]), builders.acpi([(0, 2 * MIB)])
LIES: Mapping[str, Memory] = {
    "checksum of the entry point": _spoilt(GOOD, 4, b"\1"),
    "length of the entry point": _spoilt(GOOD, 5, b"\0"),
    "short structure": _spoilt(GOOD, 64 + 27 + 11, struct.pack("<2B", 19, 9)),
    "structure of no length": _spoilt(GOOD, 64, struct.pack("<2B", 1, 0)),
    "checksum of the RSDP": _spoilt(TABLES, 9, b"\1"),
    "checksum of the RSDT": _spoilt(TABLES, 0x110, b"\1"),
    "RSDT beyond memory": _spoilt(TABLES, 0x100, b"XXXX"),
    "SRAT of another name": _spoilt(TABLES, 0x200, b"XXXX"),
    "SRAT of a huge length": _spoilt(TABLES, 0x204, struct.pack("<I", 0xFFFFFFFF)),
}


@pytest.mark.parametrize("name", LIES)
def test_tables_of_the_firmware_that_do_not_hold_together_are_passed_over(tmp_path: Path, name: str) -> None:
    for writer in (elf, kdump):
        with opened(tmp_path, writer(over(PC | HIGH, LIES[name]))) as machine:
            assert kinds(machine)[-1] == (4 * GIB, 4 * GIB + 2 * MIB, "RAM")
