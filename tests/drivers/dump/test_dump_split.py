# SPDX-License-Identifier: Apache-2.0
"""kdump files in parts (``makedumpfile --split``): found beside each other or named, or missing."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from drivers.dump import builders
from drivers.dump.builders import PAGE, values

from libmicrovmi_py import DriverUnavailableError, InvalidArgumentError, IoError, Microvmi

SOURCE = random.Random("split")
MEMORY = {0: SOURCE.randbytes(7 * PAGE), 0x10000: SOURCE.randbytes(5 * PAGE), 0x100000: SOURCE.randbytes(4 * PAGE)}
NOTES = builders.prstatus(values(0)) + builders.prstatus(values(1))
END = 0x104
SPANS = ((0, 3), (3, 0x12), (0x12, 0x12), (0x12, END))
"""Within a run of pages, and one without pages, as makedumpfile makes one when there are more files than blocks."""


def parts(folder: Path, bits: int = 64, version: int = 6) -> list[Path]:
    """The dump in files of their own."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"part{number}" for number in range(len(SPANS))]
    for path, span in zip(paths, SPANS, strict=True):
        path.write_bytes(builders.kdump(MEMORY, NOTES, span=span, bits=bits, version=version))
    return paths


def assert_whole(machine: Microvmi) -> None:
    """Whether all memory is there, also where a read goes from one part to the next."""
    assert [(item.start, item.size) for item in machine.memory_map()] == [(at, len(MEMORY[at])) for at in MEMORY]
    for start, content in MEMORY.items():
        assert machine.read_physical(start, len(content)) == content
    assert machine.read_physical(3 * PAGE - 5, 10) == MEMORY[0][3 * PAGE - 5 :][:10]
    assert machine.read_physical_into(0x10000, bytearray(6 * PAGE)) == 5 * PAGE
    assert machine.vcpu_count() == 2
    assert machine.max_addr == END * PAGE


@pytest.mark.parametrize("number", range(len(SPANS)))
def test_any_part_opens_all_that_lie_beside_it(tmp_path: Path, number: int) -> None:
    paths = parts(tmp_path)
    (tmp_path / "another").write_bytes(b"KDUMP   " + bytes(2 * PAGE))
    (tmp_path / "folder").mkdir()
    (tmp_path / "all of it").write_bytes(builders.kdump(MEMORY, NOTES))
    shutil.copy(paths[0], tmp_path / "part0 (copy)")
    with Microvmi(driver="dump", path=paths[number]) as machine:
        assert_whole(machine)


@pytest.mark.parametrize(("bits", "version"), [(32, 6), (64, 5), (32, 5)])
def test_parts_of_old_and_of_32_bit_programs(tmp_path: Path, bits: int, version: int) -> None:
    spans = parts(tmp_path, bits, version)
    with Microvmi(driver="dump", path=spans[0]) as machine:
        assert [(item.start, item.size) for item in machine.memory_map()] == [(at, len(MEMORY[at])) for at in MEMORY]
        assert machine.read_physical(0, 7 * PAGE) == MEMORY[0]


def test_parts_that_lie_elsewhere_are_named(tmp_path: Path) -> None:
    first, *rest = parts(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    moved = [str(shutil.move(path, tmp_path / "elsewhere")) for path in rest]
    with Microvmi(driver="dump", path=first, parts=",".join(moved)) as machine:
        assert_whole(machine)
    with pytest.raises(
        DriverUnavailableError, match="pages 0x12 to 0x103 are in others, which cannot be read: put them"
    ):
        Microvmi(driver="dump", path=first, parts=moved[0])
    with pytest.raises(IoError, match="nowhere"):
        Microvmi(driver="dump", path=first, parts="nowhere")


def test_parts_that_are_missing_are_told_and_the_others_open_with_partial(tmp_path: Path) -> None:
    first, second, _, last = parts(tmp_path)
    second.unlink()
    text = r"is one part of a split dump: pages 0x3 to 0x11 are in others, which cannot be read: .*parts=.*partial=on$"
    with pytest.raises(DriverUnavailableError, match=text):
        Microvmi(driver="dump", path=last)
    with Microvmi(driver="dump", path=last, partial="on") as machine:
        assert machine.read_physical(0, 3 * PAGE) == MEMORY[0][: 3 * PAGE]
        assert machine.read_physical_into(0, bytearray(4 * PAGE)) == 3 * PAGE
        assert machine.read_physical(0x12 * PAGE, 3 * PAGE) == MEMORY[0x10000][2 * PAGE :]
        assert machine.max_addr == END * PAGE
    last.unlink()
    with pytest.raises(DriverUnavailableError, match="pages 0x3 to 0x103 are in others"):
        Microvmi(driver="dump", path=first)


def test_parts_of_two_splittings_are_not_mixed(tmp_path: Path) -> None:
    first, *_ = parts(tmp_path)
    (tmp_path / "other").write_bytes(builders.kdump(MEMORY, NOTES, span=(0, 5)))
    with pytest.raises(DriverUnavailableError, match=r"page 0x0 is there twice.*name one set with parts="):
        Microvmi(driver="dump", path=first)
    (tmp_path / "whole").write_bytes(builders.kdump(MEMORY, NOTES))
    with pytest.raises(DriverUnavailableError, match=r"whole is no part of the dump of .*part0, which"):
        Microvmi(driver="dump", path=first, parts=str(tmp_path / "whole"))
    with pytest.raises(InvalidArgumentError, match=r"parts= is for split dumps: .*whole is whole"):
        Microvmi(driver="dump", path=tmp_path / "whole", parts=str(first))


def test_a_part_that_lies_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(builders.kdump(MEMORY, NOTES, span=(5, 3)))
    with pytest.raises(IoError, match="this part of it would have the pages from 0x5 to 0x3"):
        Microvmi(driver="dump", path=path)
    path.write_bytes(builders.kdump(MEMORY, NOTES, span=(0, 1 << 60)))
    with pytest.raises(IoError, match="goes to page 0x1000000000000000"):
        Microvmi(driver="dump", path=path)
