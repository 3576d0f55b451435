# SPDX-License-Identifier: Apache-2.0
"""What an image tells of itself, and how it was opened: of each kind of file that has something of its own to tell."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
from drivers.dump import builders, builders_vmware
from drivers.dump.builders import PAGE
from drivers.dump.test_dump_qemu import MIB, all_pages, content, record, stream

from libmicrovmi_py import ImageAccess, ImageInfo, InvalidContextError, Microvmi

MEMORY = {0: b"low!" * PAGE, 0x10000: b"high" * PAGE}
"""Four pages each."""

PC = 512 - 32
"""Pages of 2 MiB of a PC: those of its video memory are none."""


def told(path: Path, **options: str) -> ImageInfo:
    with Microvmi(driver="dump", path=path, **options) as machine:
        return machine.image_info


def written(folder: Path, data: bytes) -> Path:
    (folder / "image").write_bytes(data)
    return folder / "image"


def test_a_raw_image_tells_nothing_but_its_size(tmp_path: Path) -> None:
    path = written(tmp_path, b"x" * (3 * PAGE + 1))
    expected = ImageInfo("raw", (), "", "", ImageAccess.MAPPED, 4, 0, None, (str(path),), (), ())
    assert told(path) == expected
    assert told(path, mapped="no").access is ImageAccess.CALLS


def test_what_a_dump_left_out_is_absent(tmp_path: Path) -> None:
    everything = [(0, 6 * PAGE), (0x10000, 9 * PAGE)]
    info = told(written(tmp_path, builders.kdump(MEMORY, builders.qemu_note(builders.values(0)), exists=everything)))
    assert (info.present, info.absent, info.zero) == (8, 2 + 5, None)
    assert (info.format, info.producer, info.machine) == ("kdump", "QEMU", "x86_64")
    assert info.access is ImageAccess.PIECES


def test_wrappers_and_what_was_unpacked_as_a_whole_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(builders.flattened(builders.lime(MEMORY))))
    info = told(path)
    assert (info.format, info.wrappers, info.producer) == ("lime", ("gzip", "flattened"), "LiME")
    assert (info.access, info.present, info.files) == (ImageAccess.PIECES, 8, (str(path),))


def test_files_that_are_made_by_us_are_not_among_those_that_belong_to_it(tmp_path: Path) -> None:
    path = written(tmp_path, lzma.compress(builders.lime(MEMORY)))
    info = told(path)
    assert (info.access, info.files) == (ImageAccess.MAPPED, (str(path),))
    assert len(info.remarks) == 1
    assert "unpacked" in info.remarks[0]


@pytest.mark.parametrize("named", ["m.vmem", "m.vmss"])
def test_files_beside_it_that_belong_to_it_are_told(tmp_path: Path, named: str) -> None:
    state = builders_vmware.state({"cpu": builders_vmware.vcpus([builders.values(0)])})
    (tmp_path / "m.vmss").write_bytes(state)
    (tmp_path / "m.vmem").write_bytes(b"VMmemory" * (PAGE // 2))
    info = told(tmp_path / named)
    assert (info.format, info.present) == ("vmware", 4)
    assert info.files[0] == str(tmp_path / named)
    assert sorted(info.files) == [str(tmp_path / "m.vmem"), str(tmp_path / "m.vmss")]


def test_what_is_missing_is_told_with_the_reason(tmp_path: Path) -> None:
    whole = builders.elf(MEMORY)
    info = told(written(tmp_path, whole[: -2 * PAGE]), partial="on")
    assert (info.present, info.absent) == (6, 2)
    assert len(info.missing) == 1
    assert "8192 bytes are missing" in info.missing[0]


def test_pages_that_are_told_to_be_zeros_are_counted(tmp_path: Path) -> None:
    info = told(written(tmp_path, stream(all_pages())))
    assert (info.format, info.producer, info.present, info.absent, info.zero) == ("qemu", "QEMU", PC, 0, PC // 2)
    more = all_pages() + record(0, 0x08, content(7))  # a page of zeros has bytes afterwards
    assert told(written(tmp_path, stream(more))).zero == PC // 2 - 1
    half = told(written(tmp_path, stream(all_pages(MIB))))
    assert (half.present, half.absent) == (PC - 256, 256)


def test_it_is_not_told_of_a_machine_that_is_closed(tmp_path: Path) -> None:
    machine = Microvmi(driver="dump", path=written(tmp_path, bytes(PAGE)))
    machine.close()
    with pytest.raises(InvalidContextError):
        _ = machine.image_info
