# SPDX-License-Identifier: Apache-2.0
"""Dump files of a stopped guest, made by QEMU in each format it has, hold what ``pmemsave`` saves and its registers.

QEMU makes Windows crash dumps of Windows guests only: those, and LiME, are written from what ``pmemsave`` saved.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drivers.dump import builders
from needs import missing

from . import oracle
from .capi import Machine
from .conftest import NewGuest, OpenMachine
from .guest import MIB, VCPUS, Guest
from .marks import on_one_guest

PAGE = 4096
PAGES_APART = 37
"""Every so many pages one is read by itself as well."""

UNKNOWN = ("efer", "msr_efer")
"""QEMU's notes do not have them."""


def _backend(name: str, mib: int) -> tuple[str, ...]:
    return ("-object", f"memory-backend-ram,id={name},size={mib}M,share=on")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory, if the host has one: dumps are as large as the guest."""
    with tempfile.TemporaryDirectory(dir=oracle.SCRATCH, prefix="microvmi-live-") as name:
        yield Path(name)


def first_difference(guest: Guest, vm: Machine, ranges: list[oracle.Range], scratch: Path) -> int | None:
    """The page at which the dump and ``pmemsave`` first differ, ``None`` if they never do."""
    for item in ranges:
        for start in range(item.start, item.end, oracle.PIECE):
            expected = saved(guest, start, min(oracle.PIECE, item.end - start), scratch)
            read = vm.read(start, len(expected)).content
            for at in range(0, len(expected), PAGE if read != expected else PAGES_APART * PAGE):
                if vm.read(start + at, PAGE).content != expected[at : at + PAGE]:
                    return start + at
            if read != expected:
                return start
    return None


def saved(guest: Guest, start: int, size: int, scratch: Path) -> bytes:
    """Memory as QEMU saves it."""
    path = scratch / "saved"
    guest.monitor.execute("pmemsave", val=start, size=size, filename=str(path))
    return path.read_bytes()


def offered(guest: Guest) -> list[str]:
    """The formats that this QEMU writes."""
    formats: list[str] = guest.monitor.execute("query-dump-guest-memory-capability")["formats"]
    return formats


def assert_same(guest: Guest, vm: Machine, ranges: list[oracle.Range], scratch: Path) -> None:
    """Whether a dump has the guest's memory and registers."""
    assert first_difference(guest, vm, ranges, scratch) is None
    assert vm.vcpu_count() == VCPUS
    for vcpu, values in enumerate(oracle.registers(guest.monitor)):
        actual, known = vm.registers(vcpu), values.keys() - UNKNOWN
        assert {name: actual[name] for name in known} == {name: values[name] for name in known}


@on_one_guest
def test_dumps_of_every_format_hold_the_guests_memory_and_registers(
    paused: Guest, open_machine: OpenMachine, scratch: Path
) -> None:
    formats = [name for name in offered(paused) if name == "elf" or name.startswith("kdump-")]
    assert {"elf", "kdump-zlib"} <= set(formats)
    for form in formats:
        path = scratch / form
        paused.monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{path}", format=form)
        vm, ranges = open_machine(str(path)), oracle.memory_map(paused.monitor)
        assert _without_kinds(vm.memory_map()) == _without_kinds(ranges)
        assert _behind_1_mib(vm.memory_map()) == _behind_1_mib(ranges)
        assert vm.max_address() == paused.config.size
        assert_same(paused, vm, ranges, scratch)


@on_one_guest
def test_segments_by_the_guests_page_tables_overlap_and_hold_the_same(
    paused: Guest, open_machine: OpenMachine, scratch: Path
) -> None:
    path = scratch / "dump"
    paused.monitor.execute("dump-guest-memory", paging=True, protocol=f"file:{path}")
    vm = open_machine(str(path))
    assert sum(item.size for item in vm.memory_map()) > paused.config.size - MIB
    assert vm.max_address() == paused.config.size
    assert_same(paused, vm, vm.memory_map(), scratch)


@on_one_guest
def test_a_part_of_memory_is_dumped_as_ram(paused: Guest, open_machine: OpenMachine, scratch: Path) -> None:
    path, begin, length = scratch / "dump", 16 * MIB, 5 * MIB
    paused.monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{path}", begin=begin, length=length)
    vm = open_machine(str(path))
    assert vm.memory_map() == [oracle.Range(begin, length, "ram")]
    assert vm.max_address() == begin + length
    assert_same(paused, vm, vm.memory_map(), scratch)


def test_a_snapshot_in_the_background_is_of_the_moment_that_it_was_begun_at(
    new_guest: NewGuest, open_machine: OpenMachine, scratch: Path
) -> None:
    guest, path = new_guest(), scratch / "snapshot"
    _let_the_firmware_run(guest)
    memory, registers = saved(guest, 0, guest.config.size, scratch), oracle.registers(guest.monitor)
    background = {"capability": "background-snapshot", "state": True}
    guest.monitor.execute("migrate-set-capabilities", capabilities=[background])
    guest.monitor.execute("migrate", uri=f"exec:cat > {path}")
    deadline = time.monotonic() + 60
    while (status := guest.monitor.execute("query-migrate")["status"]) != "completed":
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    vm = open_machine(str(path))
    ram = [item for item in vm.memory_map() if item.kind == "ram"]
    assert sum(item.size for item in ram) > guest.config.size - MIB
    for item in ram:
        assert vm.read(item.start, item.size).content == memory[item.start : item.end]
    assert [{name: vm.registers(vcpu)[name] for name in told} for vcpu, told in enumerate(registers)] == registers


LARGE = "memory plugged in, and ivshmem above it"

MACHINES: dict[str, tuple[str, ...]] = {
    "more RAM, ivshmem behind it": (
        *("-m", "192M", "-M", "q35,max-ram-below-4g=64M", *_backend("shared", 64)),
        *("-device", "ivshmem-plain,memdev=shared"),
    ),
    "memory plugged in": ("-m", "64M,slots=2,maxmem=4G", *_backend("dimm", 128), "-device", "pc-dimm,memdev=dimm"),
    LARGE: (
        *("-M", "q35", "-m", "64M,slots=2,maxmem=4G", *_backend("dimm", 128), "-device", "pc-dimm,memdev=dimm"),
        *(*_backend("shared", 1024), "-device", "ivshmem-plain,memdev=shared"),
    ),
    "no video memory": ("-vga", "none"),
    "no chip set": ("-M", "microvm"),
}
"""Arguments for QEMU besides those of a small guest without a kernel."""


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_has_the_same_main_memory_and_kinds_live_and_dumped(
    new_guest: NewGuest, open_machine: OpenMachine, scratch: Path, name: str
) -> None:
    guest = new_guest(options=MACHINES[name])
    _let_the_firmware_run(guest)
    live = open_machine(guest.uri)
    for form in ("elf",) if name == LARGE else ("elf", "kdump-zlib"):
        path = scratch / form
        guest.monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{path}", format=form)
        vm = open_machine(str(path))
        assert vm.max_address() == live.max_address()
        assert _behind_1_mib(vm.memory_map()) == _behind_1_mib(live.memory_map())
        assert vm.vcpu_count() == live.vcpu_count()
        path.unlink()


def _let_the_firmware_run(guest: Guest) -> None:
    """Let a stopped guest run until its memory is as the firmware leaves it: the map is the same for a second."""
    guest.monitor.execute("cont")
    seen: list[object] = []
    deadline = time.monotonic() + 30
    while len(seen) < 10 or seen[-10:] != seen[-1:] * 10:
        assert time.monotonic() < deadline, "the guest's memory map never holds still"
        time.sleep(0.2)
        seen.append(oracle.memory_map(guest.monitor))
    guest.monitor.execute("stop")


@on_one_guest
def test_dumps_filtered_by_makedumpfile_end_where_the_machine_does(
    paused: Guest, open_machine: OpenMachine, scratch: Path
) -> None:
    path, make = scratch / "filtered", _filter(paused, scratch)
    for arguments in (("-E", "-d", "31"), ("-c", "-d", "31"), ("-l", "-d", "1")):
        make(arguments, path)
        vm = open_machine(str(path))
        found = vm.memory_map()
        assert vm.max_address() == paused.config.size
        assert sum(item.size for item in found) == (_in_elf(path) if "-E" in arguments else _in_kdump(path))
        assert {item.kind for item in found if item.end <= paused.config.size} == {"ram"}
        assert "ram" not in {item.kind for item in found if item.start >= paused.config.size}
        assert_same(paused, vm, found, scratch)
        path.unlink()


@on_one_guest
def test_dumps_of_makedumpfile_in_parts_in_records_and_rearranged_hold_the_same(
    paused: Guest, open_machine: OpenMachine, scratch: Path
) -> None:
    make = _filter(paused, scratch)
    one, flat, parts = scratch / "one", scratch / "flat", [scratch / f"part{number}" for number in range(3)]
    make(("-c", "-d", "31"), one)
    make(("--split", "--splitblock-size", "8", "-c", "-d", "31"), *parts)
    flat.write_bytes(make(("-F", "-c", "-d", "31")))
    with flat.open("rb") as records:
        subprocess.run(["makedumpfile", "-R", str(scratch / "again")], stdin=records, capture_output=True, check=True)
    assert (scratch / "again").read_bytes() == one.read_bytes()
    expected = open_machine(str(one)).memory_map()
    for path in (flat, *parts):
        vm = open_machine(str(path))
        assert vm.memory_map() == expected
        assert vm.max_address() == paused.config.size
    assert_same(paused, vm, expected, scratch)
    flat_vm = open_machine(str(flat))
    for item in expected[:: len(expected) // 100 + 1]:
        assert flat_vm.read(item.start, item.size).content == vm.read(item.start, item.size).content


def _filter(guest: Guest, scratch: Path) -> Callable[..., bytes]:
    """A dump of the guest, of which makedumpfile makes others: what it prints."""
    if shutil.which("makedumpfile") is None:
        missing("no makedumpfile: apt-get install makedumpfile")
    whole, notes = scratch / "whole", scratch / "vmcoreinfo"
    guest.monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{whole}")
    content = whole.read_bytes()
    told = re.search(rb"OSRELEASE=\d[^\0]*", content)
    assert told, "a kernel has this text for its dumps"
    notes.write_bytes(told[0])
    whole.write_bytes(_with_headers_first(content))

    def make(arguments: tuple[str, ...], *paths: Path) -> bytes:
        command = ["makedumpfile", *arguments, "-i", str(notes), str(whole), *map(str, paths)]
        ended = subprocess.run(command, capture_output=True, timeout=120, check=False)
        if ended.returncode:
            missing(f"this makedumpfile does not know the guest's kernel: {ended.stderr.decode()[-200:]}")
        return ended.stdout

    return make


def _in_elf(path: Path) -> int:
    """Bytes of memory that an ELF core holds: what is in the file of its PT_LOAD segments."""
    content = path.read_bytes()
    (place,), (count,) = struct.unpack_from("<Q", content, 32), struct.unpack_from("<H", content, 56)
    rows = struct.iter_unpack("<2I6Q", content[place : place + 56 * count])
    return sum(int(row[5]) for row in rows if row[0] == 1)


def _in_kdump(path: Path) -> int:
    """Bytes of memory that a kdump file holds: the pages of the second of its bitmaps."""
    content = path.read_bytes()
    block_size, header_blocks, bitmap_blocks, pages = struct.unpack_from("<4I", content, 428)
    half = bitmap_blocks // 2 * block_size
    begin = (1 + header_blocks) * block_size + half
    there = int.from_bytes(content[begin : begin + half], "little") & ((1 << pages) - 1)  # behind them anything may be
    held: int = there.bit_count() * block_size
    return held


def _with_headers_first(content: bytes) -> bytes:
    """An ELF core with its program headers right behind its header, where makedumpfile looks for them."""
    (place,), (count,) = struct.unpack_from("<Q", content, 32), struct.unpack_from("<H", content, 56)
    rows = [list(row) for row in struct.iter_unpack("<2I6Q", content[place : place + 56 * count])]
    first = min(row[2] for row in rows)
    for row in rows:
        row[2] += 64 + 56 * count - first
    head = bytearray(content[:64])
    struct.pack_into("<2Q", head, 32, 64, 0)
    struct.pack_into("<3H", head, 58, 0, 0, 0)
    return bytes(head) + b"".join(struct.pack("<2I6Q", *row) for row in rows) + content[first:]


def _behind_1_mib(ranges: list[oracle.Range]) -> list[oracle.Range]:
    """What of the map a dump tells exactly."""
    cut = (item._replace(start=max(item.start, MIB), size=item.end - max(item.start, MIB)) for item in ranges)
    return oracle.joined(item for item in cut if item.size > 0)


def _without_kinds(ranges: list[oracle.Range]) -> list[oracle.Range]:
    """A dump does not tell memory that the guest cannot write, below 1 MiB, from other memory."""
    return oracle.joined(oracle.Range(item.start, item.size, "ram") for item in ranges)


FORMATS: dict[str, Callable[[builders.Memory], bytes]] = {
    "raw": lambda memory: b"".join(memory.values()),
    "lime": builders.lime,
    "windows": builders.windows,
    "windows bitmap": lambda memory: builders.windows(memory, kind=5),
    "kdump": builders.kdump,
    "flattened kdump": lambda memory: builders.flattened(builders.kdump(memory), 1 << 16),
}


@on_one_guest
@pytest.mark.parametrize("form", FORMATS)
def test_a_dump_written_from_what_qemu_saved_holds_it(
    paused: Guest, open_machine: OpenMachine, scratch: Path, form: str
) -> None:
    ranges = [oracle.Range(0, 0xA0000, "ram"), oracle.Range(0x100000, 24 * MIB, "ram")]
    if form == "raw":
        ranges = [oracle.Range(0, 25 * MIB, "ram")]
    memory = {item.start: saved(paused, item.start, item.size, scratch) for item in ranges}
    path = scratch / "dump"
    path.write_bytes(FORMATS[form](memory))
    vm = open_machine(str(path))
    assert vm.memory_map() == ranges
    assert any(memory[ranges[-1].start])
    assert first_difference(paused, vm, ranges, scratch) is None
