# SPDX-License-Identifier: Apache-2.0
"""Errors in the middle of an access to regions, and what regions begin, end and share in odd places."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from programs import Programs

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import Driver, Region, Source
from libmicrovmi_py.errors import AccessError, IoError, NotMappedError, ReadOnlyError, VmGoneError
from libmicrovmi_py.memory.cache import PageCache
from libmicrovmi_py.memory.direct import DirectMemory
from libmicrovmi_py.model import PAGE_SIZE, MemoryKind
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.life import life_of
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.native import native
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import ProcessMemory
from libmicrovmi_py.transport.reach import Reach

CHUNK = 64 << 10
GONE = 3 * PAGE_SIZE
"""Where memory of the process ends that the regions below say goes on."""


class Told(Driver):
    """A driver of the regions that it is handed."""

    name = "told"

    def __init__(self, *regions: Region) -> None:
        self._regions = regions

    @classmethod
    def open(cls, params: Parameters) -> Driver:
        raise NotImplementedError

    @property
    def max_addr(self) -> int:
        return max(region.end for region in self._regions)

    def regions(self) -> Sequence[Region]:
        return self._regions

    def close(self) -> None:
        pass


def ram(start: int, size: int, source: Source, offset: int = 0) -> Region:
    return Region(start, size, MemoryKind.RAM, source, offset)


def this_process() -> ProcessMemory:
    process = Process.find(os.getpid())
    assert process is not None
    return ProcessMemory(process)


def address_of(area: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


def pages(count: int) -> mmap.mmap:
    area = mmap.mmap(-1, count * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area[:] = b"".join(bytes([number + 1]) * PAGE_SIZE for number in range(count))
    return area


def numbered(path: Path) -> Path:
    path.write_bytes(b"".join(bytes([number + 1]) * PAGE_SIZE for number in range(16)))
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Microvmi]:
    """A machine of 16 pages of this process, of which those from ``GONE`` on are not there: their file was cut."""
    path = numbered(tmp_path / "memory")
    with path.open("r+b") as file:
        area = mmap.mmap(file.fileno(), 16 * PAGE_SIZE)
    os.truncate(path, GONE)
    with Microvmi.from_driver(Told(ram(0, 16 * PAGE_SIZE, this_process(), address_of(area)))) as machine:
        yield machine


@pytest.fixture
def shorter(tmp_path: Path) -> Iterator[Microvmi]:
    """The same of a file that is read, not mapped, and was cut there."""
    path = numbered(tmp_path / "ram")
    source = HostMapping.of_file(str(path), writable=True, mapped=False)
    with Microvmi.from_driver(Told(ram(0, 16 * PAGE_SIZE, source))) as machine:
        os.truncate(path, GONE)
        yield machine


@pytest.fixture(params=["broken", "shorter"])
def machine(request: pytest.FixtureRequest) -> Microvmi:
    found: Microvmi = request.getfixturevalue(request.param)
    return found


def check(caught: pytest.ExceptionInfo[AccessError], address: int, size: int, done: int) -> None:
    error = caught.value
    assert (type(error), error.address, error.requested, error.completed) == (IoError, address + done, size, done)


@pytest.mark.parametrize("start", [0, PAGE_SIZE + 100, GONE - 1, GONE, GONE + 8])
@pytest.mark.parametrize("size", [2 * PAGE_SIZE + 16, 8 * PAGE_SIZE])
def test_a_read_counts_what_came_before_the_error(machine: Microvmi, start: int, size: int) -> None:
    done = min(max(GONE - start, 0), size)
    if done == size:
        return
    buffer = bytearray(b"\xee") * size
    with pytest.raises(IoError) as caught:
        machine.read_physical_into(start, buffer)
    check(caught, start, size, done)
    assert buffer[:done] == bytes(address // PAGE_SIZE + 1 for address in range(start, start + done))
    with pytest.raises(IoError) as caught:
        machine.read_physical_padded_into(start, buffer)
    check(caught, start, size, done)
    (result,) = machine.read_physical_batch([(start, buffer)])
    assert result.done == done
    assert isinstance(result.error, IoError)
    assert result.error.completed == done


def test_both_streams_move_by_what_came_before_the_error(machine: Microvmi) -> None:
    for stream in (machine.memory, machine.padded_memory):
        stream.seek(PAGE_SIZE)
        with pytest.raises(IoError) as caught:
            stream.readinto(bytearray(8 * PAGE_SIZE))
        check(caught, PAGE_SIZE, 8 * PAGE_SIZE, GONE - PAGE_SIZE)
        assert stream.tell() == GONE
        with pytest.raises(IoError) as caught:
            stream.readinto(bytearray(8))
        check(caught, GONE, 8, 0)
        assert stream.tell() == GONE


def test_a_batch_goes_on_behind_the_error(machine: Microvmi) -> None:
    requests = [(address, bytearray(64)) for address in (0, GONE - 32, 100, GONE + 5, PAGE_SIZE)]
    results = machine.read_physical_batch(requests)
    assert [result.done for result in results] == [64, 32, 64, 0, 64]
    assert [result.error is None for result in results] == [True, False, True, False, True]


def test_a_write_counts_what_came_before_the_error(broken: Microvmi) -> None:
    with pytest.raises(IoError) as caught:
        broken.write_physical(GONE - 16, b"\x77" * 64)
    check(caught, GONE - 16, 64, 16)
    broken.memory.seek(GONE - 8)
    with pytest.raises(IoError) as caught:
        broken.memory.write(b"\x66" * 64)
    check(caught, GONE - 8, 64, 8)
    assert broken.memory.tell() == GONE
    assert broken.read_physical(GONE - 16, 16) == b"\x77" * 8 + b"\x66" * 8


# ------------------------------------------------------------------------------------------- two regions, two sources


def two_files(directory: Path, *, mapped: bool) -> Told:
    sources = []
    for name in ("low", "high"):
        (directory / name).write_bytes(name[:1].encode() * 2 * PAGE_SIZE)
        sources.append(HostMapping.of_file(str(directory / name), writable=True, mapped=mapped))
    return Told(ram(0, 2 * PAGE_SIZE, sources[0]), ram(2 * PAGE_SIZE, 2 * PAGE_SIZE, sources[1]))


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("first", [None, 0, 2 * PAGE_SIZE], ids=["neither", "low", "high"])
def test_a_write_across_two_regions_opens_both(tmp_path: Path, mapped: bool, first: int | None) -> None:
    driver = two_files(tmp_path, mapped=mapped)
    with Microvmi.from_driver(driver) as machine:
        if first is not None:
            machine.write_physical(first, b"\x01")
        machine.write_physical(2 * PAGE_SIZE - 8, b"\x02" * 16)
        assert machine.read_physical(2 * PAGE_SIZE - 9, 18) == b"l" + b"\x02" * 16 + b"h"


def test_a_write_across_the_end_of_the_writable_changes_nothing(tmp_path: Path) -> None:
    driver = two_files(tmp_path, mapped=True)
    driver._regions = (driver._regions[0], replace(driver._regions[1], kind=MemoryKind.ROM))
    with Microvmi.from_driver(driver) as machine:
        machine.write_physical(0, b"\x01")
        with pytest.raises(ReadOnlyError) as caught:
            machine.write_physical(2 * PAGE_SIZE - 8, b"\x02" * 16)
        assert caught.value.address == 2 * PAGE_SIZE
        assert machine.read_physical(2 * PAGE_SIZE - 8, 16) == b"l" * 8 + b"h" * 8


# ------------------------------------------------------------------------------------------------ the middle of a file


@pytest.fixture
def middle(tmp_path: Path) -> Microvmi:
    """A machine whose memory is the middle of a file that has data, holes and data around it."""
    path = tmp_path / "ram"
    with path.open("wb") as file:
        for part in range(8):  # chunks 0, 2, 4 and 6 have data
            file.seek(part * CHUNK)
            if part % 2 == 0:
                file.write(bytes([part + 1]) * CHUNK)
        file.truncate(9 * CHUNK)
        file.flush()
        os.fsync(file.fileno())
    source = HostMapping.of_file(str(path), 2 * CHUNK, 3 * CHUNK)
    return Microvmi.from_driver(Told(ram(CHUNK, 3 * CHUNK, source)))


def test_data_and_holes_end_with_the_region(middle: Microvmi) -> None:
    with middle as machine:
        seek = machine.memory.seek
        found = [(seek(at, os.SEEK_DATA), seek(at, os.SEEK_HOLE)) for at in range(0, 4 * CHUNK, CHUNK)]
        assert found == [(CHUNK, 0), (CHUNK, 2 * CHUNK), (3 * CHUNK, 2 * CHUNK), (3 * CHUNK, 4 * CHUNK)]


def test_the_next_region_is_searched_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    with path.open("wb") as file:
        file.write(b"\x01" * CHUNK)  # data, a hole, data
        file.seek(2 * CHUNK)
        file.write(b"\x02" * CHUNK)
    source, half = HostMapping.of_file(str(path)), CHUNK // 2
    data, hole = ram(0, half, source, 0), ram(0, half, source, CHUNK)
    with Microvmi.from_driver(Told(hole, ram(half, half, source, 2 * CHUNK))) as machine:
        assert machine.memory.seek(0, os.SEEK_DATA) == half
    with Microvmi.from_driver(Told(data, ram(half, half, source, CHUNK))) as machine:
        assert machine.memory.seek(0, os.SEEK_HOLE) == half


def test_reads_keep_to_the_part_that_is_the_machine_s(middle: Microvmi) -> None:
    with middle as machine:
        expected = bytes(CHUNK) + b"\x03" * CHUNK + bytes(CHUNK) + b"\x05" * CHUNK + bytes(CHUNK)
        buffer = bytearray(5 * CHUNK)
        machine.read_physical_padded_into(0, buffer)
        assert buffer == expected
        assert machine.read_physical(CHUNK + 5, 16) == b"\x03" * 16
        assert machine.read_physical(2 * CHUNK - 4, 8) == b"\x03" * 4 + bytes(4)
        with pytest.raises(NotMappedError):
            machine.read_physical(4 * CHUNK - 4, 8)


# ------------------------------------------------------------------------------------------------ kept pages


def test_a_kept_page_has_nothing_from_before_its_region() -> None:
    area = pages(4)
    driver = Told(ram(PAGE_SIZE + 256, PAGE_SIZE, this_process(), address_of(area) + 256))
    memory = DirectMemory(driver)
    memory.use_cache(PageCache(1 << 20))
    start, end = PAGE_SIZE + 256, 2 * PAGE_SIZE + 256
    for _ in range(2):
        buffer = bytearray(16)
        assert memory.read_into(start, memoryview(buffer)) == 16
        memory.read_padded_into(start - 8, memoryview(buffer))
        assert buffer == bytes(8) + b"\x01" * 8
        assert memory.read_into(start - 8, memoryview(buffer)) == 0
        assert memory.read_into(end - 8, memoryview(buffer)) == 8
        assert memory.read_into(end, memoryview(buffer)) == 0


ODD = """
import ctypes, mmap, os
from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import ProcessMemory

class Odd(Driver):
    name = "odd"
    static = True
    automatic = False
    max_addr = 0x4000
    def __init__(self):
        self.area = mmap.mmap(-1, 0x4000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.area[:] = bytes([0x11]) * 0x4000
        host = ctypes.addressof(ctypes.c_char.from_buffer(self.area)) + 0x100
        self._regions = (Region(0x1100, 0x1000, MemoryKind.RAM, ProcessMemory(Process.find(os.getpid())), host),)
    @classmethod
    def open(cls, params): return cls()
    def regions(self): return self._regions
    def close(self): pass

DRIVER = Odd
"""


def test_nor_has_it_for_c(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    programs.run(programs.linked("odd-page"), env={"MICROVMI_PLUGIN_PATH": str(tmp_path)})


def test_python_streams_forget_kept_pages_with_everybody_else() -> None:
    area = pages(2)
    driver = Told(ram(0, 2 * PAGE_SIZE, this_process(), address_of(area)))
    with Microvmi.from_driver(driver) as machine:
        machine.physical.keep_pages(1 << 20)
        assert machine.memory.read(8) == b"\x01" * 8
        area[:8] = b"\x55" * 8
        machine.memory.seek(0)
        assert machine.memory.read(8) == b"\x01" * 8
        machine.physical.keep_pages(0)
        for stream in (machine.memory, machine.padded_memory):
            stream.seek(0)
            assert stream.read(8) == b"\x55" * 8


def test_a_cache_is_given_back() -> None:
    def address_space() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE

    PageCache(16 << 20)
    before = address_space()
    for _ in range(50):
        PageCache(16 << 20)
    assert address_space() - before < 100 << 20


# ------------------------------------------------------------------------------------------------ pages never touched


def test_pages_beyond_those_that_were_asked_about_are_not_taken_for_untouched() -> None:
    """64 pages are asked about at once: from the middle of a chunk on that ends in the middle of another one."""
    area = mmap.mmap(-1, 10 * CHUNK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    last = 79 * PAGE_SIZE
    area[last : last + 8] = b"\x11" * 8
    direct = DirectMemory(Told(ram(0, 10 * CHUNK, this_process().anonymous(), address_of(area))))
    for first in (8, 9, 15):
        start = first * PAGE_SIZE
        buffer = bytearray(b"\xee") * (9 * CHUNK)
        assert direct.read_into(start, memoryview(buffer)) == len(buffer)
        assert buffer == area[start : start + len(buffer)]
        direct = DirectMemory(Told(ram(0, 10 * CHUNK, this_process().anonymous(), address_of(area))))


# ------------------------------------------------------------------------------------------------ ended processes


class Reused:
    """An ended process whose number another one has by now: this one, at an address that both have."""

    def __init__(self, host: int) -> None:
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
            process = Process.find(child.pid)
            assert process is not None
            memory = OwnedFd.open(process.path("mem"), os.O_RDWR)
            life = life_of(process)
            os.kill(child.pid, signal.SIGKILL)
        self._reach = Reach(fd=memory, writer=memory, pid=os.getpid(), pidfd=life.pidfd)
        self.host = host

    def reach(self) -> Reach:
        return self._reach

    def open_for_writing(self) -> None:
        pass

    def without_pidfd(self) -> Reused:
        self._reach = replace(self._reach, pidfd=None)
        return self


@pytest.fixture
def reused() -> Iterator[Reused]:
    area = pages(64)
    yield Reused(address_of(area))
    assert area[0] == 1


Read = Callable[[Microvmi], object]
READS: dict[str, Read] = {
    "a word": lambda machine: machine.read_physical(0, 8),
    "a page": lambda machine: machine.read_physical(PAGE_SIZE, PAGE_SIZE),
    "64 KiB": lambda machine: machine.read_physical(0, CHUNK),
    "padded": lambda machine: machine.read_physical_padded_into(0, bytearray(2 * CHUNK)),
    "stream": lambda machine: machine.memory.read(CHUNK),
    "padded stream": lambda machine: machine.padded_memory.read(CHUNK),
    "write": lambda machine: machine.write_physical(0, b"\x99" * 16),
    "stream write": lambda machine: machine.memory.write(b"\x99" * 16),
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("kept", [0, 1 << 20])
@pytest.mark.parametrize("pidfd", [True, False])
def test_another_process_of_the_same_number_is_neither_read_nor_written(
    reused: Reused, name: str, kept: int, pidfd: bool
) -> None:
    source = reused if pidfd else reused.without_pidfd()
    with Microvmi.from_driver(Told(ram(0, 64 * PAGE_SIZE, source, reused.host))) as machine:
        machine.physical.keep_pages(kept)
        with pytest.raises(VmGoneError) as caught:
            READS[name](machine)
        assert caught.value.completed == 0


@pytest.mark.parametrize("pidfd", [True, False])
def test_a_batch_neither(reused: Reused, pidfd: bool) -> None:
    source = reused if pidfd else reused.without_pidfd()
    with Microvmi.from_driver(Told(ram(0, 64 * PAGE_SIZE, source, reused.host))) as machine:
        results = machine.read_physical_batch([(number * 8, bytearray(8)) for number in range(20)])
        assert {type(result.error) for result in results} == {VmGoneError}
        assert {result.done for result in results} == {0}


def test_the_end_of_one_process_says_nothing_of_another(reused: Reused) -> None:
    """The last look counts for the process that was looked at only."""
    area = pages(4)
    machines = [
        Microvmi.from_driver(Told(ram(0, 4 * PAGE_SIZE, this_process(), address_of(area)))),
        Microvmi.from_driver(Told(ram(0, 64 * PAGE_SIZE, reused, reused.host))),
    ]
    for _ in range(100):
        assert machines[0].read_physical(0, 8) == b"\x01" * 8
        with pytest.raises(VmGoneError):
            machines[1].read_physical(0, CHUNK)


# ------------------------------------------------------------------------------------------------ sizes around a chunk


@pytest.mark.parametrize("chunks", [1, 8, 24, 40])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_files_of_any_size_around_chunks(tmp_path: Path, chunks: int, more: int) -> None:
    path = tmp_path / "image"
    size = chunks * CHUNK + more
    path.write_bytes(b"\x33" * size)
    for _ in range(3):
        with Microvmi.open(str(path)) as machine:
            assert machine.read_physical(size - 8, 8) == b"\x33" * 8
            assert machine.memory.read() == b"\x33" * size
            assert machine.memory.seek(0, os.SEEK_HOLE) == size


def test_c_s_tables_are_freed_with_python_s() -> None:
    ffi, lib = native()
    row = ffi.new("struct mvi_region[1]")
    row[0].size, row[0].fd, row[0].pidfd, row[0].pagemap_fd = 1, -1, -1, -1
    for _ in range(100):
        lib.mvi_table_free(lib.mvi_table_new(row, 1, 1, ffi.NULL, False, ffi.NULL))
    lib.mvi_table_free(ffi.NULL)
