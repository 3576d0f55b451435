# SPDX-License-Identifier: Apache-2.0
"""What a file is taken for: raw is what nothing else knows, and no format claims a file of another's."""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path

import pytest
from drivers.dump.builders import PAGE
from drivers.dump.test_dump_fuzz import FILES

from libmicrovmi_py import DriverUnavailableError, IoError, Microvmi, MicrovmiError
from libmicrovmi_py.drivers.dump import formats, probing, wrappers
from libmicrovmi_py.drivers.dump.image import File
from libmicrovmi_py.drivers.dump.known import KNOWN
from libmicrovmi_py.drivers.dump.opening import Opening

MEMORY = random.Random("recognition").randbytes(5 * PAGE)

RAW = {
    "memory.bin": MEMORY,
    "memory.vmem": MEMORY,
    "memory.mem": MEMORY,
    "zeros.dmp": bytes(3 * PAGE),
    "ones.lime": b"\xff" * PAGE,
    "odd.img": MEMORY[:-7],
    "one.bin": b"\x55",
    "script.sh": b"#!/bin/sh\necho hello\n" * 10,
    "notes.txt": "Größe: 4 KiB\n".encode(),
    "boot.bin": MEMORY[:510] + b"\x55\xaa",
    "fixed.vhd": MEMORY + b"conectix".ljust(512, b"\0"),
    "late.bin": bytes(PAGE) + b"KDUMP   " + MEMORY,
    "nearly.core": b"\x7fELG" + MEMORY,
}
"""By the names that they may have: what is in a file decides, and a signature in another place is none."""


def _aff4() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("container.description", "aff4://memory")
        archive.writestr("PhysicalMemory/data/00000000", MEMORY)
    return made.getvalue()


NAMED = {
    **{
        f"hibernation {magic.decode()}": (magic + MEMORY, "a Windows hibernation file", "Hibr2Bin")
        for magic in (b"HIBR", b"hibr", b"wake", b"WAKE", b"RSTR", b"rstr")
    },
    "vmrs": (b"\x14\x20\x28\x01" + MEMORY, "a saved machine of Hyper-V", "MemProcFS"),
    "VirtualBox 2": (b"\x7fVirtualBox SavedState V2.0\n" + MEMORY, "a saved machine of VirtualBox", "dumpvmcore"),
    "VirtualBox 1": (b"\x7fVirtualBox SavedState V1.2\n" + MEMORY, "a saved machine of VirtualBox", "dumpvmcore"),
    "AFF4": (_aff4(), "an AFF4 image", "aff4imager"),
    "LKCD": (0xA8190173618F23ED.to_bytes(8, "little") + MEMORY, "a dump of LKCD", "crash"),
    "zdmp": (b"ZDMP" + MEMORY, "a compressed dump of DumpIt", "Z2Dmp"),
    "diskdump": (b"DISKDUMP" + MEMORY, "a diskdump", "crash"),
    "sadump": (b"sadump\0\0" + MEMORY, "a dump of sadump", "makedumpfile"),
    "s390": (0xA8190173618F23FD.to_bytes(8, "big") + MEMORY, "a dump of an s390 machine", "zgetdump"),
}
"""Files of memory that are only named: what they are, and what converts or reads them."""


def taken_for(path: Path, **options: str) -> str:
    """The format's name."""
    with Microvmi(driver="dump", path=path, **options) as machine:
        return machine.image_info.format


@pytest.mark.parametrize("name", RAW)
def test_what_nothing_knows_is_raw(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(RAW[name])
    with Microvmi(driver="dump", path=tmp_path / name) as machine:
        assert (machine.image_info.format, machine.image_info.wrappers) == ("raw", ())
        assert machine.read_physical(0, len(RAW[name])) == RAW[name]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_format_is_never_raw(tmp_path: Path, name: str) -> None:
    (tmp_path / "memory-ranges").write_bytes(bytes(64 * PAGE))  # what some have beside them
    (tmp_path / "dump.mem").write_bytes(bytes(1 << 20))
    (tmp_path / "dump").write_bytes(FILES[name])
    with Microvmi(driver="dump", path=tmp_path / "dump", partial="on") as machine:
        info = machine.image_info
    assert info.wrappers or info.format != "raw"
    (tmp_path / "dump").write_bytes(FILES[name][: len(FILES[name]) // 2])
    try:
        found = taken_for(tmp_path / "dump", partial="on")
    except MicrovmiError as err:
        found = str(err)
    assert info.wrappers or found != "raw"
    assert "format=raw" not in found


@pytest.mark.parametrize("name", NAMED)
def test_memory_that_is_not_read_is_named_with_what_reads_it(tmp_path: Path, name: str) -> None:
    content, what, way_out = NAMED[name]
    (tmp_path / "memory.dmp").write_bytes(content)
    with pytest.raises(DriverUnavailableError) as caught:
        taken_for(tmp_path / "memory.dmp")
    assert f"memory.dmp is {what}" in str(caught.value)
    assert way_out in str(caught.value)
    assert taken_for(tmp_path / "memory.dmp", format="raw") == "raw"


def test_a_file_of_nothing_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(IoError, match="empty: cannot be mapped: it is empty"):
        taken_for(tmp_path / "empty")


@pytest.mark.parametrize("package", [formats, wrappers], ids=["formats", "wrappers"])
def test_of_all_that_are_asked_one_is_surest(tmp_path: Path, package: object) -> None:
    name = getattr(package, "__name__", "")
    (tmp_path / "memory-ranges").write_bytes(bytes(PAGE))
    for number, content in enumerate([*FILES.values(), *(item.magic.rjust(item.offset + PAGE) for item in KNOWN)]):
        path = tmp_path / str(number)
        path.write_bytes(content)
        opening = Opening()
        image = File.open(str(path), opening)
        answers = [probing.module(name, each).probe(image) for each in probing.asking(name, image)]
        sure = sorted((answer.sure for answer in answers if answer is not None), reverse=True)
        assert len(sure) < 2 or sure[0] > sure[1], (number, answers)
        opening.close()
        path.unlink()


def test_every_format_says_what_it_is_asked_about_and_how_sure_it_is() -> None:
    for package in (formats, wrappers):
        for item in probing.wanted(package.__name__):
            asked = item.begins or item.ends or item.holds
            assert bool(asked) is (item.name != "raw"), item.name
            assert item.name == "raw" or callable(probing.module(package.__name__, item.name).probe)


def test_files_that_a_probe_looked_at_are_released(tmp_path: Path) -> None:
    (tmp_path / "m.vmem").write_bytes(MEMORY)
    with Microvmi(driver="dump", path=tmp_path / "m.vmem"):
        alone = len(os.listdir("/proc/self/fd"))
    (tmp_path / "m.vmss").write_bytes(MEMORY)  # of the right name, and nothing of VMware's
    with Microvmi(driver="dump", path=tmp_path / "m.vmem") as machine:
        assert len(os.listdir("/proc/self/fd")) == alone
        assert (machine.image_info.format, machine.image_info.files) == ("raw", (str(tmp_path / "m.vmem"),))
