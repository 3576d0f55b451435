# SPDX-License-Identifier: Apache-2.0
"""A driver that writes down what happens to its machine, for an observer outside of the process."""

from __future__ import annotations

import os
import time
from typing import ClassVar

from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.drivers.control import RUNS, STOPPED, RunState
from libmicrovmi_py.errors import InvalidArgumentError, IoError, NotMappedError
from libmicrovmi_py.model import PAGE_SHIFT, MemoryRange
from libmicrovmi_py.params import Parameters


class Journal(Driver):
    """A machine of zeros. Each change of its run state, and its end, is a line in the file ``path``."""

    name = "journal"
    automatic = False
    parameters: ClassVar[dict[str, str]] = {
        "path": "the file to write to",
        "stopped": "1 if the machine is stopped already",
        "size": "bytes of memory (default 0)",
        "delay": "seconds that reading a frame takes",
        "broken": "a physical address whose frame cannot be read",
    }

    def __init__(self, params: Parameters) -> None:
        self._path = params["path"]
        self._running = params.get("stopped") != "1"
        self._size = params.integer("size", 0)
        self._closed = False
        self._delay = float(params.get("delay", "0"))
        self._broken = params.integer("broken", -1)

    @classmethod
    def open(cls, params: Parameters) -> Journal:
        if "path" not in params:
            raise InvalidArgumentError("the journal driver needs path=FILE")
        return cls(params)

    def _note(self, what: str) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(fd, what.encode() + b"\n")
        os.close(fd)

    @property
    def max_addr(self) -> int:
        return self._size

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        address = frame << PAGE_SHIFT
        if address >= self._size:
            raise NotMappedError(f"no memory at physical address {address:#x}", address=address)
        if address == self._broken:
            raise IoError(f"the frame at {address:#x} is broken", address=address)
        time.sleep(self._delay)
        if self._closed:
            raise RuntimeError("read after close()")
        buffer[:] = bytes(len(buffer))

    def memory_map(self) -> list[MemoryRange]:
        """All of it."""
        return [MemoryRange(0, self._size)]

    def run_state(self) -> RunState:
        return RUNS if self._running else STOPPED

    def stop(self) -> None:
        self._note("pause")
        self._running = False

    def run(self, *, whoever: bool) -> None:
        self._note("resume")
        self._running = True

    def close(self) -> None:
        self._note("close")
        self._closed = True


DRIVER = Journal
