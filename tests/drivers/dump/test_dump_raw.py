# SPDX-License-Identifier: Apache-2.0
"""Raw images whose hole below 4 GiB was left out: parameters that say so, and a hint where a file looks like one."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from drivers.dump import builders
from drivers.dump.builders import PAGE

from libmicrovmi_py import InvalidArgumentError, IoError, Microvmi

GIB = 1 << 30
CONTENT = b"".join(bytes([number + 1]) * PAGE for number in range(8))


def opened(folder: Path, content: bytes = CONTENT, **options: str) -> Microvmi:
    path = folder / "image"
    path.write_bytes(content)
    return Microvmi(driver="dump", path=path, **options)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
def test_what_is_behind_a_hole_is_read_from_its_addresses(tmp_path: Path, pack: type[bytes]) -> None:
    with opened(tmp_path, pack(CONTENT), hole="0x3000-0x100000000") as machine:
        assert [(item.start, item.end) for item in machine.memory_map()] == [(0, 0x3000), (4 * GIB, 4 * GIB + 0x5000)]
        assert machine.max_addr == 4 * GIB + 0x5000
        assert machine.read_physical(0x2FF8, 8) == b"\3" * 8
        assert machine.read_physical(4 * GIB, PAGE) == b"\4" * PAGE
        assert machine.read_physical_into(0x3000, bytearray(8)) == 0
    with opened(tmp_path, pack(CONTENT), hole="0-0x2000") as machine:
        assert [(item.start, item.end) for item in machine.memory_map()] == [(0x2000, 0xA000)]


def test_a_map_says_where_everything_is(tmp_path: Path) -> None:
    places = "0x8000-0xa000@0x1000,0x100000-0x101000@0,0x102000-0x103000@28672"
    with opened(tmp_path, map=places) as machine:
        expected = [(0x8000, 0xA000), (0x100000, 0x101000), (0x102000, 0x103000)]
        assert [(item.start, item.end) for item in machine.memory_map()] == expected
        for address, number in ((0x8000, 2), (0x9000, 3), (0x100000, 1), (0x102000, 8)):
            assert machine.read_physical(address, PAGE) == bytes([number]) * PAGE
    with pytest.raises(IoError, match="4096 bytes are missing"):
        opened(tmp_path, map="0-0x2000@0x7000")
    with opened(tmp_path, map="0-0x2000@0x7000", partial="on") as machine:
        assert machine.max_addr == 0x1000


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hole": "3"}, "hole=3: write START-END"),
        ({"hole": "a-b"}, "hole=a-b: write START-END"),
        ({"hole": "0x2000-0x1000"}, "0x2000-0x1000 is no range"),
        ({"hole": "0x8000-0x9000"}, "the file has 0x8000 bytes, all of them below"),
        ({"hole": "0-0xfffffffffffff000"}, "is no range of addresses"),
        ({"hole": "-1-5"}, "hole=-1-5: write START-END"),
        ({"map": "0-0x1000"}, "write START-END@OFFSET"),
        ({"map": "0-0x2000@0,0x1000-0x3000@0"}, "an address is there twice"),
        ({"hole": "1-2", "map": "0-1@0"}, "cannot be given both"),
    ],
)
def test_what_cannot_be_is_an_error(tmp_path: Path, options: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        opened(tmp_path, CONTENT, **options)


def test_a_hole_is_for_raw_images_only(tmp_path: Path) -> None:
    for options in ({"hole": "0x1000-0x2000"}, {"map": "0-0x1000@0"}):
        with pytest.raises(InvalidArgumentError, match=r"are for raw images: .*image is one of the format lime"):
            opened(tmp_path, builders.lime({0: CONTENT}), **options)


def _ram_file(path: Path, ranges: list[tuple[int, int]], size: int) -> None:
    path.write_bytes(b"")
    os.truncate(path, size)
    with path.open("r+b") as file:
        for place, content in builders.smbios(ranges).items():
            file.seek(place)
            file.write(content)


def test_a_file_that_looks_like_one_is_told_with_what_to_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, split = tmp_path / "ram", [(0, 3 * GIB), (4 * GIB, 2 * GIB)]
    _ram_file(path, split, 5 * GIB)
    Microvmi(driver="dump", path=path).close()
    hints = [line for line in caplog.messages if "say hole=" in line]
    assert hints == [
        f"{path} seems to have memory from 0x100000000 on right at 0xc0000000: say hole=0xc0000000-0x100000000"
    ]
    with Microvmi(driver="dump", path=path, hole="0xc0000000-0x100000000") as machine:
        assert machine.max_addr == 6 * GIB
    caplog.clear()
    for ranges, size in ((split, 6 * GIB), ([(0, 3 * GIB)], 3 * GIB), (split, 4 * GIB)):
        _ram_file(path, ranges, size)
        Microvmi(driver="dump", path=path).close()
    assert not [line for line in caplog.messages if "say hole=" in line]
