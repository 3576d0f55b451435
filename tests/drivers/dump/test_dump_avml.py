# SPDX-License-Identifier: Apache-2.0
"""Compressed AVML images, written from their description: every byte, damage, and what is not there."""

from __future__ import annotations

import gzip
import logging
import random
import struct
from pathlib import Path

import pytest
from drivers.dump import builders_avml
from drivers.dump.builders import PAGE
from drivers.dump.builders_avml import IDENTIFIER, avml, one_frame
from drivers.dump.test_dump_formats import assert_holds
from needs import missing

from libmicrovmi_py import DriverUnavailableError, IoError, Microvmi
from libmicrovmi_py.drivers.dump import codecs
from libmicrovmi_py.model import MemoryRange

SOURCE = random.Random("avml")


def _memory(pages: int) -> bytes:
    """Runs of pages that pack well, and noise."""
    return b"".join(SOURCE.randbytes(PAGE) if at // 16 % 3 == 2 else bytes([at // 16]) * PAGE for at in range(pages))


MEMORY = {0x1000: _memory(157), 0x100000: _memory(300), 0x100000000: _memory(40)}
IMAGE = avml(MEMORY, piece=1 << 20)
SMALL = {0x1000: bytes([7]) * 16 * PAGE + SOURCE.randbytes(16 * PAGE), 0x100000: bytes([9]) * 3 * PAGE}
CONTENT = avml(SMALL)
FIRST, SECOND = 32 + len(IDENTIFIER), 32 + len(IDENTIFIER) + len(one_frame(bytes([7]) * 16 * PAGE))
"""Where the two frames of the first range begin: a packed one, and one that is as it is."""
LAST = SECOND + 8 + 16 * PAGE + 8
"""Where the header of the second range begins."""


def opened(folder: Path, content: bytes, **options: str) -> Microvmi:
    """A file of that content as a machine."""
    path = folder / "the dump"
    path.write_bytes(content)
    return Microvmi(driver="dump", path=path, **options)


def changed(offset: int, form: str, *words: int | bytes, content: bytes = CONTENT) -> bytes:
    """The content with these words at that offset."""
    made = bytearray(content)
    struct.pack_into("<" + form, made, offset, *words)
    return bytes(made)


@pytest.mark.parametrize("frame", [64 << 10, 3 * PAGE, PAGE // 2])
def test_memory_is_what_was_put_in(tmp_path: Path, frame: int) -> None:
    with opened(tmp_path, avml(MEMORY, piece=1 << 20, frame=frame)) as machine:
        assert machine.memory_map() == tuple(MemoryRange(start, len(content)) for start, content in MEMORY.items())
        assert machine.max_addr == 0x100000000 + len(MEMORY[0x100000000])
        assert_holds(machine, MEMORY)


def test_ranges_in_any_order_and_in_a_wrapper(tmp_path: Path) -> None:
    content = avml(dict(reversed(MEMORY.items())))
    for made in (content, gzip.compress(content)):
        with opened(tmp_path, made) as machine:
            assert_holds(machine, MEMORY)


def test_frames_without_memory_are_passed_over(tmp_path: Path) -> None:
    skipped = IDENTIFIER + b"\xfe\3\0\0abc" + b"\x80\0\0\0" + IDENTIFIER
    packed = skipped + one_frame(SMALL[0x100000]) + one_frame(b"")
    head = struct.pack("<4sI2Q8x", b"AVML", 2, 0, 6 * PAGE - 1)
    packed += skipped + one_frame(SMALL[0x100000])
    with opened(tmp_path, head + packed + struct.pack("<Q", len(packed))) as machine:
        assert machine.read_physical(0, 6 * PAGE) == bytes([9]) * 6 * PAGE


def test_reading_one_byte_unpacks_one_frame(tmp_path: Path) -> None:
    damaged = changed(SECOND + 8, "B", CONTENT[SECOND + 8] ^ 1)
    with opened(tmp_path, damaged) as machine:
        assert machine.read_physical(0x1000, 16 * PAGE) == SMALL[0x1000][: 16 * PAGE]
        assert machine.read_physical(0x100000, 3 * PAGE) == SMALL[0x100000]
        with pytest.raises(IoError, match=f"cannot be unpacked: {tmp_path}.*piece 1.* is damaged: .*another checksum"):
            machine.read_physical(0x1000 + 20 * PAGE, 1)


@pytest.mark.parametrize(
    ("offset", "text"),
    [(FIRST + 4, "another checksum"), (FIRST + 14, "is damaged")],
)
def test_a_damaged_frame_is_an_error_of_the_read(tmp_path: Path, offset: int, text: str) -> None:
    made = changed(offset, "B", CONTENT[offset] ^ 0x81)
    with opened(tmp_path, made) as machine, pytest.raises(IoError, match=text):
        machine.read_physical(0x1000, 1)


def test_checksums_are_those_of_the_description() -> None:
    try:
        checksum = codecs.crc32c()
    except DriverUnavailableError as err:
        missing(f"{err}; to enable: apt-get install libext2fs2")
    assert checksum(b"123456789") == 0xE3069283
    for size in (0, 1, 7, 4096, 65536):
        content = SOURCE.randbytes(size)
        assert checksum(content) == builders_avml.crc32c(content)


LONG = CONTENT[:FIRST] + one_frame(bytes([7]) * 17 * PAGE) + CONTENT[SECOND:]
DAMAGED = {
    "no range": (CONTENT[:20], "header of a range"),
    "backwards": (changed(8, "2Q", 0x2000, 0x1000), "goes from 0x2000 to 0x1000"),
    "too high": (changed(16, "Q", 1 << 52), "goes from 0x1000 to 0x10000000000000"),
    "twice": (changed(LAST + 8, "2Q", 0x2000, 0x4FFF), "memory at 0x2000 is there twice"),
    "kind": (changed(FIRST, "B", 2), "its kind is 0x2"),
    "identifier": (changed(36, "B", 0), "its kind is 0xff"),
    "short": (changed(FIRST, "I", 4 << 8), "its kind is 0x0, its length 0x4"),
    "beyond": (changed(SECOND, "I", 0xFFFFFF01), "bytes are missing"),
    "larger than its range": (changed(LAST + 16, "Q", 0x100FFF), "it has 0x3000 bytes, and 0x1000 are missing"),
    "larger than a frame": (LONG, "it has 0x11000 bytes unpacked"),
    "longer range": (changed(16, "Q", 0x30FFF), "its kind is"),
    "size": (changed(LAST - 8, "Q", 7), "and 0x7 as the range says"),
    "no size": (CONTENT[:-8], "and 0x0 as the range says"),
    "something behind": (CONTENT + bytes(64), "there is no AVML range at"),
    "something short behind": (CONTENT + bytes(3), "the header of a range would lie at"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_lies_is_an_error(tmp_path: Path, name: str) -> None:
    content, text = DAMAGED[name]
    with pytest.raises(IoError, match=f"{tmp_path}.* is cut short or damaged: .*{text}"):
        opened(tmp_path, content)


def test_of_a_file_that_is_cut_anywhere_what_is_there_is_right(tmp_path: Path) -> None:
    sizes = []
    for end in sorted({*range(200, len(CONTENT), 5000), FIRST, SECOND, SECOND - 1, LAST, len(CONTENT) - 1}):
        if end != LAST:
            with pytest.raises(IoError, match=r"cut short or damaged.*partial=on"):
                opened(tmp_path, CONTENT[:end])
        if end < SECOND:
            with pytest.raises(IoError, match="there is no memory in it"):
                opened(tmp_path, CONTENT[:end], partial="on")
            continue
        with opened(tmp_path, CONTENT[:end], partial="on") as machine:
            for item in machine.memory_map():
                start = max(address for address in SMALL if address <= item.start)
                assert machine.read_physical(item.start, item.size) == SMALL[start][: item.size]
            sizes.append(sum(item.size for item in machine.memory_map()))
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (16 * PAGE, 35 * PAGE)


def test_a_file_of_small_frames_is_indexed_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), opened(tmp_path, IMAGE) as machine:
        assert machine.read_physical(0x100000, 1) == MEMORY[0x100000][:1]
    assert not caplog.records, "nothing is unpacked as a whole, and checksums are compared"
