# SPDX-License-Identifier: Apache-2.0
"""Dumps in compressed files and containers of evidence: what is inside is read to the byte, wherever one reads."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers.dump import builders
from drivers.dump.builders import PAGE
from needs import missing

from libmicrovmi_py import DriverUnavailableError, InvalidArgumentError, IoError, Microvmi
from libmicrovmi_py.drivers.dump.segments import ending

MIB = 1 << 20


def _memory(size: int, seed: str) -> bytes:
    """Pages of zeros, of words and of noise, as memory has them."""
    source = random.Random(seed)
    kinds = [bytes(PAGE), b"some words that are there again " * 128]
    return b"".join(source.choice([*kinds, kinds[0], source.randbytes(PAGE)]) for _ in range(size // PAGE))


SIZE = 6 * MIB
MEMORY = _memory(SIZE, "memory")
NESTED = {0: MEMORY[:MIB], 0x100000: MEMORY[2 * MIB : 3 * MIB]}


def _zip(method: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.writestr("notes.txt", b"not this one")
        archive.writestr("memory.raw", MEMORY)
    return made.getvalue()


def _zlib_of_lime(content: bytes) -> bytes:
    """With a window of 2 KiB, as the module compresses."""
    made = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, 11, 5)
    return made.compress(content) + made.flush()


PYTHON: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(MEMORY, 1),
    "gzip of members": lambda: b"".join(gzip.compress(MEMORY[at : at + MIB], 1) for at in range(0, SIZE, MIB)),
    "gzip, padded": lambda: gzip.compress(MEMORY, 1) + bytes(512),
    "zlib": lambda: zlib.compress(MEMORY, 1),
    "zlib of LiME": lambda: _zlib_of_lime(MEMORY),
    "bzip2": lambda: bz2.compress(MEMORY, 1),
    "bzip2 of streams": lambda: bz2.compress(MEMORY[: 2 * MIB], 1) + bz2.compress(MEMORY[2 * MIB :], 1),
    "xz": lambda: lzma.compress(MEMORY, preset=0),
    "xz of streams": lambda: b"".join(
        lzma.compress(MEMORY[at : at + 2 * MIB], preset=0) + bytes(4) for at in range(0, SIZE, 2 * MIB)
    ),
    "zip, stored": lambda: _zip(zipfile.ZIP_STORED),
    "zip, deflated": lambda: _zip(zipfile.ZIP_DEFLATED),
    "zip of bzip2": lambda: _zip(zipfile.ZIP_BZIP2),
    "zip of lzma": lambda: _zip(zipfile.ZIP_LZMA),
}
PROGRAMS: dict[str, tuple[str, ...]] = {
    "xz of blocks": ("xz", "-0", "-T1", "--block-size=1MiB", "-c"),
    "zstd": ("zstd", "-q", "-1", "-c"),
    "zstd of frames": (
        "sh",
        "-c",
        "for i in 0 1 2 3 4 5; do dd if=$0 bs=1M skip=$i count=1 status=none | zstd -q --stream-size=1048576 -c; done",
    ),
    "zstd of pzstd": ("pzstd", "-q", "-1", "-p", "2", "-c"),
    "lz4": ("lz4", "-q", "-B5", "-c"),
    "lz4 of linked blocks": ("lz4", "-q", "-BD", "-B5", "-c"),
    "lz4, legacy": ("lz4", "-q", "-l", "-c"),
    "lz4 with checksums": ("lz4", "-q", "-B5", "-BX", "--content-size", "-c"),
    "lzop": ("lzop", "-q", "-1", "-c"),
}
AS_A_WHOLE = {"xz", "zip of bzip2", "zip of lzma", "zstd", "zstd of pzstd", "lz4 of linked blocks"}
"""Those without entry points."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The memory, packed in the way of that name."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "memory").write_bytes(MEMORY)

    def make(name: str) -> Path:
        path = folder / name
        if path.exists():
            return path
        if name in PYTHON:
            path.write_bytes(PYTHON[name]())
        else:
            path.write_bytes(_packed_by(PROGRAMS[name], folder / "memory"))
        return path

    return make


def _packed_by(command: tuple[str, ...], path: Path) -> bytes:
    for program in ("zstd",) if command[0] == "sh" else command[:1]:
        if shutil.which(program) is None:
            package = {"xz": "xz-utils", "pzstd": "zstd"}.get(program, program)
            missing(f"no {program}; to enable: apt-get install {package}")
    return subprocess.run([*command, str(path)], stdout=subprocess.PIPE, check=True).stdout


def opened(path: Path, **options: str) -> Microvmi:
    return Microvmi(driver="dump", path=path, **options)


def assert_same(machine: Microvmi, memory: bytes, seed: str) -> None:
    """Whether reads of all sizes anywhere, and all of it, are those of the memory."""
    source = random.Random(seed)
    for size in (8, 100, PAGE, 3 * PAGE + 5, MIB) * 4:
        address = source.randrange(len(memory) - size)
        assert machine.read_physical(address, size) == memory[address : address + size]
    assert machine.padded_memory.read(len(memory)) == memory
    assert machine.read_physical(len(memory) - 8, 8) == memory[-8:]


@pytest.mark.parametrize("name", [*PYTHON, *PROGRAMS])
def test_what_is_packed_is_read_to_the_byte(packed: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    path = packed(name)
    with opened(path) as machine:
        assert machine.max_addr == len(MEMORY)
        assert machine.memory_map()[-1].end == len(MEMORY)
        assert_same(machine, MEMORY, name)
    with opened(path, unpack=str(tmp_path)) as machine:
        assert machine.read_physical(0x123456, 5000) == MEMORY[0x123456:][:5000]
        assert list(tmp_path.iterdir()) == [], "the file has no name"


@pytest.mark.parametrize("name", [*PYTHON, *PROGRAMS])
def test_how_it_was_unpacked_is_said(
    packed: Callable[[str], Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(packed(name)):
        said = [line for line in caplog.messages if "without entry points: unpacked in memory, 6 MiB" in line]
        assert len(said) == (name in AS_A_WHOLE), caplog.messages


@pytest.mark.parametrize(
    "name", [name for name in (*PYTHON, *PROGRAMS) if not name.startswith("zip") and name != "lz4, legacy"]
)
def test_of_a_packed_file_that_is_cut_what_is_there_is_right(
    packed: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    content, sizes = packed(name).read_bytes(), []
    for end in (len(content) // 3, len(content) * 3 // 4, len(content) - 600):
        path = tmp_path / "cut"
        path.write_bytes(content[:end])
        with pytest.raises(IoError, match=r"is cut short or damaged.*partial=on"):
            opened(path)
        with opened(path, partial="on") as machine:
            there = machine.max_addr
            assert machine.padded_memory.read(there) == MEMORY[:there]
            sizes.append(there)
    assert len(MEMORY) // 8 < sizes[0] < sizes[1] <= sizes[2] <= len(MEMORY)


@pytest.mark.parametrize("name", [*PYTHON, *PROGRAMS])
def test_a_byte_that_is_another_is_never_memory(packed: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    content, source, path = packed(name).read_bytes(), random.Random(name), tmp_path / "changed"
    checked = name not in (
        "lz4",
        "lz4 with checksums",
        "lz4, legacy",
        "lz4 of linked blocks",
        "lzop",
        "zstd of frames",
        "zip, stored",
    )
    for _ in range(4):
        changed = bytearray(content)
        changed[source.randrange(len(content))] ^= 1 << source.randrange(8)
        path.write_bytes(changed)
        try:
            with opened(path) as machine:
                found = machine.padded_memory.read(len(MEMORY))
        except (IoError, DriverUnavailableError):
            continue
        assert not checked or found[: len(MEMORY)] == MEMORY[: len(found)]


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("outer", PACKERS)
@pytest.mark.parametrize("format_", ["lime", "elf", "kdump", "flat"])
def test_dumps_of_every_format_are_found_within(tmp_path: Path, outer: str, format_: str) -> None:
    notes = builders.qemu_note(builders.values(0))
    made = {
        "lime": lambda: builders.lime(NESTED),
        "elf": lambda: builders.elf(NESTED, notes),
        "kdump": lambda: builders.kdump(NESTED, notes),
        "flat": lambda: builders.flattened(builders.kdump(NESTED, notes)),
    }[format_]()
    path = tmp_path / "dump"
    path.write_bytes(PACKERS[outer](made))
    with opened(path) as machine:
        for start, content in NESTED.items():
            assert machine.read_physical(start, len(content)) == content
        assert machine.memory_map()[-1].end == 0x200000
        if format_ != "lime":
            assert machine.vcpu_count() == 1


def test_a_lime_range_that_ends_within_a_frame_is_there(tmp_path: Path) -> None:
    memory = {0x1000: MEMORY[:0x9EC00], 0x100200: MEMORY[:0x1F00]}
    path = tmp_path / "dump"
    path.write_bytes(gzip.compress(builders.lime(memory)))
    with opened(path) as machine:
        for start, content in memory.items():
            assert machine.read_physical(start, len(content)) == content
            for offset in (0, 8, len(content) - 8):
                assert machine.read_physical(start + offset, 8) == content[offset:][:8]
        assert machine.read_physical(0x9FC00, 0x400) == bytes(0x400), "the rest of a frame"
        assert machine.read_physical(0x100100, 0x104) == bytes(0x100) + MEMORY[:4]
        buffer = bytearray(16)
        assert machine.read_physical_into(0xA0000, buffer) == 0
        assert machine.read_physical_into(0, buffer) == 0


def test_wrappers_within_each_other_are_taken_off_but_not_without_end(tmp_path: Path) -> None:
    content = MEMORY[:MIB]
    for _ in range(4):
        content = gzip.compress(content)
    (tmp_path / "four").write_bytes(content)
    (tmp_path / "five").write_bytes(gzip.compress(content))
    with opened(tmp_path / "four") as machine:
        assert machine.read_physical(0, MIB) == MEMORY[:MIB]
    with pytest.raises(DriverUnavailableError, match="is a gzip file within 4 others"):
        opened(tmp_path / "five")
    with opened(tmp_path / "five", format="raw") as machine:
        assert machine.read_physical(0, 3) == b"\x1f\x8b\x08"


def test_a_file_that_becomes_more_than_any_memory_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bz2.compress(bytes(30 * MIB)) * 9)
    assert path.stat().st_size < 2000
    with pytest.raises(IoError, match="that is no image of memory"):
        opened(path)


def test_zeros_take_no_room(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    path.write_bytes(lzma.compress(bytes(100 * MIB) + b"x", preset=0))
    with opened(path) as machine:
        assert machine.max_addr == 100 * MIB + 1
        assert machine.read_physical(100 * MIB, 1) == b"x"
        assert machine.memory.seek(0, os.SEEK_DATA) >= 99 * MIB


def test_a_folder_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(lzma.compress(MEMORY[:PAGE]))
    with pytest.raises(InvalidArgumentError, match="unpack=/absent: no file can be made there"):
        opened(tmp_path / "packed", unpack="/absent")


def test_a_zip_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("container.description", b"aff4://")
        archive.writestr("information.turtle", MEMORY[:PAGE])
    path = tmp_path / "archive"
    for content, text in (
        (made.getvalue(), "is an AFF4 image, which cannot be read: convert it to raw"),
        (_zip(zipfile.ZIP_STORED)[:5000], "is a zip file without its directory"),
    ):
        path.write_bytes(content)
        with pytest.raises(DriverUnavailableError, match=text):
            opened(path)


# ----------------------------------------------------------------------------------------------------------------- EWF

EWF = {
    "of one segment": ("-c", "deflate:fast", "-b", "64", "-S", "1.4 GiB"),
    "not compressed": ("-c", "deflate:none", "-b", "64", "-S", "1.4 GiB"),
    "of empty blocks": ("-c", "deflate:empty-block", "-b", "32", "-S", "1.4 GiB"),
    "of many segments": ("-c", "deflate:none", "-b", "64", "-S", "1 MiB"),
    "encase 5, best": ("-c", "deflate:best", "-b", "512", "-S", "1 MiB", "-f", "encase5"),
}


@pytest.fixture(scope="module", params=EWF)
def evidence(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that ewfacquirestream made of the memory."""
    if shutil.which("ewfacquirestream") is None:
        missing("no ewfacquirestream; to enable: apt-get install ewf-tools")
    folder = tmp_path_factory.mktemp("ewf")
    command = ["ewfacquirestream", "-q", "-t", str(folder / "image"), *EWF[request.param]]
    subprocess.run(command, input=MEMORY, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder / "image.E01"


def test_evidence_files_of_ewf_tools_are_read_to_the_byte(evidence: Path) -> None:
    with opened(evidence) as machine:
        assert machine.max_addr == len(MEMORY)
        assert_same(machine, MEMORY, evidence.name)
    later = evidence.with_name("image.E02")
    if later.exists():
        with pytest.raises(DriverUnavailableError, match=r"a later segment.*name the first one"):
            opened(later)
        last = sorted(evidence.parent.iterdir())[-1]
        last.rename(evidence.parent / "elsewhere")
        with pytest.raises(IoError, match=f"the segment {last.name} is not there.*partial=on"):
            opened(evidence)
        with opened(evidence, partial="on") as machine:
            assert machine.padded_memory.read(machine.max_addr) == MEMORY[: machine.max_addr]
            assert len(MEMORY) // 3 < machine.max_addr < len(MEMORY)
        (evidence.parent / "elsewhere").rename(last)


def test_a_chunk_of_evidence_that_was_changed_is_an_error(evidence: Path) -> None:
    content = evidence.read_bytes()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 0x40
    (evidence.parent / "changed.E01").write_bytes(changed)
    for path in evidence.parent.glob("image.E*"):
        if path != evidence and not (evidence.parent / f"changed{path.suffix}").exists():
            (evidence.parent / f"changed{path.suffix}").symlink_to(path)
    with opened(evidence.parent / "changed.E01") as machine, pytest.raises(IoError, match=r"piece .* is damaged"):
        machine.memory.readall()


def test_the_names_of_segments_go_on_behind_99() -> None:
    names = {1: ".E01", 99: ".E99", 100: ".EAA", 125: ".EAZ", 126: ".EBA", 775: ".EZZ", 776: ".FAA"}
    assert {number: ending("image.E01", number) for number in names} == names
    assert ending("image.e01", 100) == ".eaa"
    names = {2: ".Ex02", 99: ".Ex99", 100: ".ExAA", 775: ".ExZZ", 776: ".EyAA"}
    assert {number: ending("image.Ex01", number) for number in names} == names


def test_deflate_with_far_entry_points_is_read_at_random(tmp_path: Path) -> None:
    """Zeros become a thousandth: a piece is then as large as what a few KiB of the file become."""
    memory, packer = bytes(50 * MIB) + MEMORY[:MIB] + bytes(30 * MIB) + b"the end.", zlib.compressobj(1, wbits=31)
    (tmp_path / "zeros.gz").write_bytes(packer.compress(memory) + packer.flush())
    with opened(tmp_path / "zeros.gz") as machine:
        for address in (0, 33 * MIB, 50 * MIB, 50 * MIB + 12345, 70 * MIB, len(memory) - 8):
            assert machine.read_physical(address, 8) == memory[address : address + 8]


def test_memory_that_begins_like_a_zlib_stream_is_memory(tmp_path: Path) -> None:
    path = tmp_path / "image"
    for begin in (b"\x78\x9c", b"\x78\x01", b"\x38\x8d"):
        path.write_bytes(begin + bytes(range(256)) * 32)
        with opened(path) as machine:
            assert machine.read_physical(0, 4) == begin + b"\0\1"


def test_behind_the_headers_of_a_flattened_dump_nothing_was_written(tmp_path: Path) -> None:
    """As makedumpfile writes them; what is in no record elsewhere was lost."""
    made, path = builders.kdump(NESTED, builders.qemu_note(builders.values(0))), tmp_path / "dump"
    end = 8192 - len(builders.qemu_note(builders.values(0)))
    pieces = {0: made[:464], PAGE: made[PAGE : PAGE + 112], end: made[end:8000], 8000: made[8000:]}
    path.write_bytes(_records(pieces))
    with opened(path) as machine:
        assert machine.vcpu_count() == 1
        for start, content in NESTED.items():
            assert machine.read_physical(start, len(content)) == content
    for lost in (slice(464, 4000), slice(8192, 8200)):
        path.write_bytes(_records({0: made[: lost.start], lost.stop: made[lost.stop :]}))
        with pytest.raises(IoError, match=f"no record has the bytes at {lost.start:#x}"):
            opened(path)


def _records(pieces: dict[int, bytes]) -> bytes:
    """A flattened file of records."""
    head, end = builders.flattened(b"")[:PAGE], builders.flattened(b"")[-16:]
    rows = (at.to_bytes(8, "big") + len(data).to_bytes(8, "big") + data for at, data in pieces.items())
    return head + b"".join(rows) + end
