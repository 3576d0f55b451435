# SPDX-License-Identifier: Apache-2.0
"""Programs that were written for upstream's Python package run over this library, with one folder on their path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from libmicrovmi_py.compat.machine import Microvmi, MicrovmiExt
from libmicrovmi_py.compat.parameters import (
    CommonInitParamsPy,
    DriverInitParamsPy,
    DriverType,
    KVMInitParamsPy,
    MemflowInitParamsPy,
    parameters,
)

ROOT = Path(__file__).resolve().parents[2]
SIZE = 0x3000


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A raw image of three pages, each of one byte."""
    path = tmp_path / "image.raw"
    path.write_bytes(b"".join(bytes([page]) * 0x1000 for page in (1, 2, 3)))
    return path


def named(name: Path | str) -> DriverInitParamsPy:
    given = DriverInitParamsPy()
    given.common = CommonInitParamsPy()
    given.common.vm_name = str(name)
    return given


def run(code: str, *path: Path | str) -> str:
    """Standard output of a Python that has nothing on its path but these folders."""
    environment = {"PYTHONPATH": ":".join(map(str, path)), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def upstream_path() -> str:
    """As a user asks for it."""
    command = [sys.executable, "-m", "libmicrovmi_py.command", "upstream-path"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.removesuffix("\n")


PROGRAM = """
import sys
from microvmi import CommonInitParamsPy, DriverInitParamsPy, DriverType, KVMInitParamsPy, MemflowInitParamsPy, Microvmi
from microvmi.memory import PAGE_SIZE, PaddedPhysicalMemoryIO, PhysicalMemoryIO
from microvmi.microvmi import Microvmi as Same
from microvmi.pymicrovmi import DriverType as Numbers, MicrovmiExt
common = CommonInitParamsPy()
common.vm_name = IMAGE
init_params = DriverInitParamsPy()
init_params.common = common
micro = Microvmi(None, init_params)
micro.pause()
for addr in range(0, micro.max_addr, PAGE_SIZE):
    sys.stdout.write(str(micro.padded_memory.read(PAGE_SIZE)[0]))
micro.resume()
assert Same is Microvmi and isinstance(micro.memory, PhysicalMemoryIO) and (Numbers.VIRTUALBOX, Numbers.XEN) == (1, 2)
"""


def test_a_program_of_upstream_s_runs_with_the_folder_on_its_path(image: Path) -> None:
    """Our own package need not be on the path: it is where the folder lies."""
    code = PROGRAM.replace("IMAGE", repr(str(image)))
    assert run(code, upstream_path()) == "123"


def test_without_the_folder_a_real_package_of_that_name_is_not_hidden() -> None:
    code = "import importlib.util, libmicrovmi_py; print(importlib.util.find_spec('microvmi'))"
    assert run(code, ROOT) == "None\n"


def test_what_is_beside_the_names_is_found_as_a_part_of_them(tmp_path: Path) -> None:
    """Upstream's handler for volatility, and whatever a user has put into that package."""
    folder = tmp_path / "microvmi" / "volatility"
    folder.mkdir(parents=True)
    for path in (folder.parent, folder):
        (path / "__init__.py").touch()
    (folder / "vmi_handler.py").write_text("from microvmi import Microvmi\n")
    code = "from microvmi.volatility.vmi_handler import Microvmi; print(Microvmi.__module__)"
    assert run(code, upstream_path(), tmp_path) == "libmicrovmi_py.compat.machine\n"


def test_parameters_are_ours_by_another_name() -> None:
    given = named("debian")
    given.kvm = KVMInitParamsPy()
    given.kvm.unix_socket = "/tmp/introspector"
    given.memflow = MemflowInitParamsPy("qemu")
    given.memflow.connector_args = ["a=1", "b=2"]
    made = parameters(DriverType.VirtualBox.value, given)
    assert (made.driver, dict(made)) == (
        "virtualbox",
        {
            "vm_name": "debian",
            "kvm_unix_socket": "/tmp/introspector",
            "memflow_connector_name": "qemu",
            "memflow_connector_args": "a=1,b=2",
        },
    )
    assert not parameters(None, DriverInitParamsPy())


def test_errors_are_upstream_s() -> None:
    with pytest.raises(ValueError, match="Invalid value for DriverType: 9"):
        MicrovmiExt(9)
    with pytest.raises(ValueError, match="no-such-machine"):
        Microvmi(None, named("no-such-machine"))


def test_streams_are_readable_after_they_were_closed(image: Path) -> None:
    micro = Microvmi(None, named(image))
    for _ in range(2):
        with micro.padded_memory as stream:
            stream.seek(0x1000)
            assert stream.read(1) == b"\2"
    micro.memory.close()
    assert micro.memory.read(1) == b"\1"


def test_the_padded_stream_returns_as_many_bytes_as_are_asked_for(image: Path) -> None:
    stream = Microvmi(None, named(image)).padded_memory
    assert stream.seek(0, os.SEEK_END) == SIZE
    assert stream.seek(SIZE - 2) == SIZE - 2
    assert (stream.read(4), stream.tell()) == (b"\3\3\0\0", SIZE)
    assert stream.seek(-SIZE * 2, os.SEEK_CUR) == 0
    buffer = bytearray(3)
    assert (stream.readinto(buffer), bytes(buffer), stream.tell()) == (3, b"\1\1\1", 3)
    assert (stream.seekable(), stream.readable(), stream.writable()) == (True, True, False)


def test_the_plain_stream_ends_where_memory_does_and_stays_where_it_is(image: Path) -> None:
    stream = Microvmi(None, named(image)).memory
    stream.seek(SIZE - 2)
    assert (stream.read(4), stream.tell()) == (b"\3\3", SIZE - 2)
    buffer = bytearray(4)
    assert (stream.readinto(buffer), bytes(buffer)) == (2, b"\3\3\0\0")
    stream.seek(SIZE)
    assert stream.read(4) == b""


def test_places_and_sizes_that_cannot_be_are_refused(image: Path) -> None:
    stream = Microvmi(None, named(image)).padded_memory
    for offset, whence, error in ((-1, os.SEEK_SET, ValueError), (0, 9, RuntimeError)):
        with pytest.raises(error, match="seek"):
            stream.seek(offset, whence)
    with pytest.raises(NotImplementedError, match="a size is needed"):
        stream.read()


def test_reads_by_address_tell_how_much_there_is(image: Path) -> None:
    micro = Microvmi(None, named(image))
    assert micro.read_physical(SIZE - 1, 3) == (b"\3\0\0", 1)
    assert micro.read_physical_into(SIZE, bytearray(1)) == 0
