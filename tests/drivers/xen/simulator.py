# SPDX-License-Identifier: Apache-2.0
"""A simulator of Xen, ``simulator.c``: the real names of its libraries, a made-up domain."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.xen import library
from libmicrovmi_py.drivers.xen.driver import OpenDomain
from libmicrovmi_py.drivers.xen.xenctrl import Domain
from libmicrovmi_py.events import Event, EventKind, Intercept
from libmicrovmi_py.transport.foreign import load

FRAMES = 0x2000
SPECIAL = 0xFC000
DOMID = 1
VCPUS = 3

CR3 = Intercept(EventKind.CR, 3)
CR4 = Intercept(EventKind.CR, 4)
BREAKPOINT = Intercept(EventKind.BREAKPOINT)
SINGLE_STEP = Intercept(EventKind.SINGLE_STEP)


def cr(index: int, new: int, old: int) -> bytes:
    """What Xen tells of a write of a control register, by its index there."""
    return struct.pack("<IIQQ", index, 0, new, old)


def heard(machine: Microvmi) -> Event:
    """The next event."""
    event = machine.listen(5)
    assert event is not None
    return event


class Simulator:
    """The test's side of the simulator: it plays the guest and the toolstack, and counts."""

    def __init__(self, path: Path) -> None:
        self._lib = ctypes.CDLL(str(path))
        self._lib.simulator_event.argtypes = [
            ctypes.c_uint32,
            ctypes.c_uint32,
            ctypes.c_char_p,
            ctypes.c_uint64,
            ctypes.c_bool,
        ]
        self._lib.simulator_event.restype = ctypes.c_bool
        for name in ("memory", "answer", "cpu"):
            getattr(self._lib, f"simulator_{name}").restype = ctypes.c_void_p
        self._lib.simulator_reset()
        address = self._lib.simulator_memory()
        self.memory = memoryview((ctypes.c_ubyte * (FRAMES << 12)).from_address(address)).cast("B")
        libc = load(("libc.so.6",), library.LIBC)
        self.libraries = library.Libraries(
            control=load((str(path),), library.CONTROL),
            store=load((str(path),), library.STORE),
            memory=load((str(path),), library.MEMORY),
            channels=load((str(path),), library.CHANNELS),
            libc=libc,
            log=libc.ffi.NULL,
        )

    def open(self) -> Microvmi:
        """Another client of the domain."""
        return Microvmi.from_driver(OpenDomain(self.libraries, Domain(self.libraries, DOMID, "tiny")))

    def get(self, what: str) -> int:
        """A number of the simulator's state."""
        return int(self._lib.simulator_get(what.encode()))

    def set(self, what: str, value: int) -> None:
        """Change the state, as the toolstack or another client would."""
        self._lib.simulator_set(what.encode(), value)

    def forget(self) -> None:
        """Clear away what Xen does with a domain that ended."""
        self._lib.simulator_forget()

    def hole(self, first: int, count: int) -> None:
        """Take frames from the domain."""
        self._lib.simulator_hole(first, count)

    def event(self, vcpu: int, reason: int, body: bytes, rip: int = 0x1000, *, waits: bool = True) -> bool:
        """Stop a vCPU at an event; whether there was room for it, else it waits for that."""
        return bool(self._lib.simulator_event(vcpu, reason, body.ljust(32, b"\0"), rip, waits))

    def answer(self) -> bytes:
        """The last answer that Xen took."""
        return ctypes.string_at(self._lib.simulator_answer(), 400)

    def cpu(self, vcpu: int) -> bytes:
        """A vCPU's record."""
        return ctypes.string_at(self._lib.simulator_cpu(vcpu), 1032)
