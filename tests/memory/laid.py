# SPDX-License-Identifier: Apache-2.0
"""Machines whose memory is the same bytes, reached in every way, and layouts by chance, for tests of differences."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from differences import FRAME, Piece
from memory.test_mapped import Bytes

from libmicrovmi_py.drivers.base import Driver, Region, Source
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import NotMappedError
from libmicrovmi_py.model import MemoryKind, MemoryRange
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import Movable, Place, ProcessMemory
from libmicrovmi_py.transport.reach import Reach

MIB = 1 << 20
KINDS = (1, 1, 1, 2, 3)


class Regions(Driver):
    """Memory in regions, which may begin and end anywhere."""

    name = "regions"
    static = True

    def __init__(self, regions: Sequence[Region]) -> None:
        self._regions = tuple(regions)

    @classmethod
    def open(cls, params: Parameters) -> Regions:
        return cls(())

    @property
    def max_addr(self) -> int:
        return min(self._regions[-1].end, (1 << 64) - 1) if self._regions else 0

    def regions(self) -> Sequence[Region]:
        return self._regions

    def close(self) -> None:
        pass


Make = Callable[[Path, Sequence[Piece]], Driver]


def driver(pieces: Sequence[Piece], source: Callable[[bytes], tuple[Source, int]]) -> Driver:
    """A machine of regions, each of which ``source`` makes: that and an offset in it."""
    return Regions([Region(at, len(data), MemoryKind(kind), *source(data)) for at, data, kind in pieces])


def mapped(folder: Path, pieces: Sequence[Piece]) -> Driver:
    return driver(pieces, lambda data: (Bytes(bytearray(data)), 0))


def written(path: Path, data: bytes, shift: int) -> None:
    """A file that has the bytes from an offset on, with holes where whole blocks of it are zero."""
    content = bytes(shift) + data
    with path.open("wb") as file:
        for at in range(0, len(content), FRAME):
            if any(block := content[at : at + FRAME]):
                os.pwrite(file.fileno(), block, at)
        file.truncate(len(content))


def of_files(*, mapped: bool, image: bool, shift: int) -> Make:
    def make(folder: Path, pieces: Sequence[Piece]) -> Driver:
        numbers = itertools.count(len(list(folder.iterdir())))

        def source(data: bytes) -> tuple[Source, int]:
            path = folder / str(next(numbers))
            written(path, data, shift)
            return HostMapping.of_file(str(path), mapped=mapped, image=image), shift

        return driver(pieces, source)

    return make


class Owned:
    """Memory of this process, as a source that is another one's."""

    def __init__(self, data: bytes) -> None:
        self._area = mmap.mmap(-1, len(data) + FRAME, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._area.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, len(data), FRAME):
            if any(data[at : at + FRAME]):
                self._area[at : at + FRAME] = data[at : at + FRAME].ljust(FRAME, b"\0")
        self.host = ctypes.addressof(ctypes.c_char.from_buffer(self._area))
        process = Process.find(os.getpid())
        assert process is not None
        self._memory = ProcessMemory(process)
        self.reach = self._memory.anonymous().reach
        self.open_for_writing = self._memory.open_for_writing


def of_a_process(folder: Path, pieces: Sequence[Piece]) -> Driver:
    def source(data: bytes) -> tuple[Source, int]:
        owned = Owned(data)
        return owned, owned.host

    return driver(pieces, source)


def by_frames(folder: Path, pieces: Sequence[Piece]) -> Driver:
    rom = [piece.start for piece in pieces if piece.kind == MemoryKind.ROM]
    return FakeDriver({piece.start: bytearray(piece.content) for piece in pieces}, rom=rom)


class Unmapped(FakeDriver):
    """One that does not know its holes."""

    def memory_map(self) -> tuple[MemoryRange, ...]:
        return (MemoryRange(0, self.max_addr),)


class Batches(Unmapped):
    """The same with many frames in one trip."""

    def read_frames(self, requests: Sequence[tuple[int, int, memoryview]]) -> Sequence[bool]:
        return [self._exists(*request) for request in requests]

    def _exists(self, frame: int, offset: int, buffer: memoryview) -> bool:
        try:
            self.read_frame(frame, offset, buffer)
        except NotMappedError:
            return False
        return True


DIRECT: dict[str, Make] = {
    "mapped": mapped,
    "file": of_files(mapped=True, image=False, shift=0),
    "image": of_files(mapped=True, image=True, shift=0),
    "shifted": of_files(mapped=True, image=True, shift=0x333),
    "unmapped": of_files(mapped=False, image=False, shift=0x1000),
    "process": of_a_process,
}
WAYS: dict[str, Make] = {**DIRECT, "frames": by_frames}


def content(chance: random.Random, size: int) -> bytearray:
    """Frames of zeros, and others, with something to be found at their ends."""
    blocks = [bytes(FRAME), b"\1" * FRAME, bytes(FRAME - 1) + b"\2", b"\3" + bytes(FRAME - 1)]
    made = bytearray()
    while len(made) < size:
        made += chance.choice(blocks) * chance.choice((1, 1, 2, 17, 40))
    return made[:size]


def laid(chance: random.Random, unit: int, base: int = 0) -> list[Piece]:
    """Some memory in pieces whose borders are multiples of ``unit``."""
    borders = sorted(chance.sample(range(3 * MIB // unit), chance.choice((2, 4, 7))))
    return [
        Piece(base + start * unit, bytes(content(chance, (end - start) * unit)), chance.choice(KINDS))
        for start, end in itertools.pairwise(borders)
        if chance.random() < 0.8
    ]


def changed(chance: random.Random, piece: Piece, unit: int) -> list[Piece]:
    """What has become of a piece: as it was, other bytes, shorter, gone, another kind, or in two."""
    start, data, kind = piece
    what, size = chance.choice(["same", "bytes", "bytes", "bytes", "less", "gone", "kind", "split"]), len(data)
    middle = chance.randrange(size // unit) * unit
    other = bytearray(data)
    if what in ("bytes", "split"):
        for at in (*chance.sample(range(size), min(size, 6)), chance.choice((0, size - 1))):
            other[at] ^= chance.choice((0, 1))
    if what == "less":
        other = other[: middle or size]
    if what == "split" and middle:
        return [Piece(start, bytes(other[:middle]), kind), Piece(start + middle, bytes(other[middle:]), kind)]
    kind = chance.choice(KINDS) if what == "kind" else kind
    return [] if what == "gone" else [Piece(start, bytes(other), kind)]


def pair(seed: int, unit: int, base: int = 0) -> tuple[list[Piece], list[Piece]]:
    chance = random.Random(seed)
    older = laid(chance, unit, base)
    return older, [new for piece in older for new in changed(chance, piece, unit)]


class Hollow:
    """Memory of this process that was never touched, mapped: there is no file to ask for holes."""

    def __init__(self, size: int) -> None:
        self._area = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def reach(self) -> Reach:
        return Reach(view=memoryview(self._area).toreadonly())

    def open_for_writing(self) -> None:
        pass


class Unplugged(Owned):
    """Memory in whose place something else is by now."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        maps = OwnedFd.open("/proc/self/maps", os.O_RDONLY)
        place = Place(maps, 0x1000, 0x2000, 0, 0, 0, writable=True, shared=False, pieces=False)
        self.reach = Movable(self._memory.anonymous(), place).reach
