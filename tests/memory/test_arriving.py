# SPDX-License-Identifier: Apache-2.0
"""Memory that a post-copy migration has yet to bring, and whose source hangs: no read waits for it, no write either."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from needs import missing
from qemu_simulators import QemuSimulators

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import IoError

FIRST, BULK = 4096, 64 << 10
LIMIT = 5.0
"""Seconds after which a call counts as waiting."""


@pytest.fixture(params=["postcopy", "inmigrate"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Microvmi]:
    if os.geteuid() != 0:
        missing("the kernel lets only root make another process's reads wait; to enable: run as root")
    how = ["arriving"] if request.param == "postcopy" else ["arriving", "waiting"]
    with (
        QemuSimulators(tmp_path) as machines,
        Microvmi.open(machines.start(*fakes("private", "missing", *how))) as opened,
    ):
        yield opened


def fakes(*names: str) -> list[str]:
    return [word for name in names for word in ("-fake", name)]


def in_time(call: Callable[[], object]) -> list[BaseException]:
    """Call in a thread of its own, which a call that waits does not end: what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except IoError as err:
            raised.append(err)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive(), "waits for memory that does not come"
    return raised


@pytest.mark.parametrize("size", [FIRST + 8, BULK, 2 * BULK])
def test_a_read_ends_where_memory_has_not_arrived(machine: Microvmi, size: int) -> None:
    buffer = bytearray(b"\xee") * size
    (error,) = in_time(lambda: machine.read_physical_into(0, buffer))
    assert isinstance(error, IoError)
    assert "a migration has yet to bring it" in str(error)
    assert (error.completed, error.address) == (FIRST, FIRST)
    assert buffer == bytes(FIRST) + b"\xee" * (size - FIRST)


def test_padded_reads_and_both_streams_end_there_too(machine: Microvmi) -> None:
    buffer = bytearray(BULK)
    assert in_time(lambda: machine.read_physical_padded_into(0, buffer))
    for stream in (machine.memory, machine.padded_memory):
        (error,) = in_time(lambda stream=stream: stream.readinto(buffer))  # type: ignore[misc]
        assert isinstance(error, IoError)
        assert error.completed == stream.tell() == FIRST


def test_a_batch_tells_of_each_request(machine: Microvmi) -> None:
    requests = [(address, bytearray(256)) for address in (0, 0x8000, 0x30000, 0x9000)]
    results = machine.read_physical_batch(requests)
    assert [result.done for result in results] == [256, 0, 256, 0]
    assert [type(result.error) for result in results] == [type(None), IoError, type(None), IoError]


def test_a_write_ends_there_too(machine: Microvmi) -> None:
    assert in_time(lambda: machine.write_physical(0x8000, b"\x01" * 16))
    assert not in_time(lambda: machine.write_physical(0x100, b"\x01" * 16))
    assert machine.read_physical(0x100, 16) == b"\x01" * 16


def test_closing_does_not_wait(machine: Microvmi) -> None:
    in_time(lambda: machine.read_physical_into(0, bytearray(BULK)))
    start = time.monotonic()
    machine.close()
    assert time.monotonic() - start < LIMIT


def test_shared_memory_is_not_touched_before_it_arrived(tmp_path: Path) -> None:
    """A page that a mapping of ours would allocate could not arrive any more."""
    with QemuSimulators(tmp_path) as machines, Microvmi.open(machines.start(*fakes("arriving"))) as machine:
        assert all(region.source.reach().view is None for region in machine.driver.regions())  # type: ignore[attr-defined]
        assert machine.read_physical(0x5000, 16) == b"\x05" * 16
