# SPDX-License-Identifier: Apache-2.0
"""Files that are cut short or lie are a clear error when they are opened, and nothing worse."""

from __future__ import annotations

import os
import random
import re
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers.dump import builders
from drivers.dump.builders import PAGE, values

from libmicrovmi_py import DriverUnavailableError, InvalidArgumentError, IoError, Microvmi, MicrovmiError
from libmicrovmi_py.drivers.dump import formats
from libmicrovmi_py.drivers.dump.bitmap import runs
from libmicrovmi_py.drivers.dump.image import File

MEMORY = {0: bytes(3 * PAGE), 0x10000: bytes(range(256)) * 64, 0x100000: b"\x11" * PAGE}
NOTES = builders.qemu_note(values(0)) + builders.virtualbox_notes([values(1)])

LIME = builders.lime(MEMORY)
ELF = builders.elf(MEMORY, NOTES)
ELF_32 = builders.elf(MEMORY, NOTES, bits=32, machine=3, many=True)
FULL = builders.windows(MEMORY, context=builders.windows_context(values(0)))
BITMAP = builders.windows(MEMORY, kind=5)
KDUMP = builders.kdump(MEMORY, NOTES)
FLAT = builders.flattened(KDUMP)
TABLE = 4 * PAGE
"""Where the descriptors of pages begin in KDUMP."""

ALL = {"lime": LIME, "elf": ELF, "elf-32": ELF_32, "full": FULL, "bitmap": BITMAP, "kdump": KDUMP, "flat": FLAT}


PARTIAL = ", or open what is there with partial=on"
"""How an error ends if the rest of the file can be read."""


def opened(folder: Path, content: bytes, **options: str) -> Microvmi:
    """A file of that content as a machine."""
    path = folder / "the dump"
    path.write_bytes(content)
    return Microvmi(driver="dump", path=path, **options)


def changed(content: bytes, offset: int, layout: str, *words: int | bytes) -> bytes:
    """The content with other words from ``offset`` on."""
    result = bytearray(content)
    struct.pack_into("<" + layout, result, offset, *words)
    return bytes(result)


def segment(index: int, field: int) -> int:
    """Where the word of a program header is in ELF: 1 offset, 3 physical address, 4 size in the file."""
    return 64 + 56 * index + 8 * field


LIES = {
    "cut LiME header": (LIME + LIME[:20], "header of a range"),
    "LiME end before start": (changed(LIME, 8, "QQ", 0x5000, 0x4000), "goes from 0x5000 to 0x4000"),
    "LiME beyond any machine": (changed(LIME, 8, "QQ", 0, (1 << 64) - 1), "goes from 0x0"),
    "LiME twice": (LIME + builders.lime({0x2000: bytes(PAGE)}), "memory at 0x2000 is there twice"),
    "no LiME range": (LIME + b"something else that is long enough for a header", "no LiME range at"),
    "ELF class": (changed(ELF, 4, "B", 3), "no ELF header of 32 or 64 bits"),
    "ELF program header size": (changed(ELF, 54, "H", 55), "program headers have 55 bytes"),
    "ELF unfinished": (changed(ELF, 48, "I", 1), "not finished"),
    "ELF of 32 bits unfinished": (changed(ELF_32, 36, "I", 1), "not finished"),
    "ELF table beyond the end": (changed(ELF, 32, "Q", len(ELF) - 50), "4 program headers"),
    "ELF table overflow": (changed(ELF, 32, "Q", (1 << 64) - 16), "4 program headers"),
    "ELF segment beyond the end": (changed(ELF, segment(3, 1), "Q", len(ELF)), "memory from 0x100000 on"),
    "ELF segment overflow": (changed(ELF, segment(3, 4), "Q", (1 << 64) - 1), "memory would be at 0x100000"),
    "ELF address overflow": (changed(ELF, segment(3, 3), "Q", (1 << 64) - 1), "memory would be at 0xffffffffffffffff"),
    "ELF notes beyond the end": (changed(ELF, segment(0, 1), "Q", len(ELF)), "notes would lie at"),
    "ELF notes too long": (changed(ELF, segment(0, 4), "Q", 1 << 40), "notes are longer"),
    "ELF count beyond the end": (changed(ELF_32, 32, "I", 0xFFFFFFF0), "number of segments"),
    "Windows without runs": (changed(FULL, 0x88, "I", 0), "0 runs"),
    "Windows too many runs": (changed(FULL, 0x88, "I", 43), "43 runs"),
    "Windows other sum": (changed(FULL, 0x90, "Q", 9), "0x9 pages in all"),
    "Windows overlapping runs": (changed(FULL, 0x98 + 16, "Q", 2), "overlap or are not in order"),
    "Windows descending runs": (changed(FULL, 0x98, "QQQQ", 0x10, 3, 0, 4), "overlap or are not in order"),
    "Windows empty run": (changed(FULL, 0x88, "IIQQQ", 1, 0, 0, 5, 0), "there is no memory in it"),
    "Windows huge run": (changed(FULL, 0x88, "IIQQQ", 1, 0, 1 << 63, 5, 1 << 63), "up to page 0x8000000000000005"),
    "Windows processors": (changed(FULL, 0x34, "I", 0), "0 processors"),
    "Windows bitmap header": (changed(BITMAP, 0x2000, "8s", b"ANOTHER!"), "no header of a bitmap"),
    "Windows bitmap into pages": (changed(BITMAP, 0x2030, "Q", 1 << 40), "reaches into the pages"),
    "Windows bitmap beyond": (changed(BITMAP, 0x2020, "QQQ", 1 << 60, 8, 1 << 40), "bitmap of pages would lie"),
    "Windows bitmap count": (changed(BITMAP, 0x2028, "Q", 7), "0x8 pages, not 0x7"),
    "Windows first page": (changed(BITMAP, 0x2020, "Q", 1 << 60), "memory from page 0x0 on"),
    "kdump block size 0": (changed(KDUMP, 428, "I", 0), "size that no machine has"),
    "kdump block size 4097": (changed(KDUMP, 428, "I", 4097), "size that no machine has"),
    "kdump unfinished": (changed(KDUMP, 424, "I", 8), "not finished"),
    "kdump sub header": (changed(KDUMP, 432, "I", 0xFFFFFFFF), "bitmaps of pages would lie"),
    "kdump no bitmap": (changed(KDUMP, 436, "I", 0), "too short for 0x101 pages"),
    "kdump bitmap too long": (changed(KDUMP, 436, "I", 1 << 20), "bitmaps of pages would lie"),
    "kdump pages": (changed(KDUMP, PAGE + 96, "Q", 1 << 60), "too short for 0x1000000000000000 pages"),
    "kdump more pages": (changed(KDUMP, 3 * PAGE, "512s", b"\xff" * 512), "descriptors of"),
    "kdump notes": (changed(KDUMP, PAGE + 48, "QQ", 1 << 62, 100), "notes would lie"),
    "kdump notes too long": (changed(KDUMP, PAGE + 56, "Q", 1 << 40), "notes are longer"),
    "kdump page beyond the end": (changed(KDUMP, TABLE + 24, "Q", len(KDUMP)), "a page would end at"),
    "kdump page overflow": (changed(KDUMP, TABLE + 24, "Q", (1 << 64) - 1), "a page would end at"),
    "kdump page size 0": (changed(KDUMP, TABLE + 32, "I", 0), "a page would have 0 bytes"),
    "kdump page size": (changed(KDUMP, TABLE + 32, "I", PAGE + 1), "or 4097"),
    "record size": (changed(FLAT, 4104, "Q", 0), "record 0 at 0x1000"),
    "record cut": (FLAT[:-16], "record"),
    "no records": (FLAT[:4096] + b"\xff" * 16, "there are no records in it"),
    "record missing": (FLAT[:4096] + FLAT[4096 + 2 * 5016 :], "no record has the bytes"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_an_error_that_names_the_file_what_is_wrong_and_the_way_out(tmp_path: Path, name: str) -> None:
    content, text = LIES[name]
    with pytest.raises(IoError, match=text) as caught:
        opened(tmp_path, content)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'the dump'} is cut short or damaged: ")
    assert "format=raw" not in message, "which would give wrong bytes at every address"
    assert message.removesuffix(PARTIAL).endswith("; copy it again, or make the dump anew")
    assert "\n" not in message
    opened(tmp_path, content, format="raw").close()


@pytest.mark.parametrize("content", [LIME, ELF, ELF_32, FULL], ids=["lime", "elf", "elf-32", "full"])
def test_a_file_that_is_cut_says_how_many_bytes_are_missing(tmp_path: Path, content: bytes) -> None:
    for missing in (1, 77):
        with pytest.raises(IoError, match=f": {missing} bytes are missing; copy it again, or make the dump anew"):
            opened(tmp_path, content[:-missing])


@pytest.mark.parametrize("name", ALL)
def test_a_file_cut_anywhere_is_an_error(tmp_path: Path, name: str) -> None:
    content = ALL[name]
    opened(tmp_path, content).close()
    ends = {len(content) - 1, len(content) // 2, *range(20, len(content), max(len(content) // 40, 1))}
    for end in sorted(ends - (_ends_of_lime() if name == "lime" else set())):
        with pytest.raises(IoError, match="is cut short or damaged"):
            opened(tmp_path, content[:end])


def _ends_of_lime() -> set[int]:
    """Where a LiME file may end: after any range."""
    ends, position = set(), 0
    for content in MEMORY.values():
        position += 32 + len(content)
        ends.add(position)
    return ends


REFUSED = {
    "LiME 2": (changed(LIME, 4, "I", 2), "a LiME image of version 2"),
    "big-endian": (builders.elf(MEMORY, order=">"), "a big-endian ELF core"),
    "program": (changed(ELF, 16, "H", 2), "an ELF file but no core"),
    "no memory": (builders.elf({}), "an ELF core without memory"),
    "process": (changed(changed(ELF, segment(2, 3), "Q", 0), segment(3, 3), "Q", 0), "the core of a process"),
    "too many segments": (changed(ELF_32, 52 + 28, "I", 1 << 30), "an ELF core of 1073741824 segments"),
    "triage": (changed(FULL, 0xF98, "I", 4), "a Windows crash dump of type 4"),
    "split": (builders.kdump(MEMORY, span=(0, 1)), "one part of a split dump: pages 0x1 to "),
    "codec": (builders.kdump(MEMORY, flag=0x40), "a kdump file with pages of kind 0x40"),
    "flattened something": (builders.flattened(bytes(PAGE)), "a flattened file of an unknown format"),
    "flattened type": (changed(FLAT, 16, "Q", 0), "a flattened dump of type 0"),
    "AVML 3": (b"AVML\3" + bytes(PAGE), "an AVML image of version 3"),
    "libvirt": (b"LibvirtQemudSave" + bytes(PAGE), "a saved machine of libvirt"),
    "QEMU": (b"QEVM" + bytes(PAGE), "a saved machine of QEMU"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_not_taken_for_raw(tmp_path: Path, name: str) -> None:
    content, text = REFUSED[name]
    with pytest.raises(DriverUnavailableError, match=f"{tmp_path / 'the dump'} is {text}.*, which cannot be read: "):
        opened(tmp_path, content)
    with opened(tmp_path, content, format="raw") as machine:
        assert machine.read_physical(0, 4) == content[:4]


@pytest.mark.parametrize("form", ["avml", "lime", "elf", "windows", "kdump"])
def test_a_format_that_is_named_has_to_be_there(tmp_path: Path, form: str) -> None:
    for content in (b"x", bytes(3 * PAGE), b"text" * PAGE):
        with pytest.raises(IoError, match="is cut short or damaged"):
            opened(tmp_path, content, format=form)


def test_a_format_that_does_not_exist_is_an_error_with_those_that_do(tmp_path: Path) -> None:
    names = sorted(path.stem for path in Path(formats.__path__[0]).glob("[a-z]*.py"))
    assert {"elf", "kdump", "lime", "qemu", "raw", "vmware", "windows"} <= set(names)
    with pytest.raises(InvalidArgumentError, match=f"format=vmdk: use {', '.join(names)}, or leave it out"):
        opened(tmp_path, LIME, format="vmdk")


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        (b"no zlib", "incorrect header check"),
        (zlib.compress(bytes(PAGE))[:-4], "is not 4096 bytes"),
        (zlib.compress(bytes(PAGE - 1)), "is not 4096 bytes"),
        (zlib.compress(bytes(PAGE + 1)), "is not 4096 bytes"),
        (zlib.compress(bytes(2 << 20)), "is not 4096 bytes"),
    ],
    ids=["garbage", "cut", "shorter", "longer", "bomb"],
)
def test_a_page_that_cannot_be_unpacked_is_an_error_where_it_is_read(tmp_path: Path, packed: bytes, text: str) -> None:
    memory = {0: bytes(PAGE), 0x1000: b"\1" * PAGE, 0x2000: bytes(PAGE)}
    content = builders.kdump(memory, pack=lambda page: packed if page[0] else zlib.compress(page))
    with opened(tmp_path, content) as machine:
        assert machine.read_physical(0, PAGE) == bytes(PAGE)
        assert machine.read_physical(0x2000, PAGE) == bytes(PAGE)
        for address, size, completed in ((0x1000, 8, 0), (0x1000, PAGE, 0), (0xFF8, 0x2000, 8), (0x800, 0x1000, 0x800)):
            with pytest.raises(IoError, match=f"physical address 0x1000 is damaged: .*{text}") as caught:
                machine.read_physical(address, size)
            assert caught.value.completed == completed
        results = machine.read_physical_batch([(0, bytearray(8)), (0x1000, bytearray(8)), (0x2000, bytearray(8))])
        assert [item.error is None for item in results] == [True, False, True]


def test_a_packed_dump_that_is_cut_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    with opened(tmp_path, KDUMP) as machine:
        (tmp_path / "the dump").write_bytes(KDUMP[:TABLE])
        with pytest.raises(IoError, match="became shorter while it was open"):
            machine.read_physical(0, PAGE)


@pytest.mark.alone
def test_a_sparse_file_of_a_huge_machine_is_opened_at_once(tmp_path: Path) -> None:
    content = bytearray(KDUMP[: 2 * PAGE])
    struct.pack_into("<I", content, 436, 2 * (1 << 40) // 8 // PAGE)  # bitmaps of 128 GiB each, all of them a hole
    struct.pack_into("<Q", content, PAGE + 96, 1 << 40)
    record = builders.flattened(b"")[:PAGE] + struct.pack(">qq", 0, 1 << 39)
    for written in (content, record + content):
        path = tmp_path / "sparse"
        path.write_bytes(written)
        os.truncate(path, 1 << 42)
        started = time.monotonic()
        with pytest.raises(IoError, match="is cut short or damaged"):
            Microvmi(driver="dump", path=path)
        assert time.monotonic() - started < 3, "a hole is not read"


def test_what_a_sparse_bitmap_has_is_found(tmp_path: Path) -> None:
    path, places = tmp_path / "bitmap", (1 << 30, (1 << 34) + 5)
    path.write_bytes(bytes(PAGE) + b"\x0c")
    with path.open("r+b") as file:
        for place in places:
            file.seek(PAGE + place)
            file.write(b"\x81")
    image = File.open(str(path))
    expected = [(2, 4), *((8 * place + bit, 8 * place + bit + 1) for place in places for bit in (0, 7))]
    assert list(runs(image, PAGE, 8 * (image.size - PAGE))) == expected


# ----------------------------------------------------------------------------------------------------------------- fuzz


def _interesting(name: str) -> Callable[[random.Random], int]:
    """Offsets whose bytes mean something: a flip in a megabyte of zeros tells nothing."""
    places = {
        "lime": [range(32)],
        "elf": [range(64 + 4 * 56 + 64)],
        "elf-32": [range(52 + 40 + 4 * 32 + 64)],
        "full": [range(0xD0), range(0x370, 0x390), range(0xF98, 0xF9C)],
        "bitmap": [range(0x40), range(0xF98, 0xF9C), range(0x2000, 0x2080)],
        "kdump": [
            range(16),
            range(412, 464),
            range(PAGE, PAGE + 104),
            range(3 * PAGE, 3 * PAGE + 40),
            range(TABLE, TABLE + 200),
        ],
        "flat": [range(32), range(4096, 4112), range(9112, 9128)],
    }[name]
    return lambda source: source.choice(source.choice(places))


@pytest.mark.parametrize("name", ALL)
def test_whatever_the_headers_say_it_opens_or_is_one_line(tmp_path: Path, name: str) -> None:
    source, place, seen = random.Random(name), _interesting(name), 0
    for _ in range(300):
        content = bytearray(ALL[name])
        for _ in range(source.randint(1, 3)):
            at, size = place(source), source.choice([1, 2, 4, 8])
            word = source.choice(
                [0, 1, 0xFF, 0x1000, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 52, (1 << 64) - 1, source.getrandbits(64)]
            )
            content[at : at + size] = (word & (1 << 8 * size) - 1).to_bytes(size, "little")
        if source.random() < 0.1:
            del content[source.randrange(len(content)) :]
        seen += _survives(tmp_path, bytes(content))
    assert 0 < seen < 300, "some open and some do not"


def _survives(folder: Path, content: bytes) -> bool:
    """Open and read; whether it opened. Anything but a MicrovmiError of one line fails the test."""
    errors: list[MicrovmiError] = []
    try:
        with opened(folder, content or b"x") as machine:
            machine.memory_map()
            for address in (0, 0x10000, 0x100000, machine.max_addr - 1):
                _read(machine, address, errors)
            return True
    except MicrovmiError as err:
        errors.append(err)
        return False
    finally:
        assert [str(err) for err in errors if not re.fullmatch(r"[^\n]+", str(err))] == []


def _read(machine: Microvmi, address: int, errors: list[MicrovmiError]) -> None:
    try:
        machine.read_physical_into(address, bytearray(2 * PAGE))
    except MicrovmiError as err:
        errors.append(err)
