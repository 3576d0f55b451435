# SPDX-License-Identifier: Apache-2.0
"""Memory over the Xen simulator: what is read and written, with how many mappings, and for how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.xen import memory
from libmicrovmi_py.errors import NotMappedError, ReadOnlyError, VmGoneError
from libmicrovmi_py.model import MemoryKind, MemoryRange

if TYPE_CHECKING:
    from drivers.xen.simulator import Simulator

MIB = 1 << 20
SIZE = 32 * MIB


def number(memory: memoryview) -> None:
    """Let each 8 bytes hold their frame's number."""
    for frame in range(len(memory) >> 12):
        memory[frame << 12 : (frame + 1) << 12] = frame.to_bytes(8, "little") * 512


def test_the_map_is_main_memory_and_special_pages(machine: Microvmi) -> None:
    special = MemoryRange(0xFC000000, 9 << 12, MemoryKind.DEVICE)
    assert machine.memory_map() == (MemoryRange(0, SIZE), special)
    assert machine.max_addr == SIZE


def test_the_map_is_asked_for_anew_when_pages_came_or_went(xen: Simulator, machine: Microvmi) -> None:
    whole = machine.memory_map()
    before = xen.get("maps")
    assert machine.memory_map() == whole
    assert xen.get("maps") == before
    xen.hole(0x1F00, 0x100)
    assert machine.memory_map()[0] == MemoryRange(0, SIZE - MIB)
    assert machine.max_addr == SIZE - MIB


def test_holes_do_not_matter_for_the_maximum_address(xen: Simulator) -> None:
    xen.hole(0x1010, 0x20)
    before = xen.get("maps")
    with xen.open() as machine:
        assert machine.max_addr == SIZE
        assert xen.get("maps") - before < 12
        assert [item.size for item in machine.memory_map()[:2]] == [0x1010000, SIZE - 0x1030000]
        assert machine.max_addr == SIZE


def test_reads_cross_frames_and_end_at_holes(xen: Simulator, machine: Microvmi) -> None:
    number(xen.memory)
    xen.hole(0x300, 0x100)
    assert machine.read_physical(0x1FFC, 8) == bytes(4) + b"\2\0\0\0"
    buffer = bytearray(5 * MIB)
    assert machine.read_physical_into(0x1000, buffer) == 0x2FF000
    assert buffer[:0x2FF000] == bytes(xen.memory[0x1000:0x300000])
    assert not any(buffer[0x2FF000:])


def test_padded_reads_go_on_behind_holes(xen: Simulator, machine: Microvmi) -> None:
    number(xen.memory)
    xen.hole(0x300, 0x100)
    buffer = bytearray(b"\xee" * (5 * MIB))
    before = xen.get("maps")
    machine.read_physical_padded_into(0, buffer)
    assert buffer == bytes(xen.memory[:0x300000]) + bytes(0x100000) + bytes(xen.memory[0x400000 : 5 * MIB])
    assert xen.get("maps") - before <= 4


def test_a_large_read_takes_one_mapping_for_4_mib(xen: Simulator, machine: Microvmi) -> None:
    number(xen.memory)
    before = xen.get("maps")
    assert machine.read_physical(0, 16 * MIB) == bytes(xen.memory[: 16 * MIB])
    assert xen.get("maps") - before == 4


def test_a_batch_takes_one_mapping(xen: Simulator, machine: Microvmi) -> None:
    number(xen.memory)
    xen.hole(0x300, 0x100)
    frames = [5, 0x1FFF, 0x310, 5, 0x20, 0x2000]
    buffers = [bytearray(8) for _ in frames]
    before = xen.get("maps")
    results = machine.read_physical_batch(
        [(frame << 12, buffer) for frame, buffer in zip(frames, buffers, strict=True)]
    )
    assert xen.get("maps") - before == 1
    assert [result.done for result in results] == [8, 8, 0, 8, 8, 0]
    assert [int.from_bytes(buffer, "little") for buffer in buffers] == [5, 0x1FFF, 0, 5, 0x20, 0]


def test_a_running_domain_is_mapped_anew_for_each_read(xen: Simulator, machine: Microvmi) -> None:
    machine.read_physical(0x5000, 8)
    assert xen.get("mapped") == 0
    xen.hole(5, 1)
    with pytest.raises(NotMappedError):
        machine.read_physical(0x5000, 8)


def test_mappings_are_kept_while_the_domain_is_paused_and_no_longer(xen: Simulator, machine: Microvmi) -> None:
    number(xen.memory)
    machine.pause()
    before = xen.get("maps")
    for frame in range(0x40, 0x80):
        assert machine.read_physical(frame << 12, 8) == frame.to_bytes(8, "little")
    assert xen.get("maps") - before == 1
    machine.resume()
    assert xen.get("mapped") == 0
    before = xen.get("maps")
    for _ in range(3):
        assert machine.read_physical(0x40 << 12, 8) == (0x40).to_bytes(8, "little")
    assert xen.get("maps") - before == 3
    assert xen.get("mapped") == 0


def test_no_mapping_is_kept_of_a_domain_that_somebody_else_paused(xen: Simulator, machine: Microvmi) -> None:
    xen.set("paused", 1)
    machine.pause()
    machine.read_physical(0x5000, 8)
    assert xen.get("mapped") == 0
    xen.set("paused", 0)


def test_no_mapping_is_kept_once_somebody_let_the_domain_run(xen: Simulator, machine: Microvmi) -> None:
    machine.pause()
    machine.read_physical(0x5000, 8)
    xen.set("paused", 0)
    machine.memory_map()
    machine.read_physical(0x5000, 8)
    assert xen.get("mapped") == 0


def test_the_mappings_that_are_kept_are_bounded(xen: Simulator, machine: Microvmi) -> None:
    machine.pause()
    for frame in range(0, 2 * memory.CHUNK * memory.KEPT, memory.CHUNK):
        machine.read_physical_into(frame << 12, bytearray(8))
    assert 0 < xen.get("mapped") <= memory.CHUNK * memory.KEPT


def test_a_write_lands_and_is_seen_while_paused(xen: Simulator, machine: Microvmi) -> None:
    machine.pause()
    assert machine.read_physical(0x5FFE, 4) == bytes(4)
    machine.write_physical(0x5FFE, b"abcd")
    assert machine.read_physical(0x5FFE, 4) == b"abcd"
    assert bytes(xen.memory[0x5FFE:0x6002]) == b"abcd"


def test_a_write_into_a_hole_or_into_what_nobody_may_write_is_refused(xen: Simulator, machine: Microvmi) -> None:
    xen.hole(6, 1)
    with pytest.raises(NotMappedError):
        machine.write_physical(0x5FFE, b"abcd")
    assert bytes(xen.memory[0x5FFE:0x6000]) == bytes(2)
    xen.set("read-only", 1)
    with pytest.raises(ReadOnlyError, match="0x8000"):
        machine.write_physical(0x8000, b"abcd")


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_of_a_domain_that_ended_nothing_stays_mapped(xen: Simulator, machine: Microvmi, paused: bool) -> None:
    if paused:
        machine.pause()
    machine.read_physical(0x5000, 8)
    xen.set("dying", 1)
    time.sleep(0.15)
    with pytest.raises(VmGoneError, match="tiny"):
        machine.read_physical(0x6000, 8)
    assert xen.get("mapped") == 0
    for attempt in (machine.pause, machine.read_registers, machine.vcpu_count, lambda: machine.write_physical(0, b"x")):
        with pytest.raises(VmGoneError):
            attempt()
    xen.set("dying", 0)


def test_closing_unmaps(xen: Simulator) -> None:
    machine = xen.open()
    machine.pause()
    machine.read_physical(0x5000, 8)
    assert xen.get("mapped") > 0
    machine.close()
    assert xen.get("mapped") == 0
    assert xen.get("paused") == 0
