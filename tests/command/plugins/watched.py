# SPDX-License-Identifier: Apache-2.0
"""A machine that writes down what is done to it, for an observer outside of the process, and takes its time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.listed import ListedMachine
from libmicrovmi_py.model import MemoryRange
from libmicrovmi_py.params import Parameters

LISTING = "MICROVMI_TEST_LISTING"
"""The variable that names the journal of a listing, which takes its time as well."""

DELAY = "0.2"


class WatchedDriver(FakeDriver):
    """Each stop and run, and its end, is a line in the file ``path``; so is the first call that is ``slow``."""

    name = "watched"
    automatic = False
    parameters: ClassVar[dict[str, str]] = {
        **FakeDriver.parameters,
        "path": "the file to write to",
        "slow": "read, write, map, states, stop or run: what takes its time, each time",
        "delay": f"seconds that it takes ({DELAY})",
        "stopped": "yes if it stands already",
        "identity": "what it is, if it tells that",
    }
    _path = ""
    _slow = ""
    _delay = 0.0

    @classmethod
    def open(cls, params: Parameters) -> FakeDriver:
        opened = super().open(params)
        assert isinstance(opened, WatchedDriver)
        opened._path, opened._slow = params["path"], params.get("slow", "")
        opened._delay = float(params.get("delay", DELAY))
        opened.identity = params.get("identity", "")
        opened.running = not params.yes("stopped", False)
        return opened

    @classmethod
    def machines(cls) -> Iterator[ListedMachine]:
        if LISTING in os.environ:
            note(os.environ[LISTING], "slow")
            time.sleep(60)
        return super().machines()

    def _touch(self, what: str) -> None:
        if what == self._slow:
            note(self._path, "slow")
            time.sleep(self._delay)

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        super().read_frame(frame, offset, buffer)
        self._touch("read")

    def write_frame(self, frame: int, offset: int, data: memoryview) -> None:
        super().write_frame(frame, offset, data)
        self._touch("write")

    def memory_map(self) -> Sequence[MemoryRange]:
        self._touch("map")
        return super().memory_map()

    def read_states(self, vcpus: Sequence[int] | None) -> list[VcpuState]:
        self._touch("states")
        return super().read_states(vcpus)

    def write_state(self, vcpu: int, values: Mapping[str, int]) -> None:
        self._touch("write")
        super().write_state(vcpu, values)

    def stop(self) -> None:
        note(self._path, "stop")
        super().stop()
        self._touch("stop")

    def run(self, *, whoever: bool) -> None:
        note(self._path, "run")
        super().run(whoever=whoever)
        self._touch("run")

    def close(self) -> None:
        note(self._path, "close")


def note(path: str, what: str) -> None:
    """Add a line."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(fd, what.encode() + b"\n")
    os.close(fd)


DRIVER = WatchedDriver
