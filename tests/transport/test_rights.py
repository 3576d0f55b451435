# SPDX-License-Identifier: Apache-2.0
"""A root reader beside other users: it reads and writes what the process that it looks into could, and nothing else."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from transport.other_user import mapping, need_root, run_as_nobody

from libmicrovmi_py.drivers.base import Region
from libmicrovmi_py.drivers.qemu.flatview import Extent
from libmicrovmi_py.drivers.qemu.memory import HostMemory
from libmicrovmi_py.errors import IoError, ReadOnlyError, VmGoneError
from libmicrovmi_py.memory.direct import DirectMemory
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.transport.backing import open_backings
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.processes import Process, Vma
from libmicrovmi_py.transport.procmem import Anonymous, ProcessMemory, ReadOnlyMemory

PAGE = mmap.PAGESIZE
READ, BOTH = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE


class Guest:
    """A machine of which all memory lies at one address of a process."""

    def __init__(self, process: Process, address: int, size: int) -> None:
        self.max_addr = size
        self._memory = HostMemory(process)
        extent = Extent(0, size, MemoryKind.RAM, "ram", 0, address)
        self._regions = self._memory.regions([extent], filled=True)

    def regions(self) -> tuple[Region, ...]:
        return self._regions

    def read(self, address: int, size: int) -> bytes:
        content = bytearray(size)
        assert DirectMemory(self).read_into(address, memoryview(content)) == size
        return bytes(content)

    def write(self, address: int, data: bytes) -> None:
        DirectMemory(self).write_from(address, memoryview(data))


@pytest.fixture
def this() -> Process:
    process = Process.find(os.getpid())
    assert process is not None
    return process


@pytest.fixture
def image() -> Iterator[Path]:
    """A file of root's that everybody may read, in a folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "image"
        path.write_bytes(b"".join(bytes([number]) * PAGE for number in range(1, 65)))
        yield path


def address_of(area: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


def vma_at(process: Process, address: int) -> Vma:
    return next(vma for vma in process.mappings() if vma.start <= address < vma.end)


# ---------------------------------------------------------------------------------------- files of another's process


@pytest.mark.parametrize("sharing", [mmap.MAP_SHARED, mmap.MAP_PRIVATE], ids=["shared", "private"])
def test_a_file_that_a_process_may_only_read_is_not_written_for_it(image: Path, sharing: int) -> None:
    before = image.read_bytes()
    with mapping(image, os.O_RDONLY, READ, sharing, 4 * PAGE) as (process, address):
        guest = Guest(process, address, 4 * PAGE)
        assert guest.read(PAGE - 1, 2) == b"\1\2"
        with pytest.raises(ReadOnlyError):
            guest.write(8, b"written")
        assert guest.read(8, 7) == b"\1" * 7
    assert image.read_bytes() == before


def test_a_file_that_a_process_may_write_but_has_mapped_for_reading_is_not_written(image: Path) -> None:
    image.chmod(0o666)
    with mapping(image, os.O_RDWR, READ, mmap.MAP_SHARED, PAGE) as (process, address), pytest.raises(ReadOnlyError):
        Guest(process, address, PAGE).write(0, b"x")
    assert image.read_bytes()[:1] == b"\1"


def test_a_file_that_a_process_has_mapped_for_writing_is_mapped_and_written(image: Path) -> None:
    image.chmod(0o666)
    with mapping(image, os.O_RDWR, BOTH, mmap.MAP_SHARED, 2 * PAGE) as (process, address):
        guest = Guest(process, address, 2 * PAGE)
        assert type(guest.regions()[0].source) is HostMapping
        guest.write(PAGE, b"written")
    assert image.read_bytes()[PAGE : PAGE + 7] == b"written"


def test_memory_of_which_a_part_is_read_only_is_not_written(image: Path, this: Process) -> None:
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 4 * PAGE) as area:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(address_of(area) + PAGE), ctypes.c_size_t(PAGE), READ) == 0
        guest = Guest(this, address_of(area), 4 * PAGE)
        with pytest.raises(ReadOnlyError):
            guest.write(PAGE, b"x")
    assert image.read_bytes()[PAGE : PAGE + 1] == b"\2"


def test_a_descriptor_of_another_file_of_that_name_is_not_taken(this: Process, image: Path, tmp_path: Path) -> None:
    """It may be one that its process can name but not read (``O_PATH``)."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(PAGE))
    held = os.open(secret, os.O_PATH)
    with image.open("r+b") as file, mmap.mmap(file.fileno(), PAGE) as area:
        vma = replace(vma_at(this, address_of(area)), path=str(secret), edges=[0])
        assert open_backings(this, [vma]) == {}
    os.close(held)


def test_a_file_that_is_not_mapped_any_more_is_not_taken(this: Process, image: Path) -> None:
    """Between the list of mappings and the opening, the number of its inode may have become another file's."""
    with image.open("r+b") as file:
        area = mmap.mmap(file.fileno(), PAGE)
        vma = vma_at(this, address_of(area))
        assert list(open_backings(this, [vma])) == [vma]
        area.close()
        assert open_backings(this, [vma]) == {}


def test_without_privileges_files_of_one_name_are_told_apart() -> None:
    program = """
import ctypes, mmap
from libmicrovmi_py.transport.backing import open_backings
from libmicrovmi_py.transport.processes import Process
become_nobody()
areas = []
for fill in (b"1", b"2"):
    fd = os.memfd_create("ram")
    os.truncate(fd, 4096)
    areas.append((fill, mmap.mmap(fd, 4096)))
    areas[-1][1][:1] = fill
process = Process.find(os.getpid())
for fill, area in areas:
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    vma = next(vma for vma in process.mappings() if vma.start <= address < vma.end)
    found = open_backings(process, [vma])[vma]
    print(os.pread(found.number, 1, 0) == fill)
"""
    assert run_as_nobody(program).split() == ["True", "True"]


# ------------------------------------------------------------------------------------------- what a mapping tells us


def test_untouched_pages_of_a_private_file_mapping_are_those_of_the_file(image: Path, this: Process) -> None:
    with image.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as area:
        guest = Guest(this, address_of(area), 64 * PAGE)
        assert type(guest.regions()[0].source) is not Anonymous
        assert guest.read(0, 64 * PAGE) == image.read_bytes()


def test_mappings_of_a_file_that_do_not_follow_in_it_are_two(image: Path, this: Process) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 2 * PAGE) as area:
        start = address_of(area)
        fixed = mmap.MAP_SHARED | 0x10
        for page, offset in ((0, 5 * PAGE), (1, 3 * PAGE)):
            place = ctypes.c_void_p(start + page * PAGE)
            moved = libc.mmap(place, ctypes.c_size_t(PAGE), BOTH, fixed, file.fileno(), ctypes.c_long(offset))
            assert moved == start + page * PAGE
        assert Guest(this, start, 2 * PAGE).read(PAGE - 1, 2) == b"\6\4"


def test_memory_that_the_process_does_not_have_is_an_error(this: Process) -> None:
    with mmap.mmap(-1, 2 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        last = vma_at(this, address_of(area)).end
        for address, size in ((last - PAGE, 1 << 40), (0, PAGE), (1 << 60, PAGE)):
            with pytest.raises(IoError, match="changed while it was read"):
                Guest(this, address, size)


def test_memory_that_is_mapped_read_only_is_not_forced(this: Process) -> None:
    address = next(vma.start for vma in this.mappings() if not vma.writable and not vma.shared and vma.inode)
    guest = Guest(this, address, PAGE)
    assert type(guest.regions()[0].source) is ReadOnlyMemory
    before = guest.read(0, 16)
    with pytest.raises(ReadOnlyError, match="read-only"):
        guest.write(0, b"x")
    assert guest.read(0, 16) == before


def test_private_memory_beside_a_page_that_nobody_may_touch_is_written(this: Process) -> None:
    """QEMU has such guards at both ends of its RAM."""
    with mmap.mmap(-1, 3 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        libc, start = ctypes.CDLL(None), address_of(area)
        for page in (0, 2):
            assert libc.mprotect(ctypes.c_void_p(start + page * PAGE), ctypes.c_size_t(PAGE), 0) == 0
        guest = Guest(this, start + PAGE, PAGE)
        assert type(guest.regions()[0].source) is Anonymous
        guest.write(8, b"written")
        assert area[PAGE + 8 : PAGE + 15] == b"written"
        libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(3 * PAGE), BOTH)


def test_a_mapped_file_with_a_line_end_in_its_name_breaks_no_list_of_mappings(tmp_path: Path, this: Process) -> None:
    path = tmp_path / "with\rand\nin it"
    path.write_bytes(bytes(PAGE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        assert len([vma for vma in this.mappings() if vma.inode == path.stat().st_ino]) == 1


# ------------------------------------------------------------------------------------------------ reused process ids

_REUSE = """
import os, subprocess, sys, time
from libmicrovmi_py.errors import VmGoneError
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import ProcessMemory

def sleeper(): return subprocess.Popen(["sleep", "60"])
first = sleeper()
process = Process.find(first.pid)
memory = ProcessMemory(process)
first.kill(); first.wait()
time.sleep(0.1)  # the kernel tells starts apart by hundredths of a second
for _ in range(100):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file: file.write(str(first.pid - 1))
    second = sleeper()
    if second.pid == first.pid: break
    second.kill(); second.wait()
print(second.pid == first.pid, Process.find(first.pid) == process, process.alive)
try: ProcessMemory(process); print("opened")
except VmGoneError: print("gone")
print(os.pread(memory.reach().fd.number, 1, 4096) == b"")
second.kill(); second.wait()
"""


def test_a_process_that_got_the_id_of_one_that_ended_is_not_taken_for_it() -> None:
    need_root()
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", _REUSE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "False", "False", "gone", "True"], done.stderr


def test_memory_of_a_process_that_is_another_by_now_is_not_opened(this: Process) -> None:
    with pytest.raises(VmGoneError):
        ProcessMemory(Process(this.pid, this.start_time - 1))
