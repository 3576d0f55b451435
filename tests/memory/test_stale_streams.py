# SPDX-License-Identifier: Apache-2.0
"""Streams that were bound to a table of regions: after a pause, a resume, a change of the map, and a close."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.memory import Memory, PaddedMemory

PAGE = 4096


@pytest.fixture
def uri(start_machine: Callable[..., str]) -> str:
    """A machine whose memory is its process's, so that pages are kept while it is paused."""
    return start_machine("-fake", "private")


def page_of(stream: Memory | PaddedMemory, address: int, size: int = 8) -> bytes:
    stream.seek(address)
    return bytes(stream.read(size) or b"")


@pytest.mark.parametrize("padded", [False, True])
def test_a_stream_follows_pause_and_resume(uri: str, padded: bool) -> None:
    """Pages that were kept while the machine was paused are not what is read when it runs, and the other way round."""
    with Microvmi.open(uri) as machine, Microvmi.open(uri) as other:
        stream = machine.padded_memory if padded else machine.memory
        before = page_of(stream, 3 * PAGE)
        for round_ in range(3):
            machine.pause()
            assert page_of(stream, 3 * PAGE) == before
            other.write_physical(3 * PAGE, bytes([round_ + 100]) * 8)
            assert page_of(stream, 3 * PAGE) == before, "it was kept"
            machine.resume()
            for change in (100, 200):
                before = bytes([round_ + change]) * 8
                other.write_physical(3 * PAGE, before)
                assert page_of(stream, 3 * PAGE) == before, "nothing is kept of a machine that runs"


@pytest.mark.parametrize("padded", [False, True])
def test_a_stream_of_a_paused_machine_sees_what_is_written(uri: str, padded: bool) -> None:
    with Microvmi.open(uri) as machine:
        stream = machine.padded_memory if padded else machine.memory
        machine.pause()
        for byte in (b"a", b"b"):
            page_of(stream, 5 * PAGE)
            machine.write_physical(5 * PAGE + 4, byte)
            assert page_of(stream, 5 * PAGE)[4:5] == byte
            machine.memory.seek(6 * PAGE)
            machine.memory.write(byte)
            assert page_of(stream, 6 * PAGE)[:1] == byte


@pytest.mark.parametrize("options", [(), ("-fake", "private")], ids=["mapped", "process"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_closed_stream_is_not_read(start_machine: Callable[..., str], options: tuple[str, ...], padded: bool) -> None:
    with Microvmi.open(start_machine(*options)) as machine:
        stream = machine.padded_memory if padded else machine.memory
        buffer = bytearray(b"\xee" * 8)
        stream.readinto(buffer)
        stream.close()
        with pytest.raises(ValueError, match="closed"):
            stream.readinto(buffer)
        with pytest.raises(ValueError, match="closed"):
            io.BufferedReader(stream).read(1)
        assert machine.read_physical(0, 4) == bytes(4)


@pytest.mark.parametrize("options", [(), ("-fake", "private")], ids=["mapped", "process"])
def test_nothing_is_read_through_the_streams_of_a_closed_machine(
    start_machine: Callable[..., str], options: tuple[str, ...]
) -> None:
    machine = Microvmi.open(start_machine(*options))
    streams = machine.memory, machine.padded_memory
    for stream in streams:
        stream.readinto(bytearray(8))
    machine.close()
    for stream in streams:
        with pytest.raises(ValueError, match="closed"):
            stream.readinto(bytearray(8))
