# SPDX-License-Identifier: Apache-2.0
"""What C reads through: the newest table of a context's machine, whoever publishes it, and none that has gone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from ctypes import byref, c_size_t, c_uint8, c_uint64
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.memory.direct import Table
from libmicrovmi_py.memory.io import Memory, PaddedMemory

Open = Callable[[str], int]
SIZE = 0x4000
PLUGINS = Path(__file__).resolve().parents[1] / "plugins"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.raw"
    path.write_bytes(bytes(index // 0x1000 + 1 for index in range(SIZE)))
    return path


@pytest.fixture
def handles(lib: Any, opened: Open) -> ModuleType:
    """The library's own module, which this process's Python has loaded as well."""
    lib.microvmi_destroy(opened("vmi://fake/"))
    return sys.modules["libmicrovmi_py._capi.handles"]


class Turning:
    """A machine whose table is another at each look; publishing waits at its cursor until the other thread is done."""

    def __init__(self, machine: Microvmi, tables: list[Table]) -> None:
        self.tables = tables
        self.physical = self
        self.padded_memory: PaddedMemory = machine.padded_memory
        self._memory: Memory = machine.memory
        self.second_is_done = threading.Event()
        self.first_is_waiting = threading.Event()
        self.current = tables[0]

    def table(self) -> Table:
        return self.current

    @property
    def memory(self) -> Memory:
        if not self.first_is_waiting.is_set():
            self.current = self.tables[1]
            self.first_is_waiting.set()
            self.second_is_done.wait(0.5)
        return self._memory


def test_of_two_publishers_the_one_with_the_newer_table_wins(
    lib: Any, opened: Open, handles: ModuleType, image: Path
) -> None:
    context = opened(str(image))
    handle = handles._handles[context]
    machine = handle.machine
    turning = Turning(machine, [Table((), 0x1000), Table((), 0x2000)])
    handle.machine = turning
    first = threading.Thread(target=handle.publish)
    first.start()
    turning.first_is_waiting.wait()
    handle.publish()
    turning.second_is_done.set()
    first.join()
    handle.machine = machine
    end = c_uint64()
    assert lib.microvmi_seek(context, 0, 2, byref(end))
    assert end.value == 0x2000


def test_a_table_that_could_not_be_replaced_is_kept(lib: Any, opened: Open, handles: ModuleType, image: Path) -> None:
    context = opened(str(image))
    turning = Turning(handles._handles[context].machine, [Table((), 0x1000), Table((), 0x2000)])
    turning.first_is_waiting.set()
    under_way = handles.Handle(context, turning)  # of a call that a destroy finds under way
    under_way.publish()
    lib.microvmi_destroy(context)
    turning.current = turning.tables[1]
    under_way.publish()
    assert under_way._published is turning.tables[0]


def test_what_the_memory_map_brings_is_read_by_c(
    lib: Any, opened: Open, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROVMI_PLUGIN_PATH", str(PLUGINS))
    vm = opened(f"vmi://growing/?path={image}")
    buffer, count, ranges = (c_uint8 * 16)(), c_uint64(), c_size_t()
    assert not lib.microvmi_read_physical(vm, SIZE * 2, buffer, 16, byref(count))
    assert lib.microvmi_get_memory_map(vm, None, 0, byref(ranges))
    assert lib.microvmi_read_physical(vm, SIZE * 2, buffer, 16, byref(count))
    assert bytes(buffer) == b"\1" * 16
