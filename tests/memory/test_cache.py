# SPDX-License-Identifier: Apache-2.0
"""Pages that are kept while this object keeps the machine paused, and when they are forgotten."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from libmicrovmi_py import InvalidArgumentError, Microvmi, NotMappedError
from libmicrovmi_py.drivers.base import Region, Source
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.memory.cache import PageCache
from libmicrovmi_py.memory.direct import DirectMemory
from libmicrovmi_py.memory.physical import PhysicalMemory
from libmicrovmi_py.model import PAGE_SIZE, MemoryKind
from libmicrovmi_py.transport.native import native
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import ProcessMemory


class Counting(FakeDriver):
    """Counts the trips to its hypervisor."""

    trips = 0

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        self.trips += 1
        super().read_frame(frame, offset, buffer)


def machine(cache: int = 1 << 20) -> tuple[Microvmi, Counting, bytearray]:
    content = bytearray(index % 251 for index in range(8 * PAGE_SIZE))
    driver = Counting({0: content})
    return Microvmi.from_driver(driver, cache=cache), driver, content


def test_a_running_machine_is_read_each_time() -> None:
    vm, driver, content = machine()
    assert vm.read_physical(16, 8) == content[16:24]
    content[16] ^= 1
    assert vm.read_physical(16, 8) == content[16:24]
    assert driver.trips == 2


def test_small_reads_of_a_paused_machine_take_one_trip_a_page() -> None:
    vm, driver, content = machine()
    vm.pause()
    for address in (0, 8, 4000, PAGE_SIZE - 1, PAGE_SIZE, 2 * PAGE_SIZE - 8, 0):
        assert vm.read_physical(address, 1) == content[address : address + 1]
    assert driver.trips == 2
    assert vm.read_physical(PAGE_SIZE, PAGE_SIZE) == content[PAGE_SIZE : 2 * PAGE_SIZE]
    assert driver.trips == 2


def test_small_reads_of_the_streams_take_one_trip_a_page_as_well() -> None:
    vm, driver, content = machine()
    vm.pause()
    for at in range(0, 2 * PAGE_SIZE, 64):
        assert vm.memory.read(64) == content[at : at + 64]
        assert vm.padded_memory.read(64) == content[at : at + 64]
    assert driver.trips == 2
    vm.resume()
    content[2 * PAGE_SIZE] ^= 1
    assert vm.memory.read(64) == content[2 * PAGE_SIZE :][:64]
    assert driver.trips == 3


@pytest.mark.parametrize("read", [Microvmi.read_physical_into, Microvmi.read_physical_padded_into])
def test_small_reads_over_the_end_of_a_page_and_padded_ones_keep_both_pages(
    read: Callable[[Microvmi, int, bytearray], object],
) -> None:
    vm, driver, content = machine()
    vm.pause()
    buffer = bytearray(64)
    for address in (PAGE_SIZE - 32, PAGE_SIZE - 8, PAGE_SIZE - 64, 0, 2 * PAGE_SIZE - 64):
        read(vm, address, buffer)
        assert buffer == content[address : address + 64]
    assert driver.trips == 2


def test_large_and_crossing_reads_are_right_and_go_past_the_cache() -> None:
    vm, _, content = machine()
    vm.pause()
    vm.read_physical(0, 1)
    assert vm.read_physical(PAGE_SIZE - 4, 8) == content[PAGE_SIZE - 4 : PAGE_SIZE + 4]
    assert vm.read_physical(0, 8 * PAGE_SIZE) == content
    buffer = bytearray(3 * PAGE_SIZE)
    assert vm.read_physical_into(7 * PAGE_SIZE, buffer) == PAGE_SIZE


def test_resume_and_close_forget() -> None:
    vm, driver, content = machine()
    vm.pause()
    vm.read_physical(0, 8)
    vm.resume()
    content[0] ^= 1
    assert vm.read_physical(0, 8) == content[:8]
    vm.pause()
    content[0] ^= 1
    assert vm.read_physical(0, 8) == content[:8]
    assert driver.trips == 3


def test_a_write_is_seen_at_once() -> None:
    vm, _, _ = machine()
    vm.pause()
    vm.read_physical(0, 2 * PAGE_SIZE)
    for address in (0, PAGE_SIZE - 2, PAGE_SIZE + 100):
        vm.read_physical(address, 1)
        vm.write_physical(address, b"fresh")
        assert vm.read_physical(address, 1) + vm.read_physical(address + 1, 4) == b"fresh"


def test_a_write_of_the_stream_is_seen_by_address() -> None:
    vm, _, content = machine()
    vm.pause()
    assert vm.read_physical(8, 5) == content[8:13]
    vm.memory.seek(8)
    vm.memory.write(b"fresh")
    assert vm.read_physical(8, 5) == b"fresh"
    vm.padded_memory.seek(8)
    assert vm.padded_memory.read(5) == b"fresh"


def test_a_hole_stays_a_hole() -> None:
    vm = Microvmi.from_driver(FakeDriver({0: bytearray(PAGE_SIZE), 2 * PAGE_SIZE: bytearray(PAGE_SIZE)}))
    vm.pause()
    for _ in range(2):
        with pytest.raises(NotMappedError):
            vm.read_physical(PAGE_SIZE, 8)
        assert vm.read_physical_into(PAGE_SIZE - 4, bytearray(8)) == 4


def test_it_is_bounded_and_can_be_turned_off() -> None:
    vm, driver, content = machine(cache=PAGE_SIZE)
    vm.pause()
    for address in [0, PAGE_SIZE, 0, PAGE_SIZE]:
        assert vm.read_physical(address, 1) == content[address : address + 1]
    assert driver.trips == 4
    vm, driver, _ = machine(cache=0)
    vm.pause()
    vm.read_physical(0, 1)
    vm.read_physical(0, 1)
    assert driver.trips == 2
    for size in (-1, (1 << 40) + 1, 1 << 63, 1 << 64):
        with pytest.raises(InvalidArgumentError, match=f"cache={size}"):
            Microvmi.open(f"vmi://fake/?cache={size}")
    with Microvmi.open(f"vmi://fake/?cache={1 << 40}") as vm:
        vm.pause()


def test_a_machine_that_was_stopped_already_is_not_ours_to_keep_pages_of() -> None:
    vm, driver, _ = machine()
    driver.running = False
    vm.pause()
    vm.read_physical(0, 1)
    vm.read_physical(0, 1)
    assert driver.trips == 2


@dataclass
class OneRegion:
    """A machine whose memory is a piece of a process."""

    source: Source
    start: int
    max_addr: int

    def regions(self) -> Sequence[Region]:
        return (Region(0, self.max_addr, MemoryKind.RAM, self.source, self.start),)


def test_the_memory_of_a_process_is_kept_in_c() -> None:
    process = Process.find(os.getpid())
    assert process is not None
    source = ProcessMemory(process)
    with mmap.mmap(-1, 4 * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        anchor = ctypes.c_char.from_buffer(area)
        memory = DirectMemory(OneRegion(source, ctypes.addressof(anchor), 3 * PAGE_SIZE + 100))
        cache = PageCache(1 << 16)
        memory.use_cache(cache)
        buffer = memoryview(bytearray(4))

        def read(address: int) -> bytes:
            assert memory.read_into(address, buffer) == 4
            return bytes(buffer)

        area[8:12] = b"old!"
        assert read(8) == b"old!"
        area[8:12] = b"new!"
        assert read(8) == b"old!", "not kept"
        memory.write_from(8, memoryview(b"mine"))
        assert read(8) == b"mine"
        area[8:12] = b"new!"
        memory.use_cache(None)
        assert read(8) == b"new!"
        area[3 * PAGE_SIZE : 3 * PAGE_SIZE + 4] = b"last"
        memory.use_cache(cache)
        assert read(3 * PAGE_SIZE) == b"last", "the last page is not whole"
        del anchor
    source.close()


def test_another_memory_map_has_other_pages() -> None:
    process = Process.find(os.getpid())
    assert process is not None
    source = ProcessMemory(process)
    with mmap.mmap(-1, 4 * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        anchor = ctypes.c_char.from_buffer(area)
        machine = OneRegion(source, ctypes.addressof(anchor), PAGE_SIZE)
        memory = DirectMemory(machine)
        memory.use_cache(PageCache(1 << 16))
        buffer = memoryview(bytearray(5))
        area[:5], area[PAGE_SIZE : PAGE_SIZE + 5] = b"first", b"other"
        assert memory.read_into(0, buffer) == 5
        area[:5] = b"moved"
        memory.read_into(0, buffer)
        assert bytes(buffer) == b"first", "not kept"
        machine.start += PAGE_SIZE
        memory.read_into(0, buffer)
        assert bytes(buffer) == b"other"
        del anchor
    source.close()


class Slow(Counting):
    """While it reads a frame for the first time, somebody writes there through the same object."""

    vm: Microvmi | None = None

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        super().read_frame(frame, offset, buffer)
        vm, self.vm = self.vm, None
        if vm is not None:
            vm.write_physical(0, b"written")


def test_what_is_written_while_it_is_fetched_is_not_kept_as_it_was() -> None:
    driver = Slow({0: bytearray(PAGE_SIZE)})
    vm = Microvmi.from_driver(driver)
    vm.pause()
    driver.vm = vm
    assert vm.read_physical(0, 7) == bytes(7)
    assert vm.read_physical(0, 7) == b"written"


def test_a_write_while_kept_pages_are_exchanged_reaches_those_that_are_still_read() -> None:
    content = bytearray(index % 251 for index in range(8 * PAGE_SIZE))
    memory = PhysicalMemory(FakeDriver({0: content}))
    memory.keep_pages(1 << 20)
    before = bytearray(8)
    assert memory.read_into(16, memoryview(before)) == 8  # kept from now on
    still_read = memory.table()
    assert still_read is not None
    found = bytearray(8)

    def write_and_look() -> None:
        memory.write_from(16, memoryview(b"changed!"))
        ffi, lib = native()
        target = ffi.from_buffer("uint8_t[]", found, require_writable=True)
        assert lib.mvi_frames_read(still_read.pointer, 16, target, 8) == 0  # not out of the pages of before

    memory.follow(write_and_look)
    memory.keep_pages(1 << 20)
    assert memory.read(16, 8) == b"changed!"
