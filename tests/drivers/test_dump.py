# SPDX-License-Identifier: Apache-2.0
"""Raw memory images, and files that are none."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    IoError,
    NotSupportedError,
    ReadOnlyError,
)
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import DriverType, MemoryRange

CONTENT = bytes(index * 7 % 256 for index in range(3 * 4096 + 100))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "memory image.raw"
    path.write_bytes(CONTENT)
    return path


def test_an_image_is_memory_from_address_0(image: Path) -> None:
    with Microvmi.open(str(image)) as machine:
        assert machine.driver_type is DriverType.DUMP
        assert machine.memory_map() == (MemoryRange(0, len(CONTENT)),)
        assert machine.max_addr == len(CONTENT)
        assert machine.memory.readall() == CONTENT
        buffer = bytearray(200)
        assert machine.read_physical_into(len(CONTENT) - 50, buffer) == 50
        assert machine.padded_memory.readall() == CONTENT


def test_every_way_to_name_it_opens_it(image: Path) -> None:
    quoted = str(image).replace(" ", "%20")
    ways: tuple[Callable[[], Microvmi], ...] = (
        lambda: Microvmi.open(f"vmi://dump/?path={quoted}"),
        lambda: Microvmi.open(f"vmi:///?path={quoted}"),
        lambda: Microvmi(str(image)),
        lambda: Microvmi(driver="dump", path=image),
    )
    for open_it in ways:
        with open_it() as machine:
            assert machine.read_physical(4096, 8) == CONTENT[4096:4104]


def test_an_image_cannot_be_written_and_stays_as_it_is(image: Path) -> None:
    with Microvmi.open(str(image)) as machine:
        with pytest.raises(ReadOnlyError):
            machine.write_physical(0, b"x")
        with pytest.raises(ReadOnlyError):
            machine.memory.write(b"x")
    assert image.read_bytes() == CONTENT


def test_an_image_is_always_paused_and_has_no_registers(image: Path) -> None:
    with Microvmi.open(str(image)) as machine:
        for use in (machine.pause, machine.resume, machine.pause):
            use()
        for ask in (machine.vcpu_count, machine.read_registers):
            with pytest.raises(NotSupportedError, match="the dump driver cannot"):
                ask()


@pytest.mark.parametrize("magic", [b"\x7fELF", b"EMiL", b"PAGEDU64", b"PAGEDUMP", b"KDUMP   ", b"makedumpfile\0"])
def test_another_format_is_not_taken_for_raw(image: Path, magic: bytes) -> None:
    image.write_bytes(magic + CONTENT)
    with pytest.raises((IoError, DriverUnavailableError), match=f"{image} is "):
        Microvmi.open(str(image))
    with Microvmi(driver="dump", path=image, format="raw") as machine:
        assert machine.read_physical(0, 4) == magic[:4]


def test_files_that_cannot_be_an_image_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    for name in ("absent", "empty", "fifo", "."):
        with pytest.raises(IoError) as caught:
            Microvmi.open(str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_without_a_path_it_says_so() -> None:
    with pytest.raises(InvalidArgumentError, match="Dump driver requires a path"):
        Microvmi("debian", driver="dump")


def test_a_large_read_of_an_image_that_was_cut_is_an_error(image: Path) -> None:
    image.write_bytes(b"x" * (4 << 20))
    with Microvmi.open(str(image)) as machine:
        os.truncate(image, 1 << 20)
        for address, size in ((0, 4 << 20), (2 << 20, 2 << 20)):
            with pytest.raises(IoError, match="could not be accessed"):
                machine.read_physical(address, size)


@pytest.fixture
def block_device(image: Path) -> Iterator[Path]:
    """A block device of 1 MiB that begins with the image's bytes."""
    os.truncate(image, 1 << 20)
    losetup = shutil.which("losetup", path="/usr/sbin:/sbin:" + os.environ["PATH"])
    if losetup is None or os.geteuid() != 0:
        missing("no block device: it takes losetup (apt-get install mount) and root")
    made = subprocess.run([losetup, "-f", "--show", str(image)], capture_output=True, text=True, check=False)
    if made.returncode:
        missing(f"no block device: {made.stderr.strip()}; it takes the kernel's loop devices")
    yield Path(made.stdout.strip())
    subprocess.run([losetup, "-d", made.stdout.strip()], check=True)


def test_a_block_device_is_an_image(block_device: Path) -> None:
    for mapped in ("yes", "no"):
        with Microvmi(driver="dump", path=block_device, mapped=mapped) as machine:
            assert machine.memory_map() == (MemoryRange(0, 1 << 20),)
            for size in (8, 100, len(CONTENT)):
                assert machine.read_physical(0, size) == CONTENT[:size]
            assert machine.read_physical(0, 1 << 20) == CONTENT.ljust(1 << 20, b"\0")
            assert machine.memory.readall() == CONTENT.ljust(1 << 20, b"\0")
            assert machine.memory.seek(0, os.SEEK_DATA) == 0
            with pytest.raises(ReadOnlyError):
                machine.write_physical(0, b"x")
    block_device.write_bytes(b"QED\0")
    with pytest.raises(DriverUnavailableError, match="is a qed image of a disk"):
        Microvmi.open(str(block_device))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_what_is_packed_on_a_block_device_is_unpacked(block_device: Path, pack: Callable[[bytes], bytes]) -> None:
    block_device.write_bytes(pack(CONTENT).ljust(1 << 20, b"\0"))
    with Microvmi(driver="dump", path=block_device) as machine:
        assert machine.max_addr == len(CONTENT)
        assert machine.padded_memory.read(len(CONTENT)) == CONTENT
