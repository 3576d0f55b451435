# SPDX-License-Identifier: Apache-2.0
"""Memory through the KVM driver: every byte, one request a page, holes, writes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest
from drivers.kvm import wire
from drivers.kvm.simulator import PAGE, Simulator

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import IoError, NotMappedError, NotSupportedError, PermissionDeniedError

READS = 100_000


def test_the_maximum_address_is_the_end_of_the_highest_frame(machine: Microvmi) -> None:
    assert machine.max_addr == 0x4A000


def test_the_machine_tells_its_name_and_a_wrong_one_is_a_warning(
    simulator: Simulator, reach: Callable[..., Microvmi], caplog: pytest.LogCaptureFixture
) -> None:
    reach(vm_name="simulator").close()
    assert caplog.messages == []
    reach(vm_name="another").close()
    assert caplog.messages == ["the machine that connected is called simulator, not another"]


def test_opening_changes_nothing_of_the_guest(simulator: Simulator, reach: Callable[..., Microvmi]) -> None:
    reach()
    assert set(simulator.seen) == {wire.GET_VERSION, wire.GET_MAX_GFN}


def test_reads_at_all_offsets_of_a_page_and_across(machine: Microvmi, pieces: Mapping[int, bytes]) -> None:
    memory = pieces[0]
    for offset in range(0, PAGE, 13):
        for size in (1, 8, PAGE, PAGE + 1, 2 * PAGE):
            start = PAGE + offset
            assert machine.read_physical(start, size) == memory[start : start + size], f"{size} bytes at {start:#x}"


def test_a_hundred_thousand_reads_across_pages_and_within(machine: Microvmi, pieces: Mapping[int, bytes]) -> None:
    chance, memory = random.Random(2), pieces[0]
    crossing = 0
    for number in range(READS // 10):
        ranges = [(edge - chance.randrange(1, 200), chance.randrange(1, 200)) for edge in _edges(chance, len(memory))]
        contents = _in_a_batch(machine, ranges) if number % 2 else _one_by_one(machine, ranges)
        for (start, size), content in zip(ranges, contents, strict=True):
            same = content == memory[start : start + size]
            assert same, f"{size} bytes at {start:#x}"
            crossing += start // PAGE != (start + size - 1) // PAGE
    assert crossing > READS / 3


def _edges(chance: random.Random, size: int) -> list[int]:
    return [chance.randrange(1, size // PAGE) * PAGE for _ in range(10)]


def _in_a_batch(machine: Microvmi, ranges: list[tuple[int, int]]) -> list[bytearray]:
    buffers = [bytearray(size) for _, size in ranges]
    starts = [start for start, _ in ranges]
    assert all(result.error is None for result in machine.read_physical_batch(list(zip(starts, buffers, strict=True))))
    return buffers


def _one_by_one(machine: Microvmi, ranges: list[tuple[int, int]]) -> list[bytes]:
    return [machine.read_physical(start, size) for start, size in ranges]


def test_a_read_stops_at_a_hole_and_leaves_the_rest_alone(machine: Microvmi, pieces: Mapping[int, bytes]) -> None:
    buffer = bytearray(b"\xee" * 0x4000)
    assert machine.read_physical_into(0x3F800, buffer) == 0x800
    assert buffer == pieces[0][0x3F800:] + b"\xee" * 0x3800
    with pytest.raises(NotMappedError, match="0x40000"):
        machine.read_physical(0x40000, 8)
    machine.read_physical_padded_into(0x3F800, buffer)
    assert buffer == pieces[0][0x3F800:] + bytes(0x2000) + pieces[0x42000][:0x1800]


def test_a_read_that_fails_behind_a_hole_is_no_hole_and_tells_how_far_it_came(
    machine: Microvmi, simulator: Simulator, pieces: Mapping[int, bytes]
) -> None:
    """C reads up to a hole; all behind it is Python's, several frames at once."""
    simulator.refused["unreadable"].add(0x46)
    buffer = bytearray(b"\xee" * 0xA000)
    with pytest.raises(IoError, match="kvmi_read_physical") as caught:
        machine.read_physical_padded_into(0x3F800, buffer)
    assert (caught.value.address, caught.value.completed) == (0x46000, 0x6800)
    assert buffer == pieces[0][0x3F800:] + bytes(0x2000) + pieces[0x42000][:0x4000] + b"\xee" * 0x3800


def test_a_range_ends_at_a_hole_and_fails_where_a_frame_is_refused(machine: Microvmi, simulator: Simulator) -> None:
    """As the driver tells it."""
    simulator.refused["unreadable"].add(0x3E)
    driver, buffer = machine.driver, memoryview(bytearray(0x4000))
    assert driver.read_range(0x3F800, buffer) == 0x800  # type: ignore[attr-defined]
    with pytest.raises(IoError) as caught:
        driver.read_range(0x3B800, buffer)  # type: ignore[attr-defined]
    assert (caught.value.address, caught.value.completed) == (0x3E000, 0x2800)


def test_batches_tell_holes_apart(machine: Microvmi, pieces: Mapping[int, bytes]) -> None:
    buffers = [bytearray(16) for _ in range(3)]
    results = machine.read_physical_batch(list(zip((0x10, 0x41000, 0x42000), buffers, strict=True)))
    assert [result.done for result in results] == [16, 0, 16]
    assert buffers == [pieces[0][0x10:0x20], bytes(16), pieces[0x42000][:16]]


def test_writes_land_across_pages_and_nowhere_else(machine: Microvmi, simulator: Simulator) -> None:
    before = {frame: bytes(content) for frame, content in simulator.frames.items()}
    machine.write_physical(0x1FF0, bytes(range(64)))
    assert simulator.frames[1] == before[1][:-16] + bytes(range(16))
    assert simulator.frames[2] == bytes(range(16, 64)) + before[2][48:]
    assert {frame: bytes(content) for frame, content in simulator.frames.items() if frame not in (1, 2)} == {
        frame: content for frame, content in before.items() if frame not in (1, 2)
    }


def test_a_write_into_a_hole_writes_nothing(machine: Microvmi, simulator: Simulator) -> None:
    before = bytes(simulator.frames[0x3F])
    with pytest.raises(NotMappedError):
        machine.write_physical(0x3FFF0, bytes(32))
    assert simulator.frames[0x3F] == before


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (wire.EPERM, PermissionDeniedError),
        (wire.ENOSYS, NotSupportedError),
        (wire.EINVAL, IoError),
        (12345, IoError),
    ],
)
def test_other_errors_are_not_holes(
    machine: Microvmi, simulator: Simulator, number: int, expected: type[Exception]
) -> None:
    def refuse(command: int, seq: int, body: bytes) -> bytes | None:
        if command not in (wire.READ_PHYSICAL, wire.WRITE_PHYSICAL):
            return None
        return wire.HEADER.pack(command, wire.ERROR.size, seq) + wire.ERROR.pack(-number)

    allow, simulator.meddle = simulator.meddle, refuse
    with pytest.raises(expected, match="kvmi_read_physical"):
        machine.read_physical(0, 8)
    with pytest.raises(expected, match="kvmi_write_physical"):
        machine.driver.write_frame(0, 0, memoryview(b"x"))  # type: ignore[attr-defined]
    simulator.meddle = allow
    machine.read_physical(0, 8)
