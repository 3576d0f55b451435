# SPDX-License-Identifier: Apache-2.0
"""A made-up domain behind a simulator of Xen, ``tests/drivers/xen/simulator.c``.

On a host without Xen the driver of the tree opens nothing. So the stand brings a way to open along, as a plugin: the
same driver over the simulator, which comes after the one of the tree when no driver is named. A real domain is
looked into by the lab, ``tests/xenlab``.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from contract.target import Failing, Target, Way

from libmicrovmi_py import EventKind, Intercept, InterceptFlag, Microvmi, PageAccess
from libmicrovmi_py.declare import replace
from libmicrovmi_py.drivers.saved import xenstate
from libmicrovmi_py.drivers.xen.stops import ANSWERS

SIMULATOR = Path(__file__).resolve().parents[2] / "drivers" / "xen" / "simulator.c"

FRAMES, HOLE = 0x2000, range(0x30, 0x40)

PLUGIN = f"""
import sys
sys.path.insert(0, {str(SIMULATOR.parents[2])!r})
from drivers.xen.simulator import Simulator
sys.path.remove({str(SIMULATOR.parents[2])!r})
from libmicrovmi_py.drivers.xen.driver import OpenDomain
from libmicrovmi_py.drivers.xen.xenctrl import Domain
from libmicrovmi_py.errors import InvalidArgumentError

SIMULATOR = Simulator({{library!r}})
for frame in range({FRAMES}):
    SIMULATOR.memory[frame << 12 : (frame + 1) << 12] = frame.to_bytes(8, "little") * 512
SIMULATOR.hole({HOLE.start}, {len(HOLE)})
SIMULATOR.set("ept", 1)

class Played(OpenDomain):
    @classmethod
    def open(cls, params):
        if params.vm_name != "tiny":
            raise InvalidArgumentError("no such domain")
        return cls(SIMULATOR.libraries, Domain(SIMULATOR.libraries, 1, "tiny"))

DRIVER = Played
"""


def stand(folder: Path) -> Iterator[Target]:
    """A domain with a hole and Xen's own frames."""
    with _plugged_in(folder):
        yield Target("vmi:///?vm_name=tiny", _pieces(), writable=True, guest=XenGuest(folder / "libxensimulator.so"))


class XenGuest:
    """It is played through the functions of the simulator that are for tests; a register that it writes is written
    when the event comes, as with Xen.
    """

    page = 0x5000
    _rip = 0x6123
    _old, _new = 0x1000, 0x7000
    _intercepts: ClassVar = {
        EventKind.CR: Intercept(EventKind.CR, 3),
        EventKind.MSR: Intercept(EventKind.MSR, 0x174),
    }

    def __init__(self, library: Path) -> None:
        self._library = library

    def _call(self, name: str, *arguments: object) -> int:
        """The driver has loaded the library when this is called, so that it is the same simulator."""
        return int(ctypes.CDLL(str(self._library))[f"simulator_{name}"](*arguments))

    def _record(self) -> Any:
        function = ctypes.CDLL(str(self._library)).simulator_cpu
        function.restype = ctypes.c_void_p
        return (ctypes.c_char * xenstate.CPU_SIZE).from_address(function(0))

    @property
    def ways(self) -> list[Way]:
        """A write of CR3 is told in time for every answer, whether that was asked for or not; or observed."""
        every, observed = (
            replace(self.intercept(EventKind.CR), flags=flag)
            for flag in (InterceptFlag.EVERY_WRITE, InterceptFlag.OBSERVE)
        )
        return [
            Way(every, lambda: self.provoke(EventKind.CR), ANSWERS[EventKind.CR]),
            Way(observed, lambda: self.provoke(EventKind.CR), frozenset()),
        ]

    def intercept(self, kind: EventKind) -> Intercept:
        return self._intercepts.get(kind, Intercept(kind))

    def provoke(self, kind: EventKind) -> dict[str, int]:
        written, code = {"old_value": self._old, "new_value": self._new}, {"virtual_address": self._rip}
        reason, body, told = {
            EventKind.CR: (4, struct.pack("<IIQQ", 1, 0, self._new, self._old), {"number": 3, **written}),
            EventKind.MSR: (5, struct.pack("<QQQ", 0x174, self._new, self._old), {"number": 0x174, **written}),
            EventKind.BREAKPOINT: (6, struct.pack("<QQIB", 6, 0, 1, 6), {**code, "instruction_length": 1}),
            EventKind.SINGLE_STEP: (7, struct.pack("<Q", 6), code),
            EventKind.PAGE_ACCESS: (
                1,
                struct.pack("<QQQI", self.page >> 12, 8, 0xFFFF8008, 1 << 3 | PageAccess.WRITE),
                {"physical_address": self.page + 8, "virtual_address": 0xFFFF8008, "access": PageAccess.WRITE},
            ),
        }[kind]
        if "new_value" in told:
            record = self._record()
            record.raw = xenstate.changed(record.raw, {self._name(kind): self._new})
        assert self._call("event", 0, reason, body.ljust(32, b"\0"), ctypes.c_uint64(self._rip), True)
        return told

    @staticmethod
    def _name(kind: EventKind) -> str:
        return "cr3" if kind is EventKind.CR else "sysenter_cs"

    def value(self, kind: EventKind, machine: Microvmi) -> int:
        return xenstate.values(self._record().raw)[self._name(kind)]

    def left(self, machine: Microvmi) -> int:
        return sum(self._call("get", what) for what in (b"armed", b"stopped", b"enabled", b"stray"))


def failing(folder: Path) -> Iterator[Failing]:
    """The kernel cannot map two of the frames; a mapping of many is made as a whole or not at all."""
    frames = {b"unreadable": 0x100, b"unwritable": 0x200}

    @contextmanager
    def broken() -> Iterator[None]:
        library = ctypes.CDLL(str(folder / "libxensimulator.so"))
        for what, frame in frames.items():
            library.simulator_set(what, frame)
        yield
        for what in frames:
            library.simulator_set(what, 0)

    with _plugged_in(folder):
        unreadable, unwritable = (frame << 12 for frame in frames.values())
        yield Failing("vmi:///?vm_name=tiny", _pieces(), unreadable, unwritable, exact=False, failing=broken)


def _pieces() -> dict[int, bytes]:
    whole = b"".join(frame.to_bytes(8, "little") * 512 for frame in range(FRAMES))
    return {0: whole[: HOLE.start << 12], HOLE.stop << 12: whole[HOLE.stop << 12 :], 0xFC000000: bytes(9 << 12)}


@contextmanager
def _plugged_in(folder: Path) -> Iterator[None]:
    """Compile the simulator, and put the plugin where plugins are looked for."""
    library = folder / "libxensimulator.so"
    compiler = shlex.split(os.environ.get("CC") or "cc")
    subprocess.run([*compiler, "-std=gnu11", "-shared", "-fPIC", "-O1", SIMULATOR, "-o", library], check=True)
    (folder / f"played_{folder.name}.py").write_text(PLUGIN.format(library=str(library)))
    before = os.environ.get("MICROVMI_PLUGIN_PATH")
    os.environ["MICROVMI_PLUGIN_PATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MICROVMI_PLUGIN_PATH"]
        else:
            os.environ["MICROVMI_PLUGIN_PATH"] = before
