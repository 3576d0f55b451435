# SPDX-License-Identifier: Apache-2.0
"""Symbol files that are made of a guest's memory, as binutils reads them."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import NotMappedError, NotSupportedError, PermissionDeniedError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.paging import Paging
from libmicrovmi_py.tools.gdb.symbols import symbol_file
from libmicrovmi_py.tools.gdb.unwind import debug_frame

TEXT, PLACES, ROWS, END = 0x1000, 0x2000, 0x3000, 0x8000

NAMES = {
    **{"_text": TEXT, "_stext": TEXT, "_etext": 0x1800, "_end": END, "variable": 0x4000, "schedule": 0x1010},
    **{"__start_orc_unwind_ip": PLACES, "__stop_orc_unwind_ip": PLACES + 24, "__start_orc_unwind": ROWS},
}


class Symbols:
    """Names and addresses, as a kernel's."""

    def __init__(self, names: Mapping[str, int]) -> None:
        self._names = names

    def __iter__(self) -> Iterator[tuple[int, str, str]]:
        return ((address, "T" if address < 0x1800 else "D", name) for name, address in self._names.items())

    def get(self, name: str, /) -> int | None:
        return self._names.get(name)


@dataclass(frozen=True)
class Image:
    """What is taken of a kernel."""

    release: str
    architecture: str
    symbols: Symbols
    space: AddressSpace


Row = tuple[int, int, int, int]

OLD: Sequence[Row] = (
    (8, 0, 5, 0),
    (16, -16, 0x15, 0),
    (16, -16, 0x14, 0),
    (0, 0, 5, 1),
    (-16, 0, 0x48, 0),
    (0, 0, 0, 4),
)
NEW: Sequence[Row] = (
    (8, 0, 5, 2),
    (16, -16, 0x15, 2),
    (16, -16, 0x14, 2),
    (0, 0, 5, 11),
    (-16, 0, 0x48, 2),
    (0, 0, 0, 0),
)
NEWEST: Sequence[Row] = (
    *((8, 0, 3, 2), (16, -16, 0x83, 2), (16, -16, 0x84, 2)),
    *((0, 0, 3, 11), (-16, 0, 0x4A, 2), (0, 0, 0, 0)),
)
"""The same six rows in the three ways that kernels have had: a call, one with rbp kept, one with a frame pointer, a
frame of an interrupt, one on another stack, none. The bits are those of ``struct orc_entry``."""

STARTS = (0x1000, 0x1001, 0x1004, 0x1020, 0x1030, 0x1040)


def image(release: str, rows: Sequence[Row], names: Mapping[str, int] = NAMES, starts: Sequence[int] = STARTS) -> Image:
    memory = bytearray(0x9000)
    for index, (start, row) in enumerate(zip(starts, rows, strict=True)):
        struct.pack_into("<i", memory, PLACES + 4 * index, start - PLACES - 4 * index)
        struct.pack_into("<hhBB", memory, ROWS + 6 * index, *row)
    machine = Microvmi.from_driver(FakeDriver({0: memory}))
    return Image(release, "x86_64", Symbols(names), machine.address_space(0, paging=Paging.OFF))


def readelf(path: Path, option: str) -> str:
    program = shutil.which("readelf")
    if program is None:
        missing("readelf is not installed; to enable: apt-get install binutils")
    done = subprocess.run([program, "-W", option, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[Path]:
    """Where files are kept is the user's to say."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path)
    yield tmp_path / "libmicrovmi" / "gdb"
    del os.environ["XDG_CACHE_HOME"]
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.mark.parametrize(
    ("release", "rows"), [("5.10.0-1", OLD), ("6.3.9", OLD), ("6.4.0", NEW), ("6.12.1+deb", NEW), ("7.2.13", NEWEST)]
)
def test_frames_of_every_version_are_undone_alike(release: str, rows: Sequence[Row]) -> None:
    path = symbol_file(image(release, rows))
    text = readelf(path, "--debug-dump=frames-interp")
    lines = [line.split()[1:] for line in text.splitlines() if re.match("0000000000001", line)]
    assert [line[0] for line in lines if line[0] != "exp"] == ["rsp+8", "rsp+16", "rbp+16", "rsp+0", "rsp+8"]
    assert "c-8" in lines[0][-1]
    assert "c-16" in lines[1]
    assert "c-16" in lines[2]
    assert lines[4][0] == "exp"
    assert lines[5][-1] == "u"
    raw = readelf(path, "--debug-dump=frames")
    assert "r16 (rip) at cfa+128" in raw
    assert "r7 (rsp) at cfa+152" in raw
    assert "DW_OP_breg6 (rbp): -16; DW_OP_deref" in raw
    assert "pc=0000000000001040..0000000000001800" in raw


def test_names_are_in_the_section_that_they_are_in() -> None:
    names = {**NAMES, "evil\x1b[2J": 0x1020, "a b": 0x1030, "per_cpu": 0x10, "x" * 600: 0x1040}
    path = symbol_file(image("6.1.0", OLD, names))
    rows = [line.split() for line in readelf(path, "--syms").splitlines() if re.match(r"\s+\d+: 0", line)]
    found = {row[7]: row for row in rows if len(row) > 7}
    sections = readelf(path, "--sections")
    text = re.search(r"\[ *(\d+)\] \.text +NOBITS +0*1000 ", sections)
    assert text is not None
    assert (found["schedule"][1], found["schedule"][3], found["schedule"][6]) == ("0000000000001010", "FUNC", text[1])
    assert found["variable"][3] == "OBJECT"
    assert found["variable"][6] != text[1]
    assert found["per_cpu"][6] == "ABS"
    assert not [name for name in found if "evil" in name or name.startswith("xx") or name == "a"]


def test_a_file_is_the_user_s_alone_and_few_are_kept(cache: Path) -> None:
    first = symbol_file(image("6.1.0", OLD))
    assert symbol_file(image("6.1.0", OLD)) == first
    assert (cache.stat().st_mode & 0o777, first.stat().st_mode & 0o777) == (0o700, 0o600)
    for number in range(8):
        symbol_file(image("6.1.0", OLD, {**NAMES, "variable": 0x4000 + number}))
    assert len(list(cache.iterdir())) == 4
    cache.chmod(0o777)
    with pytest.raises(PermissionDeniedError, match="others may write"):
        symbol_file(image("6.1.0", OLD))


def test_a_file_that_another_may_have_written_is_made_again(cache: Path) -> None:
    path = symbol_file(image("6.1.0", OLD))
    content = path.read_bytes()
    path.write_bytes(b"another's")
    path.chmod(0o666)
    assert symbol_file(image("6.1.0", OLD)).read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("names", "starts"),
    [
        ({"__stop_orc_unwind_ip": 1 << 62}, STARTS),
        ({"__stop_orc_unwind_ip": 0}, STARTS),
        ({"__start_orc_unwind": 0}, STARTS),
        ({}, STARTS[::-1]),
    ],
    ids=["endless", "backwards", "missing", "unsorted"],
)
def test_tables_that_cannot_be_are_left_out(names: Mapping[str, int], starts: Sequence[int]) -> None:
    damaged = image("6.1.0", OLD, {**NAMES, **names}, starts)
    assert debug_frame(damaged) == b""
    assert symbol_file(damaged).exists()


def test_tables_that_are_not_mapped_are_left_out() -> None:
    damaged = image("6.1.0", OLD, {**NAMES, "__start_orc_unwind": 0x100000})
    with pytest.raises(NotMappedError):
        debug_frame(damaged)
    assert symbol_file(damaged).exists()


def test_a_kernel_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(NotSupportedError, match="where it begins and ends"):
        symbol_file(image("6.1.0", OLD, {**NAMES, "_end": TEXT}))


def test_frames_of_aarch64_are_those_that_functions_make() -> None:
    code = {
        0x1000: (0xD503233F, 0xA9BD7BFD, 0x910003FD),  # paciasp; stp x29, x30, [sp, #-48]!; mov x29, sp
        0x1040: (0xD10143FF, 0xA9047BFD, 0x910103FD),  # sub sp, sp, #80; stp x29, x30, [sp, #64]; add x29, sp, #64
        0x1080: (0xD65F03C0,),  # ret
    }
    memory = bytearray(0x9000)
    for address, words in code.items():
        struct.pack_into(f"<{len(words)}I", memory, address, *words)
    names = {**NAMES, "one": 0x1000, "two": 0x1040, "leaf": 0x1080, "el1h_64_irq": 0x10C0, "ret_from_fork": 0x1100}
    names = {name: address for name, address in names.items() if name != "schedule"}
    space = Microvmi.from_driver(FakeDriver({0: memory})).address_space(0, paging=Paging.OFF)
    text = readelf(symbol_file(Image("6.12.0", "aarch64", Symbols(names), space)), "--debug-dump=frames-interp")
    parts = {part.split("..")[0]: part.split("\n")[2:] for part in text.split("pc=")[1:]}
    rows = {
        int(start, 16): [line.split()[:4] for line in lines if line and "FDE" not in line]
        for start, lines in parts.items()
    }
    assert [row[1:] for row in rows[0x1000]] == [
        ["sp+0", "u", "u"],
        ["sp+48", "c-48", "c-40"],
        ["x29+48", "c-48", "c-40"],
    ]
    assert [row[1:] for row in rows[0x1040]][1:] == [
        *(["sp+80", "u", "u"], ["sp+80", "c-16", "c-8"], ["x29+16", "c-16", "c-8"]),
    ]
    assert rows[0x1080] == []  # as all begin
    assert re.search(r'CIE "" .*\n.*\n0+ sp\+0', text)
    assert [row[1:] for row in rows[0x10C0]] == [["x29+16", "c-16", "c-8"]]
    assert rows[0x1100][0][2] == "u"
