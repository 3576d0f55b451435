# SPDX-License-Identifier: Apache-2.0
"""Streams of QEMU with mapped-ram, written from the description, and where blocks of RAM are in memory.

QEMU writes such streams since version 9: test_dump_saves.py compares them where there is one.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from drivers.dump.builders_mapped import capabilities, mapped
from drivers.dump.test_dump_qemu import REST, content, libvirt, opened, stream
from drivers.qemu.migration_stream import page

from libmicrovmi_py import DriverUnavailableError, InvalidArgumentError, IoError, Microvmi, MicrovmiError

PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
RAM = "pc.ram"
PAGES = {number: content(number) for number in (0, 1, 2, 9, 0x9F, 0xC0, 0x1FF)}
SIZES = {RAM: 2 * MIB, "vga.vram": MIB}
BLOCKS = {RAM: PAGES, "vga.vram": {0: content(0xFFFF)}}


def whole(machine: Microvmi) -> bytes:
    """All of main memory; zeros for the window of the video card."""
    low = machine.read_physical(0, 0xA0000)
    return low + bytes(0x20000) + machine.read_physical(0xC0000, 2 * MIB - 0xC0000)


def expected() -> bytes:
    return b"".join(PAGES.get(number, bytes(PAGE)) for number in range(512))


@pytest.mark.parametrize("old", [{}, {3: content(3), 0xFE: content(7)}], ids=["", "pages that became zeros"])
def test_pages_are_where_the_headers_say(tmp_path: Path, old: dict[int, bytes]) -> None:
    """Pages that were saved and became zeros before the end are still in the file: the bitmap knows better."""
    with opened(tmp_path, mapped(BLOCKS, SIZES, REST, old=old)) as machine:
        assert [(item.start, item.end) for item in machine.memory_map()] == [(0, 0xA0000), (0xC0000, 2 * MIB)]
        assert whole(machine) == expected()
        assert machine.vcpu_count() == 2
    with opened(tmp_path, mapped(BLOCKS, SIZES, REST, old=old), mapped="no") as machine:
        assert whole(machine) == expected()


def test_it_lies_in_the_file_and_is_mapped(tmp_path: Path) -> None:
    """Reads are of the file itself, as those of every flat format."""
    with opened(tmp_path, mapped(BLOCKS, SIZES, REST)) as machine:
        assert machine.map_physical(PAGE, PAGE)[:8] == content(1)[:8]
    with (
        opened(tmp_path, stream(page(0, content(0), RAM))) as machine,
        pytest.raises(MicrovmiError, match="cannot map memory"),
    ):
        machine.map_physical(0, PAGE)


def test_offsets_count_from_the_start_of_the_file(tmp_path: Path) -> None:
    """libvirt writes its header before it."""
    base = len(libvirt(b""))
    with opened(tmp_path, libvirt(mapped(BLOCKS, SIZES, REST, base=base))) as machine:
        assert whole(machine) == expected()


def test_a_file_that_is_cut_has_what_is_there_with_partial(tmp_path: Path) -> None:
    data = mapped(BLOCKS, SIZES, REST)
    end = MIB + 0x9F * PAGE + 100
    with pytest.raises(
        IoError, match=r"is cut short or damaged: memory of the block 'pc.ram' would lie at .*partial=on"
    ):
        opened(tmp_path, data[:end])
    with opened(tmp_path, data[:end], partial="on") as machine:
        assert machine.read_physical(9 * PAGE, PAGE) == content(9)
        assert machine.read_physical_into(0x9F * PAGE, bytearray(PAGE)) == 0
    for end in (104, 120, 150):
        with pytest.raises(IoError, match=r"it ends at .*, in the middle of memory"):
            opened(tmp_path, data[:end])


def test_a_header_that_lies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DriverUnavailableError, match="with mapped-ram of version 2 and pages of 4096 bytes"):
        opened(tmp_path, mapped(BLOCKS, SIZES, REST, version=2))
    data = bytearray(mapped(BLOCKS, SIZES, REST))
    at = data.index(struct.pack(">Q", MIB), 118)
    data[at : at + 8] = struct.pack(">Q", 0x90)
    with pytest.raises(IoError, match=r"the pages of the block 'pc.ram' would be at 0x90"):
        opened(tmp_path, bytes(data))


def test_shared_memory_that_was_left_out_does_not_exist(tmp_path: Path) -> None:
    """In a file with mapped-ram its bitmap is empty, which means zeros otherwise."""
    sizes = {"pc.ram": 2 * MIB, "shared": MIB, "other": MIB}
    blocks: dict[str, dict[int, bytes]] = {"pc.ram": PAGES, "shared": {}, "other": {1: content(77)}}
    places = {"pc.ram": 0, "shared": 0, "other": 4 * MIB}
    with opened(tmp_path, mapped(blocks, sizes, REST, addresses=places)) as machine:
        assert machine.read_physical(9 * PAGE, PAGE) == content(9)
        assert machine.read_physical_into(4 * GIB, bytearray(8)) == 0
        assert machine.read_physical(4 * GIB + 4 * MIB, 2 * PAGE) == bytes(PAGE) + content(77)
    with pytest.raises(
        DriverUnavailableError, match=r"without its main memory, pc.ram, which cannot be read: name the"
    ):
        opened(tmp_path, mapped({**blocks, "pc.ram": {}}, sizes, REST, addresses=places))


def test_files_of_shared_memory_are_found_by_their_sizes(tmp_path: Path) -> None:
    sizes = {"pc.ram": 2 * MIB, "one": MIB, "two": 3 * MIB}
    data = mapped({name: {} for name in sizes}, sizes, REST, addresses={"pc.ram": 0, "one": 0, "two": 4 * MIB})
    (tmp_path / "ram").write_bytes(content(5) * 512)
    (tmp_path / "two").write_bytes(content(7) * 768)
    parts = f"{tmp_path}/two,{tmp_path}/ram"
    with opened(tmp_path, data, parts=parts) as machine:
        assert machine.read_physical(MIB, 2 * PAGE) == content(5) * 2
        assert machine.read_physical(4 * GIB + 7 * MIB - PAGE, PAGE) == content(7)
        assert machine.read_physical_into(4 * GIB, bytearray(8)) == 0
        assert machine.max_addr == 4 * GIB + 7 * MIB
        assert machine.vcpu_count() == 2
    (tmp_path / "two").write_bytes(content(7))
    with pytest.raises(InvalidArgumentError, match=r"parts=.*/two: no memory of its 4096 bytes is missing"):
        opened(tmp_path, data, parts=parts)


# -------------------------------------------------------------------------------------------------- several blocks


def clock(low: int, high: int) -> bytes:
    """The state of a PC's clock with what QEMU puts into it, in bytes below and above 4 GiB."""
    memory = bytearray(128)
    memory[0x34:0x36] = ((low - 16 * MIB) >> 16).to_bytes(2, "little")
    memory[0x5B:0x5E] = (high >> 16).to_bytes(3, "little")
    return b"\x04\0\0\0\x30\x0bmc146818rtc" + struct.pack(">II", 0, 3) + bytes(memory)


def affinity(rows: list[tuple[int, int, int, int]]) -> bytes:
    """The table that tells the nodes: (node, address, size, flags)."""
    told = b"".join(struct.pack("<BBIHQQIIQ", 1, 40, node, 0, at, size, 0, flags, 0) for node, at, size, flags in rows)
    return b"SRAT" + struct.pack("<I", 48 + len(told)) + bytes(40) + told


def several(
    sizes: dict[str, int],
    rest: bytes = REST,
    rows: list[tuple[int, int, int, int]] | None = None,
    machine: bytes = b"pc",
) -> bytes:
    """A stream of such blocks, each with its name on its first and its last page."""
    pages = b""
    if rows:
        sizes = {**sizes, "/rom@etc/acpi/tables": 2 * PAGE}
        pages += page(0, (b"FACS" + bytes(60) + affinity(rows)).ljust(PAGE, b"\0"), "/rom@etc/acpi/tables")
        pages += page(PAGE, None)
    for name, size in sizes.items():
        if not name.startswith("/"):
            pages += page(0, named(name, 0), name) + page(size - PAGE, named(name, 1))
    made = stream(pages, sizes, rest)
    return made.replace(b"\x07\0\0\0\x02pc", b"\x07" + struct.pack(">I", len(machine)) + machine)


def named(name: str, place: int) -> bytes:
    return f"{name} {place}".encode().ljust(PAGE, b".")


def found(machine: Microvmi) -> dict[str, int]:
    """Where the pages with names are."""
    places = {}
    for item in machine.memory_map():
        for address in range(item.start, item.end, PAGE):
            text = machine.read_physical(address, PAGE).rstrip(b".\0").decode("latin-1")
            if text.isprintable() and text:
                places[text] = address
    return places


def test_the_clock_tells_how_much_is_below_4_gib(tmp_path: Path) -> None:
    """As a machine may have been told: max-ram-below-4g."""
    with opened(tmp_path, several({RAM: 64 * MIB}, clock(32 * MIB, 32 * MIB) + REST)) as machine:
        assert found(machine) == {"pc.ram 0": 0, "pc.ram 1": 4 * GIB + 32 * MIB - PAGE}
        assert machine.max_addr == 4 * GIB + 32 * MIB
    with opened(tmp_path, several({RAM: 64 * MIB}, clock(32 * MIB, 16 * MIB) + REST)) as machine:
        assert found(machine) == {"pc.ram 0": 0, "pc.ram 1": 64 * MIB - PAGE}, "it contradicts what is there"


def test_nodes_are_in_the_order_of_the_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(0, 0, 0xA0000, 1), (0, MIB, 15 * MIB, 1), (1, 16 * MIB, 32 * MIB, 1), (1, 4 * GIB, GIB, 3)]
    sizes = {"large": 32 * MIB, "small": 16 * MIB}
    expected_places = {"small 0": 0, "small 1": 16 * MIB - PAGE, "large 0": 16 * MIB, "large 1": 48 * MIB - PAGE}
    with opened(tmp_path, several(sizes, rows=rows)) as machine:
        assert found(machine) == expected_places
    assert "nothing tells" not in caplog.text
    with opened(tmp_path, several(sizes, clock(24 * MIB, 24 * MIB) + REST, rows)) as machine:
        assert found(machine) == {**expected_places, "large 1": 4 * GIB + 24 * MIB - PAGE}
    with pytest.raises(DriverUnavailableError, match="with memory in 3 unknown blocks"):
        opened(tmp_path, several(sizes, rows=[*rows[:3], (2, 48 * MIB, 8 * MIB, 1)]))


def test_blocks_without_a_table_are_in_the_order_of_the_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = {"one": 16 * MIB, "two": 16 * MIB}
    with opened(tmp_path, several(sizes, clock(32 * MIB, 0) + REST)) as machine:
        assert found(machine)["two 0"] == 16 * MIB
    assert "main memory is taken to be one, two, in this order: nothing tells blocks of one size apart" in caplog.text
    with pytest.raises(DriverUnavailableError, match="with memory in 2 unknown blocks"):
        opened(tmp_path, several(sizes, clock(48 * MIB, 0) + REST))
    with pytest.raises(DriverUnavailableError, match="with memory in 2 unknown blocks"):
        opened(tmp_path, several(sizes))


def test_memory_that_was_plugged_in_is_at_the_next_gib(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sizes = {RAM: 48 * MIB, "d1": 16 * MIB, "d2": 16 * MIB, "vga.vram": MIB, "0000:00:04.0/shmem": MIB}
    with opened(tmp_path, several(sizes, clock(32 * MIB, 16 * MIB) + REST)) as machine:
        places = found(machine)
        assert (places["d1 0"], places["d2 0"], machine.max_addr) == (5 * GIB, 5 * GIB + 16 * MIB, 5 * GIB + 32 * MIB)
        assert "vga.vram 0" not in places
    assert "is taken to be where QEMU puts it by itself, from 0x140000000 on: d1, d2" in caplog.text
    with opened(tmp_path, several({**sizes, "d2": 8 * MIB})) as machine:
        assert "d1 0" not in found(machine)
    assert "memory that was plugged in is left out, as nothing tells where it was: d1, d2" in caplog.text


def test_memory_of_one_name_is_main_memory(tmp_path: Path) -> None:
    for name in ("ram0", "/objects/ram0"):
        rest = clock(32 * MIB, 0) + REST
        made = stream(page(0, named("it", 0), name), {name: 32 * MIB, "vga.vram": MIB}, rest)
        with opened(tmp_path, made) as machine:
            assert found(machine) == {"it 0": 0}


def test_a_stream_that_has_no_capabilities_says_so(tmp_path: Path) -> None:
    with opened(tmp_path, stream(page(0, content(1), RAM), configuration=capabilities())) as machine:
        assert machine.read_physical(0, PAGE) == content(1)
