# SPDX-License-Identifier: Apache-2.0
"""Images with holes: every read is right, and large ones do not make the file system allocate the holes."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from needs import missing
from programs import Programs

from libmicrovmi_py import Microvmi
from libmicrovmi_py.model import PAGE_SIZE

PAGES = 700
SIZE = PAGES * PAGE_SIZE - 1000
BULK = 64 << 10
"""From this size on a read looks for holes; a chunk is as large, and what is known of holes is known by chunks."""
CHUNK = BULK // PAGE_SIZE

Pattern = Callable[[random.Random], list[bool]]
"""Which pages have data."""


def runs(longest: int) -> Pattern:
    """Data and holes in turns, of random lengths."""

    def make(chance: random.Random) -> list[bool]:
        pages: list[bool] = []
        while len(pages) < PAGES:
            pages += [not (pages and pages[-1])] * chance.randint(1, longest)
        return pages[:PAGES]

    return make


def scattered(share: float) -> Pattern:
    return lambda chance: [chance.random() < share for _ in range(PAGES)]


PATTERNS: dict[str, Pattern] = {
    "nothing": lambda _: [False] * PAGES,
    "everything": lambda _: [True] * PAGES,
    "every other page": lambda _: [number % 2 == 0 for number in range(PAGES)],
    "the first page": lambda _: [number == 0 for number in range(PAGES)],
    "the last page": lambda _: [number == PAGES - 1 for number in range(PAGES)],
    "every other chunk": lambda _: [number // CHUNK % 2 == 1 for number in range(PAGES)],
    "a hole at every place in a chunk": lambda _: [number % (CHUNK + 1) != 0 for number in range(PAGES)],
    "data at every place in a chunk": lambda _: [number % (CHUNK + 1) == 0 for number in range(PAGES)],
    "a tenth": scattered(0.1),
    "half": scattered(0.5),
    "nine tenths": scattered(0.9),
    "short runs": runs(8),
    "long runs": runs(100),
}


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory on a file system that allocates pages one by one when they are touched."""
    if not os.access("/dev/shm", os.W_OK):
        missing("no /dev/shm to write to; to enable: mount a tmpfs there")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


def make(directory: Path, data: list[bool]) -> tuple[Path, bytes]:
    """A file and its content: page N is filled with bytes that depend on N."""
    path = directory / "image.raw"
    content = bytearray(SIZE)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for number in (number for number, there in enumerate(data) if there):
            start = number * PAGE_SIZE
            end = min(start + PAGE_SIZE, SIZE)
            content[start:end] = random.Random(number).randbytes(end - start)
            file.seek(start)
            file.write(content[start:end])
    return path, bytes(content)


def some_range(chance: random.Random, smallest: int, largest: int) -> tuple[int, int]:
    """An address and a size; edges of pages and chunks are frequent."""
    address = chance.randrange(SIZE - smallest)
    if chance.random() < 0.5:
        step = chance.choice((PAGE_SIZE, BULK))
        address = min(max(address // step * step + chance.choice((-1, 0, 0, 1)), 0), SIZE - smallest)
    size = chance.choice((smallest, BULK, BULK + 1, chance.randint(smallest, largest)))
    return address, min(max(size, smallest), SIZE - address)


@pytest.fixture(params=PATTERNS)
def sparse(request: pytest.FixtureRequest, in_memory: Path) -> tuple[Path, bytes]:
    return make(in_memory, PATTERNS[request.param](random.Random(request.param)))


def test_reads_of_any_size_are_right(sparse: tuple[Path, bytes]) -> None:
    path, content = sparse
    chance = random.Random(1)
    with Microvmi.open(str(path)) as machine:
        for _ in range(300):
            address, size = some_range(chance, 1, 5 * BULK)
            assert machine.read_physical(address, size) == content[address : address + size], (address, size)


def test_large_reads_are_right_and_allocate_nothing(sparse: tuple[Path, bytes]) -> None:
    path, content = sparse
    before = path.stat().st_blocks
    chance = random.Random(2)
    with Microvmi.open(str(path)) as machine:
        first = path.stat().st_blocks  # opening looks at the file's first bytes
        for _ in range(150):
            address, size = some_range(chance, BULK, 5 * BULK)
            buffer = bytearray(b"\xee") * size
            machine.read_physical_padded_into(address, buffer)
            assert buffer == content[address : address + size], (address, size)
        whole = machine.memory.read()
        assert whole == content
        assert path.stat().st_blocks == first
        assert first - before <= PAGE_SIZE // 512


@pytest.mark.parametrize("mapped", ["yes", "no"])
def test_small_reads_of_an_image_allocate_nothing(sparse: tuple[Path, bytes], mapped: str) -> None:
    path, content = sparse
    before = path.stat().st_blocks
    chance = random.Random(6)
    with Microvmi.open(f"vmi://dump/?path={path}&mapped={mapped}") as machine:
        for _ in range(1000):
            address, size = some_range(chance, 1, BULK - 1)
            size = min(chance.choice((1, 8, 100, PAGE_SIZE, size)), SIZE - address, BULK - 1)
            buffer = bytearray(size)
            machine.memory.seek(address)
            assert machine.memory.readinto(buffer) == size
            assert buffer == content[address : address + size], (address, size)
        assert path.stat().st_blocks == before


def test_an_image_with_holes_is_read_on_a_file_system_that_is_full(programs: Programs, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("only root can mount a small file system; to enable: run as root")
    script = """
        mount -t tmpfs -o size=256k tmpfs "$0" && truncate -s 4M "$0/image" || exit 77
        dd if=/dev/zero of="$0/full" bs=4k status=none 2>/dev/null
        exec "$1" "$0/image"
    """
    command = ["unshare", "-m", "sh", "-c", script, str(tmp_path), str(programs.linked("hollow"))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if ended.returncode == 77:
        missing(f"no tmpfs can be mounted here: {ended.stderr}; to enable: run with CAP_SYS_ADMIN")
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_what_is_written_into_a_hole_later_is_read(in_memory: Path) -> None:
    path, content = make(in_memory, PATTERNS["long runs"](random.Random(3)))
    expected = bytearray(content)
    chance = random.Random(4)
    with Microvmi.open(str(path)) as machine, path.open("r+b") as file:
        for _ in range(100):
            address, size = chance.randrange(SIZE - 100), chance.randint(1, 100)
            file.seek(address)
            file.write(b"\x77" * size)
            file.flush()
            expected[address : address + size] = b"\x77" * size
            start = max(address - chance.randrange(BULK), 0)
            assert machine.read_physical(start, min(2 * BULK, SIZE - start)) == expected[start : start + 2 * BULK]


def test_data_and_holes_are_found_as_the_file_system_finds_them(sparse: tuple[Path, bytes]) -> None:
    path, _ = sparse
    chance = random.Random(5)
    with Microvmi.open(str(path)) as machine, path.open("rb") as file:
        for _ in range(200):
            address, _ = some_range(chance, 1, 1)
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                found = seek_file(file.fileno(), address, whence)
                for stream in (machine.memory, machine.padded_memory):
                    assert stream.seek(address, whence) == stream.tell() == found


def seek_file(fd: int, address: int, whence: int) -> int:
    try:
        return os.lseek(fd, address, whence)
    except OSError:
        return SIZE


def test_the_search_for_data_and_holes_stays_within_the_machine(in_memory: Path) -> None:
    path, _ = make(in_memory, [True] * 10 + [False] * 10 + [True] * (PAGES - 20))
    with Microvmi.open(str(path)) as machine:
        assert machine.memory.seek(-5, os.SEEK_DATA) == 0
        assert machine.memory.seek(-5, os.SEEK_HOLE) == 10 * PAGE_SIZE
        assert machine.memory.seek(10 * PAGE_SIZE, os.SEEK_DATA) == 20 * PAGE_SIZE
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            assert machine.memory.seek(SIZE, whence) == SIZE
            assert machine.memory.seek(1 << 63, whence) == SIZE
