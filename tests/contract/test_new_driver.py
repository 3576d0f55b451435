# SPDX-License-Identifier: Apache-2.0
"""One file more in a copy of the built library is a driver more, for a C program that knows nothing of Python."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from programs import Programs

NEW = """
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import InvalidArgumentError, NotMappedError

class New(Driver):
    name = "new"
    parameters = {"colour": "of the machine"}

    @classmethod
    def open(cls, params):
        if params.vm_name not in (None, "new-machine"):
            raise InvalidArgumentError(f"no machine {params.vm_name}")
        return cls()

    max_addr = 0x10000

    def read_frame(self, frame, offset, buffer):
        if frame > 15:
            raise NotMappedError(f"no frame {frame:#x}")
        buffer[:] = (frame.to_bytes(8, "little") * 512)[offset : offset + len(buffer)]

    def close(self):
        pass

DRIVER = New
"""


@pytest.fixture
def library(library_path: Path, tmp_path: Path) -> Path:
    """A copy of the library and of the folder beside it."""
    shutil.copytree(library_path.parent / "libmicrovmi", tmp_path / "libmicrovmi")
    return Path(shutil.copy(library_path, tmp_path))


@pytest.fixture(params=["file", "folder"])
def extended(request: pytest.FixtureRequest, library: Path) -> Path:
    """That copy with one driver more."""
    drivers = library.parent / "libmicrovmi" / "libmicrovmi_py" / "drivers"
    if request.param == "file":
        (drivers / "new.py").write_text(NEW)
    else:
        (drivers / "new").mkdir()
        (drivers / "new" / "machine.py").write_text(NEW)
        (drivers / "new" / "__init__.py").write_text("from libmicrovmi_py.drivers.new.machine import New as DRIVER\n")
    return library


@pytest.mark.parametrize(
    "uri", ["vmi://new/", "vmi://new/?colour=red", "vmi:///?vm_name=new-machine", "vmi:///?colour=red"]
)
def test_c_finds_it_named_and_unnamed(programs: Programs, extended: Path, uri: str) -> None:
    programs.run(programs.loading("new-driver"), extended, uri, "new")


def test_a_linked_program_finds_it(programs: Programs, extended: Path) -> None:
    programs.run(programs.linked("new-driver", extended), extended, "vmi://new/", "new")


def test_without_the_file_there_is_none(programs: Programs, library: Path) -> None:
    expected = "there is no driver new"
    with pytest.raises(AssertionError, match=expected):
        programs.run(programs.loading("new-driver"), library, "vmi://new/", "new")
