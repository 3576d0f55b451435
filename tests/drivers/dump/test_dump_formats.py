# SPDX-License-Identifier: Apache-2.0
"""Files of every format, recognised by what is in them, read as the memory that was put into them."""

from __future__ import annotations

import ctypes
import itertools
import random
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from drivers.dump import builders
from drivers.dump.builders import PAGE, Memory

from libmicrovmi_py import DriverUnavailableError, IoError, Microvmi, NotMappedError, ReadOnlyError
from libmicrovmi_py.drivers.base import SupportsFrames, SupportsRegions
from libmicrovmi_py.drivers.dump.bitmap import runs
from libmicrovmi_py.drivers.dump.image import File
from libmicrovmi_py.model import MemoryKind, MemoryRange


def _content(pages: int, seed: int) -> bytes:
    """Every third page is one byte many times, the others are all different."""
    return b"".join(
        bytes([seed]) * PAGE if index % 3 == 0 else bytes((index * 7 + at * seed) % 251 for at in range(PAGE))
        for index in range(pages)
    )


MEMORY = {0: _content(9, 1), 0x10000: _content(3, 2), 0x100000: _content(20, 3), 0x100000000: _content(4, 4)}
LOW = {start: content for start, content in MEMORY.items() if start < 1 << 32}
NARROW = {"elf-32", "elf-32-many"}

MAPPED: dict[str, Callable[[Memory], bytes]] = {
    "lime": builders.lime,
    "elf": builders.elf,
    "elf-32": lambda memory: builders.elf(memory, bits=32, machine=3),
    "elf-many": lambda memory: builders.elf(memory, many=True),
    "elf-32-many": lambda memory: builders.elf(memory, bits=32, machine=3, many=True),
    "elf-arm": lambda memory: builders.elf(memory, machine=183),
    "elf-flattened": lambda memory: builders.flattened(builders.elf(memory)),
    "windows": builders.windows,
    **{f"windows-{kind}": partial(builders.windows, kind=kind) for kind in (2, 5, 6, 7)},
}
PAGED: dict[str, Callable[[Memory], bytes]] = {
    "kdump": builders.kdump,
    "kdump-32": lambda memory: builders.kdump(memory, bits=32),
    "kdump-old": lambda memory: builders.kdump(memory, version=5),
    "kdump-flattened": lambda memory: builders.flattened(builders.kdump(memory)),
}
FORMATS = {**MAPPED, **PAGED}


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a format, and of how it is written."""
    return str(request.param)


@pytest.fixture
def memory(kind: str) -> Memory:
    """What is in the file."""
    return LOW if kind in NARROW else MEMORY


@pytest.fixture
def path(tmp_path: Path, kind: str, memory: Memory) -> Path:
    """The file."""
    file = tmp_path / "dump file"
    file.write_bytes(FORMATS[kind](memory))
    return file


def write(folder: Path, content: bytes) -> Path:
    """A file of that content."""
    file = folder / "dump"
    file.write_bytes(content)
    return file


def assert_holds(machine: Microvmi, memory: Memory) -> None:
    """Whether all of ``memory`` is there, page by page, in one piece, and nothing around it."""
    for start, content in memory.items():
        assert machine.read_physical(start, len(content)) == content
        assert machine.read_physical(start + 5, len(content) - 9) == content[5:-4]
        for at in range(0, len(content), PAGE):
            assert machine.read_physical(start + at, PAGE) == content[at : at + PAGE]
        assert machine.read_physical(start + 4090, 6) == content[4090:4096]
        assert machine.read_physical_into(start + len(content) - 5, bytearray(64)) == 5
        with pytest.raises(NotMappedError):
            machine.read_physical(start + len(content), 1)


def test_memory_is_what_was_put_in(path: Path, memory: Memory) -> None:
    with Microvmi.open(str(path)) as machine:
        assert machine.memory_map() == tuple(MemoryRange(start, len(content)) for start, content in memory.items())
        assert machine.max_addr == max(start + len(content) for start, content in memory.items())
        assert_holds(machine, memory)


def test_holes_are_zeros_when_padded(path: Path, memory: Memory) -> None:
    size = 0x110000
    expected = bytearray(size)
    for start, content in memory.items():
        if start < size:
            expected[start : start + len(content)] = content
    with Microvmi.open(str(path)) as machine:
        buffer = bytearray(b"x" * size)
        machine.read_physical_padded_into(0, buffer)
        assert buffer == expected[:size]
        assert machine.padded_memory.read(size) == expected[:size]


def test_a_batch_has_a_result_for_each(path: Path, memory: Memory) -> None:
    with Microvmi.open(str(path)) as machine:
        buffers = [bytearray(8), bytearray(8), bytearray(PAGE + 16)]
        results = machine.read_physical_batch(list(zip((16, 0x50000, 4088), buffers, strict=True)))
        assert [item.done for item in results] == [8, 0, PAGE + 16]
        assert buffers[0] == memory[0][16:24]
        assert buffers[2] == memory[0][4088 : 4088 + PAGE + 16]


def test_what_lies_in_the_file_is_regions_and_what_is_packed_is_frames(path: Path, kind: str) -> None:
    with Microvmi.open(str(path)) as machine:
        assert isinstance(machine.driver, SupportsRegions) is (kind in MAPPED)
        assert isinstance(machine.driver, SupportsFrames) is (kind in PAGED)


def test_naming_the_format_finds_the_same(path: Path, kind: str, memory: Memory) -> None:
    with Microvmi(driver="dump", path=path, format=kind.partition("-")[0]) as machine:
        assert machine.read_physical(0x10000, PAGE) == memory[0x10000][:PAGE]
    with Microvmi(driver="dump", path=path, format="raw") as machine:
        assert machine.memory_map() == (MemoryRange(0, path.stat().st_size),)


def test_a_dump_cannot_be_written_and_is_always_paused(path: Path) -> None:
    content = path.read_bytes()
    with Microvmi.open(str(path)) as machine:
        with pytest.raises(ReadOnlyError):
            machine.write_physical(0, b"x")
        for use in (machine.pause, machine.pause, machine.resume, machine.pause):
            use()
            assert machine.read_physical_into(0, bytearray(1)) <= 1
    assert path.read_bytes() == content


def test_c_reads_the_same(path: Path, memory: Memory, stubs: Any, library_path: Path) -> None:
    lib = stubs.load(library_path)
    context = lib.microvmi_open(str(path).encode(), None)
    assert context, lib.microvmi_last_error()
    for start, content in memory.items():
        for size in (8, PAGE, len(content)):
            for _ in range(2):  # the second time out of the kept pages
                buffer, count = (ctypes.c_uint8 * size)(), ctypes.c_uint64()
                assert lib.microvmi_read_physical(context, start, buffer, size, ctypes.byref(count))
                assert (bytes(buffer), count.value) == (content[:size], size)
    lib.microvmi_destroy(context)


# ---------------------------------------------------------------------------------------------------- formats' own ways


def test_segments_of_an_elf_core_may_overlap_and_be_in_any_order(tmp_path: Path) -> None:
    first, second = _content(4, 5), _content(8, 6)
    path = write(tmp_path, builders.elf({0x3000: first, 0x1000: second, 0x20000: first[:PAGE]}))
    with Microvmi.open(str(path)) as machine:
        assert machine.read_physical(0x1000, 8 * PAGE) == second[: 2 * PAGE] + first + second[6 * PAGE :]
        assert machine.memory_map() == (MemoryRange(0x1000, 8 * PAGE), MemoryRange(0x20000, PAGE))
    path = write(tmp_path, builders.elf({0x1000: first, 0x3000: second}))
    with Microvmi.open(str(path)) as machine:
        assert machine.read_physical(0x1000, 10 * PAGE) == first + second[2 * PAGE :]


def test_a_lime_range_may_have_one_byte(tmp_path: Path) -> None:
    memory = {0: b"a", 0x1000: b"b", 0x1FFF: b"c", 0x100000: b"d"}
    with Microvmi.open(str(write(tmp_path, builders.lime(memory)))) as machine:
        assert machine.memory_map() == tuple(MemoryRange(start, 1) for start in memory)
        assert machine.max_addr == 0x100001
        for start, content in memory.items():
            assert machine.read_physical(start, 1) == content
            assert machine.read_physical_into(start, bytearray(2)) == 1


def test_what_an_elf_core_left_out_does_not_exist(tmp_path: Path) -> None:
    content = bytearray(builders.elf({0x1000: _content(2, 1), 0x10000: _content(1, 2)}))
    struct.pack_into("<Q", content, 64 + 56 + 40, 9 * PAGE)  # p_memsz, beyond p_filesz
    struct.pack_into("<2Q", content, 64 + 2 * 56 + 32, 0, PAGE)
    with Microvmi.open(str(write(tmp_path, bytes(content)))) as machine:
        assert machine.memory_map() == (MemoryRange(0x1000, 2 * PAGE),)


def test_memory_of_devices_and_firmware_is_told_apart_in_dumps_of_hypervisors(tmp_path: Path) -> None:
    memory = {0: _content(2, 1), 0xF0000: _content(32, 2), 0xFD000000: _content(1, 3), 0xFFFFF000: _content(1, 4)}
    kinds = [MemoryKind.RAM, MemoryKind.RAM, MemoryKind.DEVICE, MemoryKind.ROM]
    high = memory | {0x100000000: _content(5, 5)}
    note = builders.qemu_note(builders.values(0))
    for build in (builders.elf, builders.kdump, lambda *given: builders.flattened(builders.elf(*given))):
        with Microvmi.open(str(write(tmp_path, build(memory, note)))) as machine:
            assert [item.kind for item in machine.memory_map()] == kinds
            assert machine.max_addr == 0x110000
            assert_holds(machine, memory)
        with Microvmi.open(str(write(tmp_path, build(high, note)))) as machine:  # right behind the firmware
            assert [(item.start, item.kind) for item in machine.memory_map()] == [
                *zip(high, [*kinds, MemoryKind.RAM], strict=True)
            ]
            assert machine.max_addr == 0x100005000
            assert machine.read_physical(0xFFFFF000, 6 * PAGE) == high[0xFFFFF000] + high[0x100000000]
    with Microvmi.open(str(write(tmp_path, builders.elf(memory)))) as machine:
        assert machine.max_addr == 1 << 32


def test_pages_of_kdump_files_may_be_larger_than_a_frame(tmp_path: Path) -> None:
    memory = {0: _content(32, 1), 0x80000: _content(16, 2)}
    path = write(tmp_path, builders.kdump(memory, block=65536))
    with Microvmi.open(str(path)) as machine:
        assert_holds(machine, memory)


@pytest.mark.parametrize("bits", [10, 15, 64, 524288, 524289, 524297, 1100003])
def test_runs_of_a_bitmap_are_those_that_a_loop_finds(tmp_path: Path, bits: int) -> None:
    source, lengths = random.Random(bits), [1, 2, 7, 8, 64, 60000]
    there = [bit for _ in range(80) for bit in [source.random() < 0.5] * source.choice(lengths)][: bits - 9]
    there += [True] * (bits - len(there))
    expected, at = [], 0
    for bit, group in itertools.groupby(there):
        begin, at = at, at + len(list(group))
        expected += [(begin, at)] * bit
    digits = "1" * (-bits % 8) + "".join("01"[bit] for bit in reversed(there))  # beyond the last page may be anything
    path = write(tmp_path, b"head" + int(digits, 2).to_bytes(len(digits) // 8, "little"))
    assert list(runs(File.open(str(path)), 4, bits)) == expected


def test_unpacked_pages_are_kept(tmp_path: Path, stubs: Any, library_path: Path) -> None:
    path = write(tmp_path, builders.kdump(MEMORY))
    lib = stubs.load(library_path)
    context = lib.microvmi_open(str(path).encode(), None)
    buffer = (ctypes.c_uint8 * 8)()
    with Microvmi.open(str(path)) as machine, Microvmi(driver="dump", path=path, cache=0) as forgetful:
        for vm in (machine, forgetful):
            assert vm.read_physical(PAGE, 8) == MEMORY[0][PAGE:][:8]
        assert lib.microvmi_read_physical(context, PAGE, buffer, 8, None)
        path.write_bytes(bytes(path.stat().st_size))
        assert machine.read_physical(PAGE + 8, 8) == MEMORY[0][PAGE + 8 :][:8]
        assert lib.microvmi_read_physical(context, PAGE + 8, buffer, 8, None)
        assert bytes(buffer) == MEMORY[0][PAGE + 8 :][:8]
        with pytest.raises(IoError):
            forgetful.read_physical(PAGE + 8, 8)
    lib.microvmi_destroy(context)


def _zstd(page: bytes) -> bytes:
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError:
        return zlib.compress(page)
    library.ZSTD_compress.restype = ctypes.c_size_t
    packed = ctypes.create_string_buffer(2 * len(page))
    size = library.ZSTD_compress(packed, ctypes.c_size_t(len(packed)), page, ctypes.c_size_t(len(page)), 3)
    return packed.raw[:size]


@pytest.mark.parametrize(
    ("name", "library", "flag", "pack"),
    [
        ("lzo", "liblzo2.so.2", 2, builders.repeated_lzo),
        ("snappy", "libsnappy.so.1", 4, builders.repeated_snappy),
        ("zstd", "libzstd.so.1", 0x20, _zstd),
    ],
)
def test_other_codecs_are_libraries_of_the_system(
    tmp_path: Path, name: str, library: str, flag: int, pack: builders.Pack
) -> None:
    path = write(tmp_path, builders.kdump(MEMORY, pack=pack, flag=flag))
    try:
        ctypes.CDLL(library)
    except OSError:
        with pytest.raises(DriverUnavailableError, match=f"{path} is compressed with {name}: cannot load {library}"):
            Microvmi.open(str(path))
        return
    with Microvmi.open(str(path)) as machine:
        assert_holds(machine, MEMORY)


def test_a_hundred_thousand_pieces_open_and_read(tmp_path: Path) -> None:
    pieces = 100_000
    memory = {index * 2 * PAGE: index.to_bytes(8, "little") * 2 for index in range(pieces)}
    path = write(tmp_path, builders.elf(memory, many=True))
    with Microvmi.open(str(path)) as machine:
        assert len(machine.memory_map()) == pieces
        for index in (0, 1, 4321, pieces - 1):
            assert machine.read_physical(index * 2 * PAGE + 8, 8) == index.to_bytes(8, "little")
        assert machine.read_physical_into(4321 * 2 * PAGE, bytearray(PAGE)) == 16
