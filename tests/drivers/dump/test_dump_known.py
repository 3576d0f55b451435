# SPDX-License-Identifier: Apache-2.0
"""Files that are no image of memory are refused by name, whatever is in them; format=raw takes them all the same."""

from __future__ import annotations

import lzma
import random
import struct
import tarfile
from pathlib import Path

import pytest
from drivers.dump import builders, first_bytes
from drivers.dump.builders import PAGE

from libmicrovmi_py import DriverUnavailableError, Microvmi
from libmicrovmi_py.drivers.dump import formats, wrappers
from libmicrovmi_py.drivers.dump.known import KNOWN, Known
from libmicrovmi_py.drivers.dump.probing import wanted

RAW = random.Random("memory").randbytes(4 * PAGE)


def opened(folder: Path, content: bytes, **options: str) -> Microvmi:
    """A file of that content as a machine."""
    path = folder / "the file"
    path.write_bytes(content)
    return Microvmi(driver="dump", path=path, **options)


def assert_refused(folder: Path, content: bytes, what: str, way_out: str = "") -> None:
    """Whether a file is refused with these words, in one line, and opens as raw."""
    with pytest.raises(DriverUnavailableError) as caught:
        opened(folder, content)
    text = str(caught.value)
    assert text.startswith(f"{folder / 'the file'} is {what}")
    assert ", which cannot be read: " + way_out in text
    assert "\n" not in text
    assert "format=raw" not in text
    with opened(folder, content, format="raw") as machine:
        assert machine.max_addr == len(content)
        assert machine.read_physical(0, len(content)) == content


@pytest.mark.parametrize("item", KNOWN, ids=lambda item: f"{item.what} {item.magic.hex()}")
def test_every_file_of_the_table_is_refused_with_its_name_and_the_way_out(tmp_path: Path, item: Known) -> None:
    content, size, place = bytearray(RAW), len(item.magic), item.offset
    content[place : place + size] = item.magic
    assert_refused(tmp_path, bytes(content), item.what, item.way_out)
    for changed in (place, place + size - 1):  # one byte is another: it is none
        other = bytearray(content)
        other[changed] ^= 0xFF
        with opened(tmp_path, bytes(other)) as machine:
            assert machine.max_addr == len(other)
    assert_refused(tmp_path, bytes(content[: place + size]), item.what, item.way_out)
    with opened(tmp_path, bytes(content[: place + size - 1])) as machine:
        assert machine.max_addr == place + size - 1


def test_no_row_hides_another_or_a_format() -> None:
    read = [place for package in (formats, wrappers) for item in wanted(package.__name__) for place in item.begins]
    rows = [(item.offset, item.magic) for item in KNOWN] + read
    hidden = [
        (one, other)
        for one in rows
        for other in rows
        if one is not other and one[0] == other[0] and other[1].startswith(one[1])
    ]
    assert hidden == []
    assert all(item.what and item.way_out and len(item.magic) >= 3 for item in KNOWN)


def test_a_tar_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "memory").write_bytes(RAW)
    with tarfile.open(tmp_path / "packed", "w") as archive:
        archive.add(tmp_path / "memory", "memory")
    assert_refused(tmp_path, (tmp_path / "packed").read_bytes(), "a tar file", "unpack it first")


def test_an_lzma_file_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, lzma.compress(RAW, lzma.FORMAT_ALONE), "an lzma file", "unpack it first")


def _elf(kind: int, segments: int, sections: int) -> bytes:
    words = (kind, 62, 1, 0, 64, 64, 0, 64, 56, segments, 64, sections, 0)
    return b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", *words) + bytes(4 * PAGE)


def test_elf_files_that_are_no_dump_of_a_machine_are_refused(tmp_path: Path) -> None:
    for kind in (1, 2, 3):
        assert_refused(tmp_path, _elf(kind, 2, 0), "an ELF file but no core (a program or a library)")
    assert_refused(tmp_path, _elf(4, 0, 5), "an ELF core without segments")
    assert_refused(tmp_path, builders.elf({0: RAW}, order=">"), "a big-endian ELF core (s390x, ppc64)")


def test_the_page_shows_the_table() -> None:
    text = first_bytes.documented(first_bytes.PAGE.read_text())
    assert text == first_bytes.table(), "run: PYTHONPATH=. build/venv/bin/python tests/drivers/dump/first_bytes.py"
