# SPDX-License-Identifier: Apache-2.0
"""Simulated VirtualBox machines: a program that has the machine, and a libFDP between it and us.

The libFDP is that of this folder, or the one that MICROVMI_TEST_LIBFDP names. By hand, after
``build(folder)``: ``folder/machine NAME VCPUS RAM_SIZE START:SIZE...``; ``machine.c`` tells.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from needs import missing

HERE = Path(__file__).parent
SHM = Path("/dev/shm")

CODE = 0x2000
INSTRUCTIONS = bytes.fromhex("90 0f30 0f22d8 ebf8")
WRMSR = CODE + 1
MOV_CR3 = CODE + 3
BEHIND_MOV_CR3 = CODE + 6
READS = 0x5EAD
"""The MSR that tells how many reads of memory there were."""
PLACED = 0xB4EA
"""The MSR that tells how many breakpoints are placed."""
VIRTUAL = 0xFFFF800000000000

_numbers = itertools.count()


def build(folder: Path) -> Path:
    """Compile the library and the program into ``folder``; the library's path."""
    given = os.environ.get("MICROVMI_TEST_LIBFDP")
    compiler = shutil.which("cc")
    if compiler is None:
        missing("no C compiler cc: install gcc")
    flags = [compiler, "-O1", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]
    library = folder / "libFDP.so"
    if given:
        shutil.copy(given, library)
    else:
        subprocess.run([*flags, "-fPIC", "-shared", "-o", library, HERE / "libFDP.c"], check=True)
    linked = ["-o", str(folder / "machine"), str(HERE / "machine.c"), str(library)]
    subprocess.run([*flags, *linked, f"-Wl,-rpath,{folder}", "-pthread"], check=True)
    return library


class Simulator:
    """A machine that runs. ``name`` is its name, ``uri`` opens it, ``process`` plays it."""

    def __init__(
        self, library: Path, ranges: dict[int, int], ram_size: int | None = None, vcpus: int = 1, *options: str
    ) -> None:
        self.name = f"simulated-{os.getpid()}-{next(_numbers)}"
        self.uri = f"vmi://virtualbox/?vm_name={self.name}&library={library}&timeout=10"
        self.fdp = ctypes.CDLL(str(library))
        self._handle: ctypes.c_void_p | None = None
        told = max(start + size for start, size in ranges.items()) if ram_size is None else ram_size
        pieces = [f"{start:#x}:{size:#x}" for start, size in ranges.items()]
        command = [str(library.parent / "machine"), self.name, str(vcpus), hex(told), *options, *pieces]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def msr(self, number: int, vcpu: int = 0, value: int | None = None) -> int:
        """A model-specific register, as another client of libFDP reads it, or writes it before."""
        handle = self.handle()
        if value is not None:
            self.fdp.FDP_WriteMsr(handle, ctypes.c_uint32(vcpu), ctypes.c_uint64(number), ctypes.c_uint64(value))
        found = ctypes.c_uint64()
        self.fdp.FDP_ReadMsr(handle, ctypes.c_uint32(vcpu), ctypes.c_uint64(number), ctypes.byref(found))
        return found.value

    def register(self, number: int) -> int:
        """A register of the first vCPU by libFDP's number, as another client reads it."""
        found = ctypes.c_uint64()
        self.fdp.FDP_ReadRegister(self.handle(), 0, ctypes.c_uint16(number), ctypes.byref(found))
        return found.value

    def set_register(self, number: int, value: int) -> None:
        """Another client writes a register of the first vCPU."""
        self.fdp.FDP_WriteRegister(self.handle(), 0, ctypes.c_uint16(number), ctypes.c_uint64(value))

    def state(self) -> int:
        """The bits of FDP's state: 1 paused, 2 at a breakpoint."""
        found = ctypes.c_uint16()
        self.fdp.FDP_GetState(self.handle(), ctypes.byref(found))
        return found.value

    def order(self, function: str) -> None:
        """Another client calls ``FDP_Pause`` or ``FDP_Resume``."""
        self.fdp[function](self.handle())

    def handle(self) -> ctypes.c_void_p:
        """The handle of another client, made once."""
        if self._handle is None:
            self.fdp.FDP_OpenSHM.restype = ctypes.c_void_p
            self._handle = ctypes.c_void_p(self.fdp.FDP_OpenSHM(self.name.encode()))
        return self._handle

    def end(self) -> None:
        """End it as a crash does: its shared memory stays."""
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def remove(self) -> None:
        """Remove its shared memory."""
        for path in (SHM / self.name, SHM / f"CPU_{self.name}"):
            path.unlink(missing_ok=True)


@contextmanager
def simulated(
    library: Path, ranges: dict[int, int], ram_size: int | None = None, vcpus: int = 1, *, unwritable: int | None = None
) -> Iterator[Simulator]:
    """A machine of these ranges (start -> size), whose RAM ends with the last unless ``ram_size`` says otherwise.

    Writes of the byte at ``unwritable`` are refused.
    """
    options = () if unwritable is None else (f"unwritable:{unwritable:#x}",)
    one = Simulator(library, ranges, ram_size, vcpus, *options)
    try:
        yield one
    finally:
        one.end()
        one.remove()


def addresses(start: int, size: int) -> bytes:
    """What a simulated machine's memory holds: every 8 bytes their address. At ``CODE`` are instructions."""
    return b"".join(address.to_bytes(8, "little") for address in range(start, start + size, 8))
