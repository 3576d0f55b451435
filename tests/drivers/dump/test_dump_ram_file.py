# SPDX-License-Identifier: Apache-2.0
"""The RAM file of a real QEMU: the hole below 4 GiB is not in it; the log says so, ``hole=`` and ``map=`` mend it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.dump.saving_qemu import Qemu, qemu

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.dump.firmware import told

MIB, GIB = 1 << 20, 1 << 30
SIZE = 4 * GIB
LEGACY = (0xA0000, MIB)
"""The window of the video card and what firmware may be seen instead of memory."""


def _wait_for_tables(path: Path) -> None:
    """Until the firmware has told the guest of the memory above 4 GiB."""
    end = time.monotonic() + 180
    with path.open("rb") as file:
        while not any(start >= 4 * GIB for start, _ in told(lambda at, size: os.pread(file.fileno(), size, at))):
            assert time.monotonic() < end, "no tables of the firmware"
            time.sleep(0.2)


def _extents(path: Path) -> Iterator[tuple[int, int]]:
    """(offset, size) of what the file has, at most 1 MiB each; holes are zeros that nobody wrote."""
    with path.open("rb") as file:
        end = 0
        while end < SIZE:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return
            end = min(os.lseek(file.fileno(), start, os.SEEK_HOLE), start - start % MIB + MIB)
            yield start, end - start


def _assert_same(machine: Microvmi, guest: Qemu, path: Path, low: int) -> None:
    """Whether every page of the file is where ``pmemsave`` sees it."""
    compared = 0
    for offset, size in _extents(path):
        if LEGACY[0] < offset + size and offset < LEGACY[1]:
            size = max(LEGACY[0] - offset, 0)
        address = offset if offset < low else offset - low + 4 * GIB
        if size:
            assert machine.read_physical(address, size) == guest.memory(path.with_name("part"), address, size)
            compared += size
    assert compared > 64 << 10


@pytest.mark.parametrize(("board", "low"), [("pc", 3 * GIB), ("q35", 2 * GIB)])
def test_the_ram_file_of_qemu_is_read_at_the_machines_addresses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, board: str, low: int
) -> None:
    path = tmp_path / "ram"
    backend = f"memory-backend-file,id=ram,size={SIZE},share=on,mem-path={path}"
    with qemu(tmp_path, f"{board},memory-backend=ram", "4G", ["-object", backend]) as guest:
        _wait_for_tables(path)
        guest.ask("stop")
        with path.open("r+b") as file:
            for offset in (low - 4096, low, SIZE - 4096):
                os.pwrite(file.fileno(), offset.to_bytes(8, "little") * 512, offset)
        Microvmi(driver="dump", path=path).close()
        hole = f"{low:#x}-0x100000000"
        assert [line for line in caplog.messages if line.endswith(f": say hole={hole}")], caplog.messages
        high = 4 * GIB + SIZE - low
        for options in ({"hole": hole}, {"map": f"0-{low:#x}@0,0x100000000-{high:#x}@{low:#x}"}):
            with Microvmi(driver="dump", path=path, **options) as machine:
                assert machine.max_addr == high
                assert [(item.start, item.end) for item in machine.memory_map()] == [(0, low), (4 * GIB, high)]
                assert machine.read_physical(4 * GIB, 8) == low.to_bytes(8, "little")
                _assert_same(machine, guest, path, low)
