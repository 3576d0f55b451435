# SPDX-License-Identifier: Apache-2.0
"""Processes, their memory, and files mapped into this one: on real processes and files."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py.drivers.base import Region, Source
from libmicrovmi_py.errors import (
    InvalidContextError,
    IoError,
    ReadOnlyError,
    VmGoneError,
)
from libmicrovmi_py.memory.direct import DirectMemory
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.transport.backing import open_backings
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import ProcessMemory

PAGE = mmap.PAGESIZE


def this_process() -> Process:
    process = Process.find(os.getpid())
    assert process is not None
    return process


def address_of(area: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


@dataclass
class OneRegion:
    """A machine whose address N is byte N of a source."""

    source: Source
    max_addr: int

    def regions(self) -> Sequence[Region]:
        return (Region(0, self.max_addr, MemoryKind.RAM, self.source, 0),)


def memory_of(source: HostMapping | ProcessMemory) -> DirectMemory:
    return DirectMemory(OneRegion(source, source.size if isinstance(source, HostMapping) else 1 << 47))


def read(source: HostMapping | ProcessMemory, offset: int, size: int) -> bytes:
    content = bytearray(size)
    assert memory_of(source).read_into(offset, memoryview(content)) == size
    return bytes(content)


def write(source: HostMapping | ProcessMemory, offset: int, data: bytes) -> None:
    memory_of(source).write_from(offset, memoryview(data))


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
            time.sleep(0.001)  # the program is there a moment before its command line
        yield process
        process.kill()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(b"".join(bytes([number]) * PAGE for number in range(4)))
    return path


# -------------------------------------------------------------------------------------------------------- processes


def test_a_process_is_described(child: subprocess.Popen[bytes]) -> None:
    process = Process.find(child.pid)
    assert process is not None
    assert process in list(Process.all())
    assert process.alive
    assert not process.stopped
    assert process.argv() == ["sleep", "60"]
    assert process.executable() in ("sleep", "busybox", "coreutils")
    assert process.variable("PATH") == os.environ["PATH"]
    assert process.variable("NO_SUCH_VARIABLE") == ""


def test_a_stopped_process_is_told(child: subprocess.Popen[bytes]) -> None:
    process = Process.find(child.pid)
    assert process is not None
    os.kill(child.pid, 19)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    assert process.stopped
    assert process.alive


def test_a_zombie_is_gone(child: subprocess.Popen[bytes]) -> None:
    process = Process.find(child.pid)
    assert process is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.alive
    assert Process.find(child.pid) is None
    assert process.argv() == []


def test_another_process_with_the_same_id_is_not_the_same() -> None:
    process = this_process()
    assert not Process(process.pid, process.start_time - 1).alive


def test_mappings_that_continue_each_other_are_one(image: Path) -> None:
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 4 * PAGE) as area:
        start = address_of(area)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(start + PAGE), ctypes.c_size_t(PAGE), 1) == 0
        found = [vma for vma in this_process().mappings() if vma.path == str(image)]
        assert [(vma.start, vma.end, vma.offset) for vma in found] == [(start, start + 4 * PAGE, 0)]
        assert found[0].is_shared_file
        assert found[0].inode == image.stat().st_ino


def test_pages_that_nobody_may_touch_do_not_make_those_in_front_of_them_read_only() -> None:
    with mmap.mmap(-1, 4 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        start = address_of(area)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(start + 2 * PAGE), ctypes.c_size_t(2 * PAGE), 0) == 0
        (found,) = (vma for vma in this_process().mappings() if vma.start <= start < vma.end)
        assert (found.end, found.writable) == (start + 2 * PAGE, True)


# --------------------------------------------------------------------------------------------------- process memory


def test_a_page_that_guards_memory_does_not_make_it_read_only() -> None:
    area = mmap.mmap(-1, 5 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None, use_errno=True)
    for guard in (address, address + 4 * PAGE):
        assert libc.mprotect(ctypes.c_void_p(guard), PAGE, 0) == 0
    vma = next(vma for vma in this_process().mappings() if vma.start == address + PAGE)
    assert (vma.end, vma.writable) == (address + 4 * PAGE, True)
    for guard in (address, address + 4 * PAGE):
        assert libc.mprotect(ctypes.c_void_p(guard), PAGE, mmap.PROT_READ | mmap.PROT_WRITE) == 0


def test_process_memory_reads_and_writes_at_addresses() -> None:
    memory = ProcessMemory(this_process())
    with mmap.mmap(-1, 2 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[PAGE - 3 : PAGE + 3] = b"abcdef"
        assert read(memory, address_of(area) + PAGE - 3, 6) == b"abcdef"
        write(memory, address_of(area), b"written")
        assert area[:7] == b"written"
    assert memory.pid == os.getpid()
    memory.close()


def test_a_hole_ends_a_read_and_tells_the_valid_prefix() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    area = mmap.mmap(-1, 2 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = address_of(area)
    area[:] = b"x" * 2 * PAGE
    memory = ProcessMemory(this_process())
    assert libc.munmap(ctypes.c_void_p(start + PAGE), ctypes.c_size_t(PAGE)) == 0
    content = bytearray(b"-" * 2 * PAGE)
    with pytest.raises(IoError) as caught:
        memory_of(memory).read_into(start + PAGE // 2, memoryview(content)[:PAGE])
    assert (caught.value.completed, caught.value.requested) == (PAGE // 2, PAGE)
    assert content == b"x" * (PAGE // 2) + b"-" * (PAGE + PAGE // 2)
    with pytest.raises(IoError):
        write(memory, start + PAGE, b"y")
    restored = libc.mmap
    restored.restype = ctypes.c_void_p
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10
    assert restored(ctypes.c_void_p(start + PAGE), ctypes.c_size_t(PAGE), 3, flags, -1, 0) == start + PAGE


def test_memory_of_a_process_that_ended_is_gone(child: subprocess.Popen[bytes]) -> None:
    process = Process.find(child.pid)
    assert process is not None
    start = process.mappings()[0].start
    memory = ProcessMemory(process)
    assert len(read(memory, start, 16)) == 16
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(VmGoneError):
        read(memory, start, 16)
    with pytest.raises(VmGoneError):
        write(memory, start, b"x")
    with pytest.raises(VmGoneError):
        ProcessMemory(process)


def test_closed_process_memory_is_an_error() -> None:
    memory = ProcessMemory(this_process())
    memory.close()
    memory.close()
    with pytest.raises(InvalidContextError):
        read(memory, 0, 1)
    with pytest.raises(InvalidContextError):
        write(memory, 0, b"x")


def test_a_process_of_another_user_says_what_is_needed() -> None:
    if os.getuid() != 0:
        missing("becomes another user; to enable: run as root")
    program = (
        "import os, sys\n"
        "from libmicrovmi_py.errors import PermissionDeniedError\n"
        "from libmicrovmi_py.transport.processes import Process\n"
        "from libmicrovmi_py.transport.procmem import ProcessMemory\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "try:\n    ProcessMemory(Process.find(os.getppid()))\n"
        "except PermissionDeniedError as err:\n    print(err)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "CAP_SYS_PTRACE" in result.stdout
    assert "ptrace_scope" in result.stdout


def test_a_process_that_ended_is_gone_for_an_ordinary_user_too() -> None:
    if os.getuid() != 0:
        missing("becomes another user; to enable: run as root")
    program = (
        "import os, subprocess\n"
        "from libmicrovmi_py.errors import VmGoneError\n"
        "from libmicrovmi_py.transport.processes import Process\n"
        "from libmicrovmi_py.transport.procmem import ProcessMemory\n"
        "os.setresgid(65534, 65534, 65534)\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "child = subprocess.Popen(['/bin/sleep', '60'])\n"
        "process = Process.find(child.pid)\n"
        "while not process.executable() == 'sleep':\n    pass\n"
        "memory = ProcessMemory(process)\n"
        "child.kill()\n"
        "os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)\n"
        "for look in (memory.open_for_writing, lambda: ProcessMemory(process)):\n"
        "    try:\n        look()\n"
        "    except VmGoneError as err:\n        print(err)\n"
        "child.wait()\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.count("ended\n") == 2


# --------------------------------------------------------------------------------------------------- mapped files


def test_a_mapping_starts_anywhere_in_the_file(image: Path) -> None:
    mapping = HostMapping.of_file(str(image), offset=PAGE + 100, size=PAGE)
    assert mapping.size == PAGE
    assert read(mapping, 0, PAGE) == b"\1" * (PAGE - 100) + b"\2" * 100
    view = mapping.reach().view
    assert view is not None
    assert (view[-1], view.readonly) == (2, True)
    del view
    mapping.close()


def test_a_mapping_sees_what_others_write(image: Path) -> None:
    mapping = HostMapping.of_file(str(image))
    with image.open("r+b") as file:
        file.write(b"changed")
    assert read(mapping, 0, 7) == b"changed"
    mapping.close()


def test_the_first_write_makes_a_writable_mapping(image: Path) -> None:
    fd = OwnedFd.open(str(image), os.O_RDONLY)
    mapping = HostMapping.of_file(fd, offset=PAGE, size=PAGE, writable=True)
    assert permissions(image) == ["r--s"]
    write(mapping, 5, b"new")
    assert permissions(image) == ["r--s", "rw-s"]
    assert image.read_bytes()[PAGE + 4 : PAGE + 9] == b"\1new\1"
    assert read(mapping, 5, 3) == b"new"
    mapping.close()
    assert permissions(image) == []


def permissions(path: Path) -> list[str]:
    return sorted(line.split()[1] for line in maps_of(path))


def maps_of(path: Path) -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]


def test_a_mapping_for_reading_cannot_be_written(image: Path) -> None:
    mapping = HostMapping.of_file(str(image))
    assert not mapping.writable
    with pytest.raises(ReadOnlyError):
        write(mapping, 0, b"x")
    mapping.close()


@pytest.mark.parametrize("name", ["missing", "empty", "."])
def test_what_cannot_be_mapped_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").write_bytes(b"")
    path = str(tmp_path / name)
    with pytest.raises(IoError, match=path):
        HostMapping.of_file(path)


def test_a_closed_mapping_is_an_error_and_is_released(image: Path) -> None:
    gc.collect()  # what an earlier test left in a cycle
    before = len(os.listdir("/proc/self/fd"))
    mapping = HostMapping.of_file(str(image))
    mapping.close()
    mapping.close()
    with pytest.raises(InvalidContextError):
        read(mapping, 0, 1)
    assert maps_of(image) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_closing_is_safe_while_others_read(image: Path) -> None:
    mapping = HostMapping.of_file(str(image))
    ended = []

    def reader() -> None:
        try:
            while True:
                read(mapping, 0, 4 * PAGE)
        except InvalidContextError:
            ended.append(True)

    threads = [threading.Thread(target=reader) for _ in range(4)]
    for thread in threads:
        thread.start()
    mapping.close()
    for thread in threads:
        thread.join()
    assert ended == [True] * 4


@pytest.mark.parametrize("deleted", [False, True])
def test_the_file_behind_a_shared_mapping_is_found(image: Path, deleted: bool) -> None:
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 2 * PAGE, offset=PAGE) as area:
        inode = image.stat().st_ino
        if deleted:
            image.unlink()
        vma = next(vma for vma in this_process().mappings() if vma.start == address_of(area))
        assert vma.offset == PAGE
        backing = open_backings(this_process(), [vma])[vma]
        assert os.fstat(backing.number).st_ino == inode


def test_two_memory_files_of_one_name_are_told_apart() -> None:
    for fill in (b"1", b"2"):
        fds = [OwnedFd(os.memfd_create("ram")) for _ in range(2)]
        areas = []
        for fd in fds:
            os.truncate(fd.number, PAGE)
            areas.append(mmap.mmap(fd.number, PAGE))
        areas[1][:1] = fill
        vma = next(vma for vma in this_process().mappings() if vma.start <= address_of(areas[1]) < vma.end)
        backing = open_backings(this_process(), [vma])[vma]
        assert os.pread(backing.number, 1, vma.offset + address_of(areas[1]) - vma.start) == fill
        for area in areas:
            area.close()
