# SPDX-License-Identifier: Apache-2.0
"""Saved machines of QEMU: streams written from the description, and what a real QEMU saves, against ``pmemsave``."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers.dump.builders import PAGE
from drivers.dump.saving_qemu import check_memory, check_registers, qemu
from drivers.qemu import device_states
from drivers.qemu.migration_stream import head, over, page, part

from libmicrovmi_py import DriverUnavailableError, IoError, Microvmi, MicrovmiError
from libmicrovmi_py.drivers.dump.savedram import changed

MIB, GIB = 1 << 20, 1 << 30
RAM = "pc.ram"
VCPUS = {number: device_states.vcpu(number) for number in range(2)}
REST = device_states.state(VCPUS)[8:]
"""The devices, without the magic."""


def content(number: int) -> bytes:
    return struct.pack("<I", 0xABC00000 | number) * (PAGE // 4)


def stream(pages: bytes, blocks: dict[str, int] | None = None, rest: bytes = REST, configuration: bytes = b"") -> bytes:
    """A stream with these records, in one live section."""
    return head(blocks or {RAM: 2 * MIB, "vga.vram": MIB}, configuration) + over() + part() + pages + over() + rest


def record(offset: int, flags: int, data: bytes) -> bytes:
    """A record of the block of the one before."""
    return struct.pack(">Q", offset | flags | 0x20) + data


def all_pages(size: int = 2 * MIB, block: str = RAM) -> bytes:
    """Every second page has zeros."""
    rows = [page(at, content(at >> 12) if at >> 12 & 1 else None, "" if at else block) for at in range(0, size, PAGE)]
    return b"".join(rows)


def opened(folder: Path, data: bytes, **options: str) -> Microvmi:
    path = folder / "saved"
    path.write_bytes(data)
    return Microvmi(driver="dump", path=path, **options)


PACKED: dict[str, Callable[[bytes], bytes]] = {"as it is": bytes, "gzip": gzip.compress}


@pytest.mark.parametrize("pack", PACKED)
def test_pages_are_at_the_addresses_of_the_machine_with_its_registers(tmp_path: Path, pack: str) -> None:
    vram = page(0, content(0xFFFF), "vga.vram") + page(PAGE, content(0xFFFF))
    with opened(tmp_path, PACKED[pack](stream(all_pages() + vram))) as machine:
        assert [(item.start, item.end) for item in machine.memory_map()] == [(0, 0xA0000), (0xC0000, 2 * MIB)]
        assert machine.max_addr == 2 * MIB
        for number in (0, 1, 0x9F, 0xC1, 0x1FF):
            expected = content(number) if number & 1 else bytes(PAGE)
            assert machine.read_physical(number * PAGE, PAGE) == expected
        assert machine.read_physical_into(0xA0000, bytearray(8)) == 0
        assert machine.vcpu_count() == 2
        states = machine.read_states()
        for number, values in VCPUS.items():
            assert {name: states[number][name] for name in values} == values


def test_the_latest_state_of_a_page_holds_and_changes_are_applied(tmp_path: Path) -> None:
    full, once = bytes(range(256)) * 16, bytearray(bytes(range(256)) * 16)
    once[10:13] = b"abc"
    once[4000:4002] = b"yz"
    changes = bytes([10, 3]) + b"abc" + bytes([0x80 | (4000 - 13) & 0x7F, (4000 - 13) >> 7, 2]) + b"yz"
    twice = bytearray(once)
    twice[0:1] = b"Q"
    rows = all_pages()
    rows += record(PAGE, 0x8, full) + record(PAGE, 0x40, b"\1" + struct.pack(">H", len(changes)) + changes)
    rows += over() + part() + page(PAGE, full, RAM)[:0] + record(PAGE, 0x40, b"\1\0\3" + bytes([0, 1]) + b"Q")
    rows += record(2 * PAGE, 0x2, b"\x5a") + record(3 * PAGE, 0x2, b"\0")
    packed = zlib.compress(content(77))
    rows += record(4 * PAGE, 0x100, struct.pack(">I", len(packed)) + packed)
    with opened(tmp_path, stream(rows)) as machine:
        assert machine.read_physical(PAGE, PAGE) == bytes(twice)
        assert machine.read_physical(2 * PAGE, PAGE) == b"\x5a" * PAGE
        assert machine.read_physical(3 * PAGE, PAGE) == bytes(PAGE)
        assert machine.read_physical(4 * PAGE, PAGE) == content(77)
        assert machine.read_physical(5 * PAGE, PAGE) == content(5)


def test_changes_that_go_beyond_the_page_are_refused() -> None:
    assert changed(bytes(8), bytes([2, 1]) + b"x") == b"\0\0x\0\0\0\0\0"
    for wrong in (bytes([7, 2]) + b"xy", bytes([0, 3]) + b"xy", bytes([0, 0]), bytes([0x80])):
        with pytest.raises(ValueError, match=r"beyond its end|is cut"):
            changed(bytes(8), wrong)


def _sparse(size: int, machine: bytes, places: dict[int, bytes]) -> bytes:
    """A stream of a block of which only these pages are there."""
    rows = [page(at, made, RAM) for at, made in places.items()]
    data = stream(b"".join(rows), {RAM: size}, device_states.state(VCPUS)[8:])
    return data.replace(b"\x07\0\0\0\x02pc", b"\x07" + struct.pack(">I", len(machine)) + machine)


@pytest.mark.parametrize(("machine", "low", "most"), [(b"pc-i440fx-7.2", 3, 3.5), (b"pc-q35-7.2", 2, 2.75)])
def test_memory_above_4_gib_is_behind_the_hole(tmp_path: Path, machine: bytes, low: int, most: float) -> None:
    places = {0: content(1), low * GIB - PAGE: content(2), low * GIB: content(3), 5 * GIB - PAGE: content(4)}
    with opened(tmp_path, _sparse(5 * GIB, machine, places)) as opened_machine:
        end = 4 * GIB + (5 - low) * GIB
        assert opened_machine.max_addr == end
        for address, number in ((0, 1), (low * GIB - PAGE, 2), (4 * GIB, 3), (end - PAGE, 4)):
            assert opened_machine.read_physical(address, PAGE) == content(number)
        assert sum(item.size for item in opened_machine.memory_map()) == 4 * PAGE
    size = int(most * GIB) - MIB
    with opened(tmp_path, _sparse(size, machine, {0: content(1), size - PAGE: content(2)})) as opened_machine:
        assert opened_machine.max_addr == size, "it fits below the hole"


def test_what_the_configuration_tells_is_passed_over(tmp_path: Path) -> None:
    told = b"\x05\x1econfiguration/target-page-bits\0\0\0\1\0\0\0\x0c"
    opened(tmp_path, stream(all_pages(), configuration=told)).close()


def test_a_stream_that_is_cut_has_the_pages_that_are_there_with_partial(tmp_path: Path) -> None:
    data = stream(all_pages())
    for end in (len(data) // 2, len(data) - len(REST) - 30):
        with pytest.raises(IoError, match=r"is cut short or damaged: it ends at .*partial=on"):
            opened(tmp_path, data[:end])
        with opened(tmp_path, data[:end], partial="on") as machine:
            assert machine.read_physical(0x5000, PAGE) == content(5)
            assert sum(item.size for item in machine.memory_map()) < 2 * MIB
            with pytest.raises(MicrovmiError):
                machine.vcpu_count()


LIES = {
    "a block that there is not": stream(page(0, content(1), "pc.rom")),
    "beyond its block": stream(page(3 * MIB, content(1), RAM)),
    "of no block": stream(page(0, content(1))),
    "of a kind": stream(page(0, None, RAM) + struct.pack(">Q", 0x400)),
    "more than any machine": stream(page(0, None, RAM), {RAM: 1 << 53}),
    "far ahead": stream(page(1 << 45, None, RAM), {RAM: 1 << 46}),
    "no section": head({RAM: MIB}) + over() + b"\x55",
    "that was not begun": head({RAM: MIB}) + over() + b"\x02\0\0\0\x63",
    "of 0x0 bytes": stream(page(0, None, RAM), {RAM: 0, "x": MIB}),
    "changes at": stream(page(0, None, RAM) + record(0, 0x40, b"\1\xff\xff")),
}


@pytest.mark.parametrize("name", LIES)
def test_a_stream_that_lies_is_an_error_of_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(IoError, match="is cut short or damaged") as caught:
        opened(tmp_path, LIES[name])
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------------------- libvirt


def libvirt(data: bytes, magic: bytes = b"LibvirtQemudSave", version: int = 2) -> bytes:
    """As ``virsh save`` writes it."""
    description = b"<domain type='kvm'><name>debian</name></domain>\0".ljust(600, b"\0")
    return magic + struct.pack("<19I", version, len(description), 1, 0, *[0] * 15) + description + data


@pytest.mark.parametrize("pack", PACKED)
def test_what_libvirt_saved_is_found_behind_its_header(tmp_path: Path, pack: str) -> None:
    with opened(tmp_path, libvirt(PACKED[pack](stream(all_pages())))) as machine:
        assert machine.read_physical(0x5000, PAGE) == content(5)
        assert machine.vcpu_count() == 2
    with pytest.raises(DriverUnavailableError, match=r"was not finished, which cannot be read: .*partial=on"):
        opened(tmp_path, libvirt(stream(all_pages()), b"LibvirtQemudPart"))
    with opened(tmp_path, libvirt(stream(all_pages()), b"LibvirtQemudPart"), partial="on") as machine:
        assert machine.read_physical(0x5000, PAGE) == content(5)
    with pytest.raises(DriverUnavailableError, match="a saved machine of libvirt in an unknown form"):
        opened(tmp_path, libvirt(bytes(PAGE)))
    with pytest.raises(DriverUnavailableError, match="a saved machine of libvirt, version 3"):
        opened(tmp_path, libvirt(bytes(PAGE), version=3))


# -------------------------------------------------------------------------------------------------------- a real QEMU


@pytest.mark.parametrize("board", ["pc", "q35"])
def test_what_qemu_saves_is_what_pmemsave_and_info_registers_tell(tmp_path: Path, board: str) -> None:
    size = 48 * MIB
    with qemu(tmp_path, board) as standing:
        standing.run(1.0)  # some of the firmware's run, wherever it is then
        standing.save(tmp_path / "saved", "xbzrle", "auto-converge")
        with Microvmi(driver="dump", path=tmp_path / "saved") as machine:
            assert machine.max_addr == size
            ranges = [item for item in machine.memory_map() if item.kind.name == "RAM"]
            assert [(item.start, item.end) for item in ranges] == [(0, 0xA0000), (0xC0000, size)]
            check_memory(machine, 0, standing.memory(tmp_path / "memory", 0, size))
            check_registers(machine, standing.registers())
