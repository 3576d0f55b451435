# SPDX-License-Identifier: Apache-2.0
"""Packed pages that C finds and unpacks: they are those that Python unpacks, and what C cannot do Python tells."""

from __future__ import annotations

import os
import random
import struct
import threading
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers.dump import builders

from libmicrovmi_py import IoError, Microvmi, MicrovmiError
from libmicrovmi_py.drivers.dump.bitmap import found
from libmicrovmi_py.drivers.dump.codecs import CODECS
from libmicrovmi_py.drivers.dump.image import File
from libmicrovmi_py.drivers.dump.opening import Opening
from libmicrovmi_py.drivers.dump.pages import PackedPages
from libmicrovmi_py.drivers.dump.recognition import recognised
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.packing import ImagePart, Packing

PAGE = 4096
PAGES = 300
RANDOM = random.Random(14)
CONTENT = b"".join(bytes([number % 251]) * PAGE if number % 3 else RANDOM.randbytes(PAGE) for number in range(PAGES))
HOLES = {3 * PAGE: CONTENT[: 200 * PAGE], (1 << 32): CONTENT[200 * PAGE :]}
"""Pages of one byte, which each codec's builder packs, and random ones, which are laid down as they are."""


def zstd(page: bytes) -> bytes:
    """A frame of zstd by hand: one block that is one byte many times, or as it is."""
    single = page.count(page[0]) == len(page)
    size = len(page) << 3 | (2 if single else 0) | 1
    header = struct.pack("<IBH", 0xFD2FB528, 0x60, len(page) - 256)
    return header + struct.pack("<I", size)[:3] + (page[:1] if single else page)


PACKS: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "zlib": (zlib.compress, 1),
    "lzo": (builders.repeated_lzo, 2),
    "snappy": (builders.repeated_snappy, 4),
    "zstd": (zstd, 0x20),
}


def written(tmp_path: Path, content: bytes, name: str = "dump") -> str:
    path = tmp_path / name
    path.write_bytes(content)
    return str(path)


def opened(path: str, options: str = "&cache=0") -> Microvmi:
    return Microvmi.open(f"vmi://dump/?path={path}{options}")


def packing_of(path: str) -> Packing:
    """What C reads a dump with."""
    dump = recognised(path, None, Opening())
    memory = dump.read(dump.image).memory
    assert isinstance(memory, PackedPages)
    assert memory.packing is not None
    return memory.packing


@pytest.mark.parametrize("flat", [True, False], ids=["as it is", "flattened"])
@pytest.mark.parametrize("name", PACKS)
def test_c_unpacks_every_page_of_every_codec(name: str, flat: bool, tmp_path: Path) -> None:
    pack, flag = PACKS[name]
    dump = builders.kdump(HOLES, pack=pack, flag=flag)
    path = written(tmp_path, dump if flat else builders.flattened(dump))
    packing = packing_of(path)
    with opened(path) as machine:
        for start, content in HOLES.items():
            buffer = bytearray(len(content) + PAGE)
            assert packing.read(start, memoryview(buffer)) == len(content)
            assert bytes(buffer) == content + bytes(PAGE)
            assert machine.read_physical(start, len(content)) == content


def test_reads_of_any_size_at_any_place_are_what_is_there(tmp_path: Path) -> None:
    with opened(written(tmp_path, builders.kdump({0: CONTENT}, block=1 << 14), "large"), "") as machine:
        for _ in range(300):
            begin = RANDOM.randrange(len(CONTENT) - 1)
            size = min(RANDOM.choice([1, 8, 100, PAGE, 3 * PAGE, 300_000]), len(CONTENT) - begin)
            assert machine.read_physical(begin, size) == CONTENT[begin : begin + size]


def test_several_threads_read_at_once(tmp_path: Path) -> None:
    wrong: list[int] = []

    def read(machine: Microvmi, seed: int) -> None:
        places = random.Random(seed)
        for _ in range(200):
            at = places.randrange(PAGES - 8) * PAGE
            if machine.read_physical(at, 8 * PAGE) != CONTENT[at : at + 8 * PAGE]:
                wrong.append(at)

    with opened(written(tmp_path, builders.kdump({0: CONTENT}, pack=zstd, flag=0x20))) as machine:
        threads = [threading.Thread(target=read, args=(machine, seed)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_page_that_is_damaged_is_told_by_python_and_nothing_behind_is_touched(tmp_path: Path) -> None:
    spoilt = zlib.compress(b"\x11" * PAGE)[:-1] + b"\0"
    pages = {0: CONTENT[: 64 * PAGE]}
    dump = builders.kdump(pages, pack=lambda page: spoilt if page[0] == 40 else zlib.compress(page))
    path = written(tmp_path, dump)
    with opened(path) as machine:
        buffer = bytearray(b"\xa5" * (64 * PAGE))
        assert packing_of(path).read(0, memoryview(buffer)) == 40 * PAGE
        assert bytes(buffer[: 40 * PAGE]) == CONTENT[: 40 * PAGE]
        assert buffer.count(0xA5, 40 * PAGE) == 24 * PAGE
        with pytest.raises(IoError, match="physical address 0x28000 is damaged") as failed:
            machine.read_physical_into(0, buffer)
        assert failed.value.completed == 40 * PAGE
        assert machine.read_physical(41 * PAGE, PAGE) == CONTENT[41 * PAGE :][:PAGE]


MANY = 3 * 4096
"""So many pages that descriptors between the first and the last of them are not looked at."""


def many(change: Callable[[bytearray, int], None]) -> bytes:
    """A dump of a page that is there often, after a change of its bytes; that is told where the descriptors begin."""
    dump = bytearray(builders.kdump({0: b"\7" * (MANY * PAGE)}, pack=lambda _: zlib.compress(b"\7" * PAGE)))
    (blocks,) = struct.unpack_from("<I", dump, 436)
    change(dump, (2 + blocks) * PAGE)
    return bytes(dump)


def test_a_descriptor_in_the_middle_is_looked_at_when_its_page_is_read(tmp_path: Path) -> None:
    changes: dict[str, Callable[[bytearray, int], None]] = {
        "beyond": lambda dump, at: struct.pack_into("<Q", dump, at + 24 * 6000, len(dump)),
        "overflow": lambda dump, at: struct.pack_into("<Q", dump, at + 24 * 6000, (1 << 64) - 8),
        "no size": lambda dump, at: struct.pack_into("<I", dump, at + 24 * 6000 + 8, 0),
        "long": lambda dump, at: struct.pack_into("<I", dump, at + 24 * 6000 + 8, 0xFFFFFFFF),
        "kind": lambda dump, at: struct.pack_into("<I", dump, at + 24 * 6000 + 12, 0x40),
    }
    for name, change in changes.items():
        path = written(tmp_path, many(change))
        with opened(path) as machine:
            assert machine.read_physical(5999 * PAGE, PAGE) == machine.read_physical(6001 * PAGE, PAGE) == b"\7" * PAGE
            with pytest.raises(IoError):
                machine.read_physical(6000 * PAGE, 8)
        if name != "kind":
            with opened(path, "&partial=on") as machine:
                assert [(item.start, item.end) for item in machine.memory_map()] == [
                    (0, 6000 * PAGE),
                    (6001 * PAGE, MANY * PAGE),
                ]


def test_a_dump_that_is_cut_is_told_when_it_is_opened(tmp_path: Path) -> None:
    dump = many(lambda _dump, _at: None)
    with pytest.raises(IoError, match="a page would end at"):
        opened(written(tmp_path, dump[:-1]))


ENTRIES = (b"\x05" * PAGE, CONTENT[:PAGE], b"\x09" * PAGE)


def test_entries_of_a_saved_machine(tmp_path: Path) -> None:
    """What formats with a word a page tell; one of a kind that is not known ends a read."""
    packed = zlib.compress(ENTRIES[2])
    path = written(tmp_path, CONTENT[:PAGE] + struct.pack(">I", len(packed)) + packed)
    words = array("Q", [5 << 3 | 2, 0 << 3 | 1, PAGE << 3 | 3, 4, (1 << 40) << 3 | 1])
    parts = [ImagePart(0, os.path.getsize(path), 0, OwnedFd.open(path, os.O_RDONLY))]
    runs = array("Q", [16]), array("Q", [24]), array("Q", [0])
    packing = Packing(runs, PAGE, parts, [CODECS[1].native(1)], entries=words)
    buffer = bytearray(8 * PAGE)
    assert packing.read(16 * PAGE, memoryview(buffer)) == 3 * PAGE
    assert bytes(buffer) == b"".join(ENTRIES) + bytes(5 * PAGE)
    for page in (19, 20, 23):  # another kind, beyond the file, beyond the entries
        assert packing.read(page * PAGE, memoryview(buffer)) == 0


def test_the_runs_in_a_bitmap(tmp_path: Path) -> None:
    """Beside what a plain loop finds, whatever the pieces in which the file is read."""
    for density in (1, 50, 99, 100):
        bits = [RANDOM.randrange(100) < density for _ in range(40_003)]
        number = sum(1 << at for at, bit in enumerate(bits) if bit)
        path = written(tmp_path, number.to_bytes(-(-len(bits) // 8) + 16, "little"))
        starts, ends, before, pages = found(File.open(path), 0, len(bits))
        edges = [at for at in range(len(bits)) if bits[at] and (at == 0 or not bits[at - 1])]
        assert list(starts) == edges
        assert list(ends) == [next((at for at in range(edge, len(bits)) if not bits[at]), len(bits)) for edge in edges]
        assert list(before) == [sum(bits[:edge]) for edge in edges[:200]] + list(before[200:])
        assert pages == sum(bits)


PIECE = 8 * (120 << 10)
"""So many bits of a bitmap are read at once."""


def test_runs_go_on_from_one_piece_of_a_bitmap_to_the_next(tmp_path: Path) -> None:
    """At every edge of a word, of what is looked at in one go, and of what is read in one go."""
    edges = (PIECE, 2 * PIECE - 64, 2 * PIECE, PIECE - 32 * 64, 3 * PIECE + 64)
    for begin in (at + off for at in edges for off in (-1, 0, 1)):
        for size in (1, 63, 64, 65, 2048, PIECE - 1, PIECE, PIECE + 1):
            spans = [(3, 5), (begin, begin + size), (begin + size + 1, begin + size + 2), (begin + size + 700, 1 << 22)]
            number = sum((1 << end) - (1 << start) for start, end in spans)
            path = written(tmp_path, number.to_bytes(1 << 19, "little"))
            starts, ends, before, pages = found(File.open(path), 0, (1 << 22) - 3)
            assert list(zip(starts, ends, strict=True)) == [*spans[:-1], (spans[-1][0], (1 << 22) - 3)]
            assert list(before) == [0, 2, 2 + size, 3 + size]
            assert pages == 3 + size + ends[-1] - starts[-1]


def test_descriptors_of_random_bytes_end_nothing(tmp_path: Path) -> None:
    dump = builders.kdump({0: CONTENT})
    for seed in range(40):
        noise = random.Random(seed)
        content = bytearray(dump)
        (blocks,) = struct.unpack_from("<I", content, 436)
        table = (2 + blocks) * PAGE
        for _ in range(8):
            at = table + noise.randrange(24 * PAGES)
            content[at] = noise.randrange(256)
        try:
            machine = opened(written(tmp_path, bytes(content)), "&partial=on")
        except MicrovmiError:
            continue
        with machine:
            for item in machine.memory_map():
                for address in range(item.start, item.end, 16 * PAGE):
                    try:
                        machine.read_physical(address, min(16 * PAGE, item.end - address))
                    except IoError:
                        continue
