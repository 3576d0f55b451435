# SPDX-License-Identifier: Apache-2.0
"""Another user than that of QEMU: shared RAM takes the right to open its file and the socket, and nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from qemu_simulators import QemuSimulators
from transport.other_user import NOBODY, need_root, run_as_nobody

KIB = 1024
Opened = Callable[..., str]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def opened(folder: Path) -> Iterator[Opened]:
    """What a program prints that opens a machine as ``vm``, as another user than that of the machine."""
    need_root()

    def run(program: str, *options: str, prepare: Callable[[], object] = lambda: None, mode: int = 0o666) -> str:
        uri = machines.start(*options, "-ram", str(folder / "ram"))
        for path in folder.glob("*.sock"):
            path.chmod(0o777)
        if (folder / "ram").exists():
            (folder / "ram").chmod(mode)
        prepare()
        return run_as_nobody(
            "from libmicrovmi_py import Microvmi\n"
            "from libmicrovmi_py.drivers import registry\n"
            "from libmicrovmi_py.errors import *\n"
            "from libmicrovmi_py.transport.native import native\n"
            "native(), list(registry.all_drivers()), b'x'.decode('idna')\n"
            "become_nobody()\n"
            f"try:\n    vm = Microvmi.open({uri!r})\n"
            "except Exception as err:\n    print(type(err).__name__, err)\n    sys.exit()\n" + program
        )

    with QemuSimulators(folder) as machines:
        yield run


FAILS = """
def fails(action):
    try:
        action()
    except Exception as err:
        return type(err).__name__
"""


def test_shared_memory_is_read_and_written_through_its_file(opened: Opened, folder: Path) -> None:
    program = """
print(vm.read_physical(0x5fff, 2).hex(), vm.read_physical(0x100000, 1).hex(), hex(vm.max_addr))
vm.write_physical(0x6000, b"written")
vm.pause(); vm.resume(); vm.read_registers()
"""
    assert opened(program).split() == ["0506", "80", "0x180000"]
    with (folder / "ram").open("rb") as file:
        file.seek(64 * KIB + 0x6000)
        assert file.read(7) == b"written"


def test_what_is_in_no_file_exists_and_is_refused(opened: Opened) -> None:
    program = (
        FAILS
        + """
kinds = [(hex(item.start), item.kind.name) for item in vm.memory_map()]
print(kinds[-2:] == [("0xfd000000", "DEVICE"), ("0x8000000000", "DEVICE")])
print(*[fails(lambda: vm.read_physical(0xfd000000, size)) for size in (8, 0x100, 0x8000)])
print(fails(lambda: vm.write_physical(0xfd000000, b"x")), fails(lambda: vm.write_physical(448 << 10, b"x")))
"""
    )
    refused = "PermissionDeniedError"
    assert opened(program).split() == ["True", refused, refused, refused, refused, "ReadOnlyError"]


def test_a_file_that_may_only_be_read_is_only_read(opened: Opened) -> None:
    program = FAILS + 'print(vm.read_physical(0x5000, 1).hex(), fails(lambda: vm.write_physical(0x5000, b"x")))'
    assert opened(program, mode=0o644).split() == ["05", "PermissionDeniedError"]


def test_a_file_that_may_not_be_opened_is_refused(opened: Opened) -> None:
    assert opened("print('opened')", mode=0o600).startswith("PermissionDeniedError")


def test_private_memory_takes_the_rights_of_a_debugger(opened: Opened) -> None:
    told = opened("print('opened')", "-fake", "private")
    assert told.startswith("PermissionDeniedError")
    assert "CAP_SYS_PTRACE" in told


def test_a_file_that_took_the_name_of_the_memory_file_is_not_read(opened: Opened, folder: Path) -> None:
    def replace_it() -> None:
        other = folder / "other"
        other.write_bytes(bytes(byte ^ 1 for byte in (folder / "ram").read_bytes()))
        other.chmod(0o666)
        other.rename(folder / "ram")

    told = opened("print('opened')", prepare=replace_it)
    assert told.startswith("IoError")
    assert "is not the file that QEMU has its memory in" in told


def test_a_file_of_another_user_than_qemus_is_not_opened_on_its_word(opened: Opened, folder: Path) -> None:
    """It may be the reader's own, which a hostile process would like to see written."""
    told = opened("print('opened')", prepare=lambda: os.chown(folder / "ram", NOBODY, NOBODY))
    assert told.startswith("PermissionDeniedError")


def test_a_process_that_changed_its_user_is_told_as_such() -> None:
    program = """
import subprocess
from libmicrovmi_py.errors import PermissionDeniedError
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import ProcessMemory
change = "import os, time; os.setresuid(*[65534] * 3); print('ready', flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", change], stdout=subprocess.PIPE)
child.stdout.readline()
process = Process.find(child.pid)
os.setgroups([]); os.setresuid(65534, 65534, 65534)
try:
    ProcessMemory(process)
except PermissionDeniedError as err:
    print(err)
child.kill()
"""
    assert "changed its user" in run_as_nobody(program)
