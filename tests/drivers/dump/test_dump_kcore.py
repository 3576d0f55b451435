# SPDX-License-Identifier: Apache-2.0
"""Files as /proc/kcore is one: virtual areas that are nowhere, the kernel's text twice, and more bytes than there are.

tests/live/test_kernels_own.py reads a real one.
"""

from __future__ import annotations

import os
import random
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.dump import builders
from drivers.dump.builders import PAGE

from libmicrovmi_py import DriverUnavailableError, Microvmi

SOURCE = random.Random("kcore")
RAM = {0x1000: SOURCE.randbytes(15 * PAGE), 0x100000: SOURCE.randbytes(64 * PAGE)}
TEXT = 0x110000
DIRECT, KERNEL = 0x888 << 32, 0x7FFF81000000
"""Where x86-64 has the direct mapping and the text of its kernel: an address without its upper bits is the offset."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a file may have 128 TiB, none of which are there: a file system in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="microvmi-") as name:
        yield Path(name)


def kcore(path: Path, size: int = 1 << 47) -> None:
    """The segments in the order in which Linux has them."""
    segments = [(4, 0, 0, 0, 0), (1, KERNEL + PAGE, 0xFFFFFFFF81000000, TEXT, 8 * PAGE)]
    segments.append((1, 0x49 << 40, 0xFFFFC90000000000, (1 << 64) - 1, 1 << 45))
    for start, content in RAM.items():
        segments.append((1, DIRECT + start + PAGE, 0xFFFF888000000000 + start, start, len(content)))
    ident = b"\x7fELF\2\1\1" + bytes(9)
    head = ident + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    for kind, offset, virtual, address, length in segments:
        head += struct.pack("<IIQQQQQQ", kind, 7, offset, virtual, address, length, length, PAGE)
    with path.open("wb") as file:
        file.write(head)
        for start, content in RAM.items():
            os.pwrite(file.fileno(), content, DIRECT + start + PAGE)
        os.pwrite(file.fileno(), RAM[0x100000][TEXT - 0x100000 :][: 8 * PAGE], KERNEL + PAGE)
        os.truncate(file.fileno(), size)


def test_what_is_at_a_physical_address_is_there_and_nothing_else(folder: Path) -> None:
    kcore(folder / "kcore")
    with Microvmi(driver="dump", path=folder / "kcore") as machine:
        assert [(item.start, item.size) for item in machine.memory_map()] == [(at, len(RAM[at])) for at in RAM]
        assert machine.max_addr == 0x140000
        for start, content in RAM.items():
            assert machine.read_physical(start, len(content)) == content
            assert machine.read_physical(start + PAGE - 3, 7) == content[PAGE - 3 :][:7]


def test_areas_that_are_nowhere_alone_are_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.write_bytes(builders.elf({(1 << 64) - 1: bytes(PAGE)}, virtual=-PAGE))
    with pytest.raises(DriverUnavailableError, match="an ELF core without memory"):
        Microvmi(driver="dump", path=path)
    path.write_bytes(builders.elf({0x1000: b"x" * PAGE, (1 << 32) - 1: bytes(PAGE)}, bits=32, machine=3, virtual=-PAGE))
    with Microvmi(driver="dump", path=path) as machine:
        assert [(item.start, item.size) for item in machine.memory_map()] == [(0x1000, PAGE)]
