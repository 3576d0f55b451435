# SPDX-License-Identifier: Apache-2.0
"""Evidence files of version 2 (Ex01), as builders_ewf2.py writes them: no program of Debian 12 does."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest
from drivers.dump import builders, builders_ewf2
from drivers.dump.builders import PAGE

from libmicrovmi_py import DriverUnavailableError, IoError, Microvmi

CHUNK = 64 * 512


def _memory(size: int) -> bytes:
    source = random.Random("evidence")
    kinds = [bytes(CHUNK), b"\xa5" * CHUNK, b"words and words and " * 1639]
    return b"".join(source.choice([*kinds, source.randbytes(CHUNK)])[:CHUNK] for _ in range(size // CHUNK))


MEMORY = _memory(1 << 20) + b"\x77" * (5 * 512)
"""32 chunks of every kind, and a part of one."""


def written(folder: Path, files: list[bytes]) -> Path:
    for number, content in enumerate(files, 1):
        (folder / f"image.Ex{number:02}").write_bytes(content)
    return folder / "image.Ex01"


def opened(path: Path, **options: str) -> Microvmi:
    return Microvmi(driver="dump", path=path, **options)


@pytest.mark.parametrize("files", [1, 3])
def test_chunks_of_every_kind_are_read_to_the_byte(tmp_path: Path, files: int) -> None:
    path, source = written(tmp_path, builders_ewf2.ewf2(MEMORY, files=files)), random.Random(files)
    with opened(path) as machine:
        assert machine.max_addr == len(MEMORY)
        for size in (8, PAGE, 3 * PAGE + 5, CHUNK) * 8:
            address = source.randrange(len(MEMORY) - size)
            assert machine.read_physical(address, size) == MEMORY[address : address + size]
        assert machine.padded_memory.read(len(MEMORY)) == MEMORY


def test_a_dump_within_is_found(tmp_path: Path) -> None:
    core = builders.elf({0x100000: MEMORY[:CHUNK]}, builders.prstatus(builders.values(0)))
    with opened(written(tmp_path, builders_ewf2.ewf2(core + bytes(-len(core) % 512)))) as machine:
        assert machine.read_physical(0x100000, CHUNK) == MEMORY[:CHUNK]
        assert machine.vcpu_count() == 1


def test_segments_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, builders_ewf2.ewf2(MEMORY, files=3))
    with pytest.raises(DriverUnavailableError, match=r"a later segment of an EWF image.*name the first one \(.Ex01\)"):
        opened(tmp_path / "image.Ex02")
    (tmp_path / "image.Ex03").unlink()
    with pytest.raises(IoError, match=r"the segment image.Ex03 is not there.*partial=on"):
        opened(path)
    with opened(path, partial="on") as machine:
        assert machine.max_addr == 22 * CHUNK
        assert machine.padded_memory.read(22 * CHUNK) == MEMORY[: 22 * CHUNK]
    (tmp_path / "image.Ex02").write_bytes(path.read_bytes())
    with pytest.raises(IoError, match="it is not segment 2"):
        opened(path)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    content = builders_ewf2.ewf2(MEMORY)[0]
    for files, text in (
        ([content[:8] + b"\x03" + content[9:]], "of version 3 and method 1, which cannot be read"),
        ([content[:10] + b"\x02\x00" + content[12:]], "of version 2 and method 2, which cannot be read"),
        (builders_ewf2.ewf2(MEMORY, flags=2), "an encrypted EWF image"),
        ([content[:20]], "without its header"),
    ):
        with pytest.raises(DriverUnavailableError, match=text):
            opened(written(tmp_path, files))


def test_one_that_is_cut_or_lies_is_an_error(tmp_path: Path) -> None:
    content = builders_ewf2.ewf2(MEMORY)[0]
    segment = builders_ewf2.Segment(1)
    segment.add(builders_ewf2.DEVICE, zlib.compress(builders_ewf2.text({"ts": "-1", "bp": "512"})))
    head = struct.pack("<2I2Q36x", 4, 0, 0, 1 << 40)
    for files, text in (
        ([content[:-100]], "no descriptor of a section is at"),
        ([content[:40]], "a section would lie at"),
        ([segment.content], "it does not tell its size: ts is '-1'"),
        ([content[:32] + head + struct.pack("<I", zlib.adler32(head))], "would begin at 0x20"),
    ):
        with pytest.raises(IoError, match=f"is cut short or damaged: .*{text}"):
            opened(written(tmp_path, files))


def test_a_chunk_that_was_changed_is_an_error(tmp_path: Path) -> None:
    memory = random.Random("noise").randbytes(4 * CHUNK)
    content = bytearray(builders_ewf2.ewf2(memory)[0])
    content[content.index(memory[CHUNK:][:64]) + 500] ^= 1
    with opened(written(tmp_path, [bytes(content)])) as machine:
        assert machine.read_physical(0, CHUNK) == memory[:CHUNK]
        with pytest.raises(IoError, match=r"piece 1, .* is damaged: its checksum is another"):
            machine.read_physical(CHUNK, 8)
