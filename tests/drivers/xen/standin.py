# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Xen's libraries, ``stand_in.c``: real symbols, a made-up domain."""

from __future__ import annotations

import ctypes
from pathlib import Path

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.xen import libraries
from libmicrovmi_py.drivers.xen.control import Control
from libmicrovmi_py.drivers.xen.domain import Domain
from libmicrovmi_py.transport.foreign import load

FRAMES = 0x2000
SPECIAL = 0xFC000
DOMID = 1
VCPUS = 3


class StandIn:
    """The test's side of the stand-in: it plays the guest and the toolstack, and counts."""

    def __init__(self, path: Path) -> None:
        self._lib = ctypes.CDLL(str(path))
        self._lib.standin_event.argtypes = [ctypes.c_uint32, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint64]
        self._lib.standin_event.restype = ctypes.c_bool
        for name in ("memory", "answer", "cpu"):
            getattr(self._lib, f"standin_{name}").restype = ctypes.c_void_p
        self._lib.standin_reset()
        address = self._lib.standin_memory()
        self.memory = memoryview((ctypes.c_ubyte * (FRAMES << 12)).from_address(address)).cast("B")
        libc = load(("libc.so.6",), libraries.LIBC)
        self.libraries = libraries.Libraries(
            *(load((str(path),), part) for part in (libraries.CONTROL, libraries.STORE, libraries.MEMORY)),
            channels=load((str(path),), libraries.CHANNELS),
            libc=libc,
            log=libc.ffi.NULL,
        )

    def open(self) -> Microvmi:
        """Another client of the domain."""
        return Microvmi.from_driver(Domain(self.libraries, Control(self.libraries, DOMID, "tiny")))

    def get(self, what: str) -> int:
        """A number of the stand-in's state."""
        return int(self._lib.standin_get(what.encode()))

    def set(self, what: str, value: int) -> None:
        """Change the state, as the toolstack or another client would."""
        self._lib.standin_set(what.encode(), value)

    def forget(self) -> None:
        """Clear away what Xen does with a domain that ended."""
        self._lib.standin_forget()

    def hole(self, first: int, count: int) -> None:
        """Take frames from the domain."""
        self._lib.standin_hole(first, count)

    def event(self, vcpu: int, reason: int, body: bytes, rip: int = 0x1000) -> bool:
        """Stop a vCPU at an event; whether there was room for it."""
        return bool(self._lib.standin_event(vcpu, reason, body.ljust(32, b"\0"), rip))

    def answer(self) -> bytes:
        """The last answer that Xen took."""
        return ctypes.string_at(self._lib.standin_answer(), 400)

    def cpu(self, vcpu: int) -> bytes:
        """A vCPU's record."""
        return ctypes.string_at(self._lib.standin_cpu(vcpu), 1032)
