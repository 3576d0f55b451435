# SPDX-License-Identifier: Apache-2.0
"""Memory of a process counts as the machine's as long as the mapping is there that it was found in."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from libmicrovmi_py.drivers.base import Region
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.memory.direct import DirectMemory
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.native import native
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import Movable, Place, ProcessMemory

SIZE = 64 << 10
CONTENT = b"the guest's"


class Driver:
    """One region in a mapping of this process."""

    def __init__(self, source: Movable, address: int) -> None:
        self.max_addr = SIZE
        self._regions = (Region(0, SIZE, MemoryKind.RAM, source, address, unsteady=True),)

    def regions(self) -> Sequence[Region]:
        return self._regions


class Area:
    """Private memory of this process, and how its line in the list of mappings reads."""

    def __init__(self) -> None:
        self._held = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._held[: len(CONTENT)] = CONTENT
        ffi = native().ffi
        self.address = int(ffi.cast("uintptr_t", ffi.from_buffer(self._held)))
        found = Process.find(os.getpid())
        assert found is not None
        self.process = found
        (vma,) = self.process.mappings([(self.address, self.address + SIZE)])
        self.start, self.end = vma.line(self.address)

    def memory(self, maps: Path, **other: int | bool) -> DirectMemory:
        """This memory as a machine's; ``other`` is what is different of its place."""
        known: dict[str, int | bool] = {"start": self.start, "end": self.end, "pieces": False, **other}
        fields: dict[str, int | bool] = {"offset": 0, "device": 0, "inode": 0, "writable": True, "shared": False}
        place = Place(OwnedFd.open(str(maps), os.O_RDONLY), **{**fields, **known})  # type: ignore[arg-type]
        return DirectMemory(Driver(Movable(ProcessMemory(self.process), place), self.address))

    def line(self, rights: str = "rw-p", file: str = "00000000 00:00 0", end: int = 0) -> str:
        return f"{self.start:x}-{end or self.end:x} {rights} {file} \n"


@pytest.fixture
def area() -> Area:
    return Area()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file in the place of the kernel's list, which answers no questions, as the list of an old kernel."""
    return tmp_path / "maps"


def read(memory: DirectMemory) -> bytes:
    return memory.read(0, len(CONTENT))


KERNELS = Path("/proc/self/maps")


def test_the_mapping_that_was_found_is_read(area: Area) -> None:
    assert read(area.memory(KERNELS)) == CONTENT


OTHERS: dict[str, dict[str, int | bool]] = {
    "rights": {"writable": False},
    "shared": {"shared": True},
    "file": {"inode": 7},
    "device": {"device": 1 << 32},
    "start": {"start": 0x1000},
    "end": {"end": 1 << 47},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_one_is_not(area: Area, what: str) -> None:
    memory = area.memory(KERNELS, **OTHERS[what])
    for size in (8, 4096, 20 << 10, SIZE):
        with pytest.raises(IoError, match="unplugged") as caught:
            memory.read(0, size)
        assert caught.value.completed == 0


def test_one_of_several_lines_may_be_shorter_and_no_longer(area: Area) -> None:
    assert read(area.memory(KERNELS, start=0x1000, end=1 << 47, pieces=True)) == CONTENT
    with pytest.raises(IoError):
        read(area.memory(KERNELS, start=area.start + 4096, pieces=True))


BEFORE = "".join(f"{at:x}-{at + 4096:x} r--p 00000000 00:00 0 \n" for at in range(0x1000, 0x200000, 0x2000))
"""Lines of more than what is read at once."""


def test_an_old_kernels_list_is_searched(area: Area, written: Path) -> None:
    written.write_text(BEFORE + area.line())
    assert read(area.memory(written)) == CONTENT
    written.write_text("x" * 4080 + "\n" + area.line())  # which begins in the first 4095 bytes and ends behind them
    assert read(area.memory(written)) == CONTENT


@pytest.mark.parametrize(
    "lines",
    ["", "nonsense\n", "x" * 9000, "{start:x}-{end:x} rw-p 00000000 00:00 0"],
    ids=["nothing", "nonsense", "a line without an end", "half a line"],
)
def test_a_list_without_the_mapping_is_no_proof(area: Area, written: Path, lines: str) -> None:
    written.write_text(BEFORE + lines.format(start=area.start, end=area.end))
    with pytest.raises(IoError):
        read(area.memory(written))


@pytest.mark.parametrize("other", ["r--p", "rw-s", "file", "longer"])
def test_nor_is_another_mapping_in_it(area: Area, written: Path, other: str) -> None:
    lines = {"file": area.line(file="00000000 08:01 7"), "longer": area.line(end=area.end + 4096)}
    written.write_text(lines.get(other) or area.line(other))
    with pytest.raises(IoError):
        read(area.memory(written))


def test_a_look_at_such_a_list_counts_for_a_moment(area: Area, written: Path) -> None:
    """It takes longer than the read that it is for."""
    written.write_text(area.line())
    memory = area.memory(written)
    assert read(memory) == CONTENT
    written.write_text("")
    time.sleep(0.002)
    with pytest.raises(IoError):
        read(memory)
