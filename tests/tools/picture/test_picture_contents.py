# SPDX-License-Identifier: Apache-2.0
"""What frames are taken for, and that every frame of a machine is looked at."""

from __future__ import annotations

import random
import struct
import sysconfig
import zlib
from pathlib import Path

import pytest

from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.picture import contents
from libmicrovmi_py.tools.picture.contents import Content, Run, look
from libmicrovmi_py.transport.native import native

PAGE = 4096
SOURCE = random.Random(1)


def guesses(content: bytes, *, aarch64: bool = False) -> list[Content]:
    """What C takes pages for; what is left of the last one is zeros."""
    count = -(-len(content) // PAGE)
    ffi, lib = native()
    told = bytearray(count)
    lib.mvi_contents(ffi.from_buffer(content.ljust(count * PAGE, b"\0")), count, aarch64, ffi.from_buffer(told))
    return [Content(number) for number in told]


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def test_zeros_are_zero_and_one_byte_is_not() -> None:
    last = bytes(PAGE - 1) + b"\1"
    assert guesses(bytes(PAGE) + last + bytes(2 * PAGE)) == [Content.ZERO, Content.DATA, Content.ZERO, Content.ZERO]


@pytest.mark.parametrize("text", ["All happy families are alike.\n", "tab\there "], ids=["lines", "tabs"])
@pytest.mark.parametrize("coding", ["ascii", "utf-16-le"])
def test_characters_are_text(text: str, coding: str) -> None:
    content = (text * 200).encode(coding)[:PAGE]
    assert guesses(content) == [Content.TEXT]
    assert guesses(content[:1000]) == [Content.TEXT]


def test_what_is_compressed_is_random() -> None:
    text = b"".join(b"%d\n" % SOURCE.randrange(1 << 30) for _ in range(40000))
    packed = zlib.compress(text)
    whole = len(packed) // PAGE
    assert whole > 20
    assert guesses(packed[: whole * PAGE]) == [Content.RANDOM] * whole
    assert guesses(SOURCE.randbytes(100 * PAGE)) == [Content.RANDOM] * 100


@pytest.mark.parametrize("base", [0xFFFF_8880_0000_0000, 0x7F12_3400_0000, 0x5612_3400_0000, 0xAAAA_1200_0000])
def test_addresses_of_kernels_and_programs_are_pointers(base: int) -> None:
    addresses = [base + SOURCE.randrange(1 << 28) if index % 3 == 0 else index for index in range(512)]
    assert guesses(words(*addresses)) == [Content.POINTERS]


def test_numbers_are_no_pointers() -> None:
    small = [index % 300 | (index % 7) << 32 for index in range(512)]
    assert guesses(words(*small)) == [Content.DATA]
    assert guesses(words(*[(1 << 64) - 1 - index % 300 for index in range(512)])) == [Content.DATA]


def code_of_this_python() -> bytes:
    """Instructions that a compiler made: the text of this process's C library."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "r-xp" in line and "libc.so" in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            with open("/proc/self/mem", "rb") as memory:
                memory.seek(start)
                return memory.read(end - start)
    raise AssertionError("no C library")


def test_instructions_are_code() -> None:
    aarch64 = sysconfig.get_platform().endswith("aarch64")
    told = guesses(code_of_this_python(), aarch64=aarch64)
    assert told.count(Content.CODE) > 0.9 * len(told)


def test_instructions_of_the_other_processor_are_code_there() -> None:
    """AArch64: stp, mov, bl, ldr, add, cbz, ret and others, as compilers mix them."""
    common = [
        0xA9BF7BFD,
        0x910003FD,
        0x94000123,
        0xF9400260,
        0x8B010000,
        0xB4000060,
        0xD65F03C0,
        0xAA0003E1,
        0x52800020,
    ]
    content = struct.pack("<1024I", *(SOURCE.choice(common) for _ in range(1024)))
    assert guesses(content, aarch64=True) == [Content.CODE]
    assert Content.CODE not in guesses(SOURCE.randbytes(50 * PAGE) + words(*range(512)), aarch64=True)


def image(path: Path, pages: dict[int, bytes], size: int) -> str:
    """A sparse file with these pages, by number."""
    with path.open("wb") as file:
        for number, content in pages.items():
            file.seek(number * PAGE)
            file.write(content)
        file.truncate(size)
    return str(path)


def test_every_frame_is_looked_at(tmp_path: Path) -> None:
    text, noise = b"a" * PAGE, SOURCE.randbytes(PAGE)
    pages = {0: text, 300: noise, 301: noise, 16384: text, 40000: noise[:100]}
    size = 40000 * PAGE + 100
    seen: list[int] = []
    with Microvmi.open(image(tmp_path / "image", pages, size)) as machine:
        picture = look(machine, seen.append)
    assert [tuple(run) for run in picture.runs()] == [
        *((0, 1, Content.TEXT), (1, 299, Content.ZERO), (300, 2, Content.RANDOM), (302, 16082, Content.ZERO)),
        *((16384, 1, Content.TEXT), (16385, 23615, Content.ZERO), (40000, 1, Content.DATA)),
    ]
    assert picture.totals()[Content.DATA] == 100
    assert sum(picture.totals().values()) == size == seen[-1]


def test_what_is_no_memory_is_told() -> None:
    with Microvmi.open("vmi://fake/?size=0x40000&holes=0x4000-0x6000,0x8000-0x9000") as machine:
        runs = [run for run in look(machine).runs() if run.content is Content.UNMAPPED]
    assert runs == [Run(4, 2, Content.UNMAPPED), Run(8, 1, Content.UNMAPPED)]


def test_frames_of_a_large_machine_are_told_together(tmp_path: Path) -> None:
    """One of a group that holds something is not lost among zeros, and the most frequent one is what the group is."""
    size = (contents.MOST_CELLS + 1) * PAGE
    text, noise = b"a" * PAGE, SOURCE.randbytes(PAGE)
    pages = {3: text, 100: noise, 101: text, contents.MOST_CELLS: noise}
    with Microvmi.open(image(tmp_path / "image", pages, size)) as machine:
        picture = look(machine)
    assert picture.cell == 2 * PAGE
    assert [(run.first, run.content) for run in picture.runs() if run.content is not Content.ZERO] == [
        (1, Content.TEXT),
        (50, Content.TEXT),
        (contents.MOST_CELLS // 2, Content.RANDOM),
    ]
