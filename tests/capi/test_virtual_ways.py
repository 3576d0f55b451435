# SPDX-License-Identifier: Apache-2.0
"""Virtual memory on every way that C has to memory: mapped, of another process, by system calls; paused or running."""

from __future__ import annotations

import ctypes
import os
import random
import threading
from collections.abc import Callable
from ctypes import byref, c_uint8, c_uint64
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pagetables import KIB, Tables
from programs import Programs

NOT_MAPPED, READ_ONLY, INVALID_ARGUMENT, INVALID_CONTEXT = 6, 11, 1, 2
TABLES, PAGES = 0x40000, 0x10000
"""Physical: tables from the one on, pages between the other and it. From 0x80000 to 0x100000 there is no memory."""
HIGH = 0xFFFF_8000_0000_0000
UNKNOWN = (1 << 64) - 1

Open = Callable[[str], int]


def _array(data: bytes) -> Any:
    return (c_uint8 * len(data)).from_buffer_copy(data)


class Guest:
    """A machine whose tables are written by its context, and the calls."""

    def __init__(self, lib: Any, stubs: ModuleType, context: int, mode: str = "x86-4") -> None:
        self.lib, self.stubs, self.context = lib, stubs, context
        self.memory = bytearray(0x80000)
        self.tables = Tables(self.memory, mode, TABLES)
        self.space = stubs.microvmi_address_space(struct_size=ctypes.sizeof(stubs.microvmi_address_space))
        given = self.tables.space
        self.space.paging, self.space.base, self.space.control = given.paging, given.base, given.control

    def write_tables(self) -> None:
        """Into the machine, by physical address: as its guest would, or somebody else."""
        self.poke(TABLES, bytes(self.memory[TABLES : self.tables.end]))

    def fill(self) -> None:
        """Every page below the tables has its number in all of its bytes."""
        self.poke(0, b"".join(bytes([page]) * (4 * KIB) for page in range(TABLES >> 12)))

    def poke(self, physical: int, data: bytes) -> None:
        assert self.lib.microvmi_write_physical(self.context, physical, _array(data), len(data))

    def read(self, address: int, size: int, *, padded: bool = False) -> tuple[int, bytes]:
        """The error, and what was read; the rest of the buffer has to be as it was."""
        buffer, done = (c_uint8 * size)(*b"\xee" * size), c_uint64(77)
        call = self.lib.microvmi_read_virtual_padded if padded else self.lib.microvmi_read_virtual
        whole = call(self.context, byref(self.space), address, buffer, size, byref(done))
        code: int = self.lib.microvmi_last_error_code()
        assert whole == (code == 0)
        assert bytes(buffer[done.value :]) == b"\xee" * (size - done.value)
        return code, bytes(buffer[: done.value])

    def write(self, address: int, data: bytes) -> int:
        self.lib.microvmi_write_virtual(self.context, byref(self.space), address, _array(data), len(data))
        code: int = self.lib.microvmi_last_error_code()
        return code

    def translate(self, address: int) -> Any:
        told = self.stubs.microvmi_translation(struct_size=ctypes.sizeof(self.stubs.microvmi_translation))
        self.lib.microvmi_translate_address(self.context, byref(self.space), address, byref(told))
        return told


WAYS = {
    "mapped, running": (),
    "mapped, paused": ("paused",),
    "a process, running": ("private",),
    "a process, paused": ("private", "paused"),
    "a process, paused, nothing kept": ("private", "paused", "cache=0"),
    "a file, running": ("mapped=no",),
}


@pytest.fixture(params=WAYS)
def guest(
    request: pytest.FixtureRequest, lib: Any, stubs: ModuleType, opened: Open, start_machine: Callable[..., str]
) -> Guest:
    way = WAYS[request.param]
    uri = start_machine(*(["-fake", "private"] if "private" in way else []))
    made = Guest(lib, stubs, opened("&".join([uri, *(word for word in way if "=" in word)])))
    made.fill()
    assert "paused" not in way or lib.microvmi_pause(made.context)
    return made


def mapped(guest: Guest, pages: int = 8, base: int = HIGH) -> list[int]:
    """So many pages beside each other, whose frames are not; their frames."""
    frames = [PAGES + (index * 5 % 16) * 4 * KIB for index in range(pages)]
    for index, frame in enumerate(frames):
        guest.tables.map(base + index * 4 * KIB, frame)
    guest.write_tables()
    return frames


def test_a_read_across_many_pages_has_the_bytes_of_each(guest: Guest) -> None:
    frames = mapped(guest)
    content = b"".join(bytes([frame >> 12]) * (4 * KIB) for frame in frames)
    for _ in range(3):  # what is remembered is no worse
        for start, size in ((0, 8), (0x1FFC, 8), (5, 3 * 4 * KIB), (0xFF8, 8), (0, 8 * 4 * KIB), (0x7FFF, 1)):
            assert guest.read(HIGH + start, size) == (0, content[start : start + size])


def test_a_read_ends_at_the_first_page_that_is_not_mapped_or_no_memory(guest: Guest) -> None:
    mapped(guest, 3)
    guest.tables.map(HIGH + 0x3000, 0x90000)  # no memory
    guest.tables.map(HIGH + 0x4000, PAGES)
    guest.write_tables()
    assert guest.read(HIGH + 0x2FF0, 0x20)[0] == NOT_MAPPED
    text = guest.lib.microvmi_last_error().decode()
    assert "virtual address 0xffff800000003000 is mapped to physical address 0x90000, which is no memory" in text
    assert "16 of 32 bytes before it" in text
    assert len(guest.read(HIGH + 0x2FF0, 0x20)[1]) == 16
    assert guest.read(HIGH + 0x2FF0, 0x1020, padded=True)[1] == b"\x1a" * 16 + bytes(0x1000) + b"\x10" * 16
    assert len(guest.read(HIGH + 0x1000, 0x4000)[1]) == 0x2000
    assert guest.read(HIGH + 0x5000, 8) == (NOT_MAPPED, b"")
    assert "the entry of level 1 at physical address" in guest.lib.microvmi_last_error().decode()
    padded = guest.read(HIGH + 0x2000, 0x4000, padded=True)
    assert padded == (0, b"\x1a" * 0x1000 + bytes(0x1000) + b"\x10" * 0x1000 + bytes(0x1000))


def test_nothing_goes_on_at_address_0(guest: Guest) -> None:
    guest.tables.map(0, PAGES)
    guest.tables.map((1 << 64) - 0x1000, PAGES + 0x1000)
    guest.write_tables()
    assert guest.read((1 << 64) - 8, 8) == (0, b"\x11" * 8)
    assert guest.read((1 << 64) - 8, 16) == (NOT_MAPPED, b"\x11" * 8)
    assert guest.read((1 << 64) - 0x1000, 0x3000) == (NOT_MAPPED, b"\x11" * 0x1000)
    assert "is none of that address space (4096 of 12288 bytes" in guest.lib.microvmi_last_error().decode()
    buffer = (c_uint8 * 16)()
    request = guest.stubs.microvmi_read_request(buffer=buffer, size=16)
    request.virtual_address = (1 << 64) - 8
    assert not guest.lib.microvmi_read_virtual_batch(guest.context, byref(guest.space), byref(request), 1)
    assert "is none of that address space (8 of 16 bytes" in guest.lib.microvmi_last_error().decode()
    assert guest.read((1 << 64) - 8, 16, padded=True) == (0, b"\x11" * 8 + bytes(8))


def test_a_write_goes_to_every_page_or_to_none(guest: Guest) -> None:
    frames = mapped(guest, 3)
    data = random.Random(1).randbytes(0x1800)
    assert guest.write(HIGH + 0xC00, data) == 0
    assert guest.read(HIGH + 0xC00, len(data)) == (0, data)
    assert guest.write(HIGH + 0x2FFC, b"12345678") == NOT_MAPPED
    assert guest.read(HIGH + 0x2FFC, 4) == (0, bytes([frames[2] >> 12]) * 4)
    guest.tables.map(HIGH + 0x3000, 0x90000)
    guest.write_tables()
    assert guest.write(HIGH + 0x2FFC, b"12345678") == NOT_MAPPED
    assert guest.read(HIGH + 0x2FFC, 4) == (0, bytes([frames[2] >> 12]) * 4)
    assert guest.write(HIGH, b"") == 0


def test_tables_that_are_written_count_at_once(guest: Guest) -> None:
    """Physically or through themselves, at every level; and a table that is freed and used for something else."""
    mapped(guest, 2)
    guest.tables.map(HIGH + 0x200000, guest.tables.base)
    guest.write_tables()
    for level in (1, 2, 3, 4):
        assert guest.read(HIGH + 8, 8) == (0, b"\x10" * 8)
        at = guest.tables.entry_address(HIGH, level)
        before = guest.memory[at : at + 8]
        guest.poke(at, bytes(8))
        assert guest.read(HIGH + 8, 8) == (NOT_MAPPED, b"")
        assert guest.translate(HIGH).level == level
        guest.poke(at, bytes(before))
    assert guest.read(HIGH + 8, 8) == (0, b"\x10" * 8)
    at = guest.tables.entry_address(HIGH, 4) - guest.tables.base
    assert guest.write(HIGH + 0x200000 + at, bytes(8)) == 0
    assert guest.read(HIGH + 8, 8) == (NOT_MAPPED, b"")


def test_an_entry_that_leads_elsewhere_is_followed(guest: Guest) -> None:
    mapped(guest, 1)
    at = guest.tables.entry_address(HIGH, 1)
    for number in (3, 9, 3):
        guest.poke(at, (number << 12 | 0x67).to_bytes(8, "little"))
        for _ in range(3):
            assert guest.read(HIGH + 0x123, 8) == (0, bytes([number]) * 8)


def test_a_batch_has_what_each_request_has_alone(guest: Guest) -> None:
    mapped(guest, 8)
    guest.tables.map(HIGH + 0x9000, 0x90000)
    guest.tables.map(HIGH + 0x40000000, PAGES + 0x4000)
    guest.write_tables()
    rng = random.Random(3)
    ranges = [(HIGH + rng.randrange(0xB000), rng.randrange(0x3000)) for _ in range(300)]
    ranges += [(0, 8), (1 << 63, 8), ((1 << 64) - 4, 8), (HIGH + 0x40000010, 8), (HIGH, 0)]
    requests = (guest.stubs.microvmi_read_request * len(ranges))()
    for request, (address, size) in zip(requests, ranges, strict=True):
        request.virtual_address, request.size = address, size
        request.buffer = (c_uint8 * size)(*b"\xee" * size) if size else None
        request.bytes_read, request.error = 77, 77
    whole = guest.lib.microvmi_read_virtual_batch(guest.context, byref(guest.space), requests, len(requests))
    first = next(request.error for request in requests if request.error)
    assert (whole, guest.lib.microvmi_last_error_code()) == (False, first)
    for request, (address, size) in zip(requests, ranges, strict=True):
        code, content = guest.read(address, size)
        assert (request.error, request.bytes_read) == (code, len(content)), hex(address)
        assert bytes(request.buffer[:size]) == content + b"\xee" * (size - len(content))
    assert guest.lib.microvmi_read_virtual_batch(guest.context, byref(guest.space), requests, 0)


@pytest.mark.parametrize("kind", ["mapped", "private"])
@pytest.mark.parametrize("mode", ["x86-32-pse", "x86-pae", "x86-5"])
def test_other_modes_are_read_on_every_way(
    lib: Any, stubs: ModuleType, opened: Open, start_machine: Callable[..., str], mode: str, kind: str
) -> None:
    guest = Guest(lib, stubs, opened(start_machine(*(["-fake", kind] if kind == "private" else []))), mode)
    guest.fill()
    base = 0xC0000000
    frames = mapped(guest, 5, base)
    content = b"".join(bytes([frame >> 12]) * (4 * KIB) for frame in frames)
    for paused in (False, True):
        if paused:
            assert lib.microvmi_pause(guest.context)
        for _ in range(3):
            for start, size in ((0x10, 8), (0xFF0, 0x20), (0, len(content)), (0x3FFC, 8)):
                assert guest.read(base + start, size) == (0, content[start : start + size])
        assert guest.read(base + 0x5000, 8) == (NOT_MAPPED, b"")


def test_what_others_write_to_tables_of_a_paused_machine_is_seen_after_a_flush(
    lib: Any, stubs: ModuleType, opened: Open, start_machine: Callable[..., str]
) -> None:
    """By another context, which stands for anybody; mapped memory is no kept page, so that nothing else hides it."""
    uri = start_machine()
    guest, other = Guest(lib, stubs, opened(uri)), Guest(lib, stubs, opened(uri))
    guest.fill()
    mapped(guest, 1)
    assert lib.microvmi_pause(guest.context)
    at = guest.tables.entry_address(HIGH, 1)
    forget: dict[str, Callable[[], Any]] = {
        "a flush": lambda: lib.microvmi_flush_translations(guest.context),
        "a write": lambda: lib.microvmi_write_physical(guest.context, 0, _array(b"0"), 1),
        "a resume": lambda: lib.microvmi_resume(guest.context) and lib.microvmi_pause(guest.context),
    }
    number = 0x10
    for name, call in forget.items():
        for _ in range(3):
            assert guest.read(HIGH, 8) == (0, bytes([number]) * 8)
        number += 1
        other.poke(at, (number << 12 | 0x67).to_bytes(8, "little"))
        assert guest.read(HIGH, 8) == (0, bytes([number - 1]) * 8), f"remembered until {name}"
        assert guest.translate(HIGH).physical_address == number << 12
        assert call()
        assert guest.read(HIGH, 8) == (0, bytes([number]) * 8), name


def test_a_flush_counts_in_every_thread(
    lib: Any, stubs: ModuleType, opened: Open, start_machine: Callable[..., str]
) -> None:
    guest = Guest(lib, stubs, opened(start_machine()))
    mapped(guest, 1)
    assert lib.microvmi_pause(guest.context)
    guest.poke(0x10000, b"A" * 8)
    guest.poke(0x11000, b"B" * 8)
    turns, found = threading.Barrier(2), []

    def reader() -> None:
        for _ in range(2):
            for _ in range(3):
                found.append(guest.read(HIGH, 8))
            turns.wait(10)
            turns.wait(10)

    thread = threading.Thread(target=reader)
    thread.start()
    turns.wait(10)
    guest.poke(guest.tables.entry_address(HIGH, 1), (0x11067).to_bytes(8, "little"))
    turns.wait(10)
    turns.wait(10)
    turns.wait(10)
    thread.join()
    assert found == [(0, b"A" * 8)] * 3 + [(0, b"B" * 8)] * 3


def test_many_spaces_and_many_contexts_do_not_get_mixed_up(
    lib: Any, stubs: ModuleType, opened: Open, tmp_path: Path
) -> None:
    """More spaces than a thread remembers, in two images, so that keys are given out again and again."""
    contexts = []
    for number in range(2):
        memory = bytearray(0x200000)
        spaces = []
        for index in range(12):
            tables = Tables(memory, "x86-4", 0x40000 + 0x10000 * index)
            tables.map(HIGH, (1 + index) << 12)
            memory[(1 + index) << 12 : ((1 + index) << 12) + 8] = bytes([number * 100 + index]) * 8
            spaces.append(tables.space)
        path = tmp_path / f"{number}.raw"
        path.write_bytes(memory)
        contexts.append((opened(f"vmi://dump/?path={path}&format=raw"), spaces))
    rng, buffer = random.Random(5), (c_uint8 * 8)()
    for _ in range(20_000):
        number, index = rng.randrange(2), rng.randrange(12)
        context, spaces = contexts[number]
        space = stubs.microvmi_address_space(struct_size=ctypes.sizeof(stubs.microvmi_address_space))
        space.paging, space.base = spaces[index].paging, spaces[index].base
        assert lib.microvmi_read_virtual(context, byref(space), HIGH, buffer, 8, None)
        assert bytes(buffer) == bytes([number * 100 + index]) * 8


def test_the_place_of_the_last_word_is_not_that_of_a_newer_space(guest: Guest) -> None:
    """A word is read again and again, while as many other spaces are translated as a thread remembers."""
    frames = mapped(guest, 12)
    others, end = [], guest.tables.end
    for number in range(10):
        others.append(Tables(guest.memory, "x86-4", end))
        others[-1].map(HIGH, (1 + number) << 12)
        end = others[-1].end
    guest.poke(TABLES, bytes(guest.memory[TABLES:end]))
    own = guest.space.base
    for count in range(11):
        guest.space.base = own
        for _ in range(2):
            assert guest.read(HIGH, 8) == (0, b"\x10" * 8)
        for number in range(count):
            guest.space.base = others[number].base
            assert guest.translate(HIGH).physical_address == (1 + number) << 12
        guest.space.base = own
        word = bytes([frames[1 + count] >> 12]) * 8
        assert guest.read(HIGH + 0x1000 * (1 + count), 8) == (0, word), f"after {count} others"


@pytest.mark.parametrize("padded", [False, True])
def test_behind_a_page_that_cannot_be_read_the_buffer_stays_as_it_is(
    lib: Any, stubs: ModuleType, opened: Open, tmp_path: Path, padded: bool
) -> None:
    """Of a file that was cut, by system calls: the page behind it in virtual memory is there."""
    path = tmp_path / "image.raw"
    guest = Guest(lib, stubs, 0)
    for index, frame in enumerate((PAGES, 0x70000, PAGES + 0x1000)):
        guest.tables.map(HIGH + index * 0x1000, frame)
    guest.memory[PAGES : PAGES + 0x2000] = b"\x10" * 0x2000
    path.write_bytes(guest.memory)
    guest.context = opened(f"vmi://dump/?path={path}&format=raw&mapped=no")
    assert guest.read(HIGH, 0x3000, padded=padded)[0] == 0
    os.truncate(path, 0x70000)
    assert guest.read(HIGH, 0x3000, padded=padded) == (stubs.MICROVMI_ERROR_IO, b"\x10" * 0x1000)


def test_a_dump_refuses_a_write(lib: Any, stubs: ModuleType, opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "image.raw"
    guest = Guest(lib, stubs, 0)
    guest.tables.map(HIGH, PAGES)
    path.write_bytes(guest.memory)
    guest.context = opened(f"vmi://dump/?path={path}&format=raw")
    assert guest.write(HIGH, b"12345678") == READ_ONLY
    assert guest.write(HIGH + 0x1000, b"12345678") == NOT_MAPPED


@pytest.mark.parametrize(("kept", "paused_calls"), [("", 0), ("&cache=0", 1)])
def test_words_take_one_system_call_and_scattered_pages_one_a_level(
    lib: Any,
    stubs: ModuleType,
    opened: Open,
    start_machine: Callable[..., str],
    programs: Programs,
    kept: str,
    paused_calls: int,
) -> None:
    """Of a machine in another process; running, and paused, where translations and pages are kept or nothing is."""
    uri = start_machine("-fake", "private")
    guest = Guest(lib, stubs, opened(uri))
    step = 0x1F000
    for index in range(257):
        guest.tables.map(HIGH + index * step, PAGES + (index * 7 % 48) * 4 * KIB)
    guest.write_tables()
    program = programs.foreign("system-calls", linked=True)
    programs.run(program, uri + kept, hex(guest.tables.base), hex(HIGH), hex(step), paused_calls)
