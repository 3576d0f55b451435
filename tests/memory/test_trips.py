# SPDX-License-Identifier: Apache-2.0
"""Drivers that read many frames in one trip: the same results as frame by frame, in few trips, and nothing beyond."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import NotMappedError, VmGoneError
from libmicrovmi_py.memory import PhysicalMemory
from libmicrovmi_py.memory.frames import FRAMES_A_TRIP
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE

HOLES = {3, 4, 9, 1100}
FRAMES = 1200
END = FRAMES * PAGE_SIZE
UNTOUCHED = b"\xee"


def content_of(frame: int) -> bytes:
    return frame.to_bytes(2, "little") * (PAGE_SIZE // 2)


class Trips(FakeDriver):
    """A machine that notes how many frames each trip asks for, and dies at ``gone_at``."""

    def __init__(self) -> None:
        super().__init__(
            {frame * PAGE_SIZE: bytearray(content_of(frame)) for frame in range(FRAMES) if frame not in HOLES}
        )
        self.trips: list[int] = []
        self.gone_at = FRAMES * 2

    def _exists(self, frame: int, offset: int, buffer: memoryview) -> bool:
        if frame == self.gone_at:
            raise VmGoneError("gone")
        try:
            super().read_frame(frame, offset, buffer)
        except NotMappedError:
            return False
        return True

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        self.trips.append(1)
        super().read_frame(frame, offset, buffer)


class Batches(Trips):
    def read_frames(self, requests: Sequence[tuple[int, int, memoryview]]) -> Sequence[bool]:
        self.trips.append(len(requests))
        return [self._exists(*request) for request in requests]


class Ranges(Trips):
    def read_range(self, address: int, buffer: memoryview) -> int:
        self.trips.append(len(buffer) >> PAGE_SHIFT)
        done = 0
        while done < len(buffer):
            frame, offset = divmod(address + done, PAGE_SIZE)
            size = min(PAGE_SIZE - offset, len(buffer) - done)
            try:
                exists = self._exists(frame, offset, buffer[done : done + size])
            except VmGoneError as err:
                raise VmGoneError(str(err), completed=done) from err
            if not exists:
                break
            done += size
        return done


@pytest.fixture(params=[Batches, Ranges])
def driver(request: pytest.FixtureRequest) -> Trips:
    made: Trips = request.param()
    return made


READS = [
    (0, 8),
    (PAGE_SIZE - 1, 2),
    (0, 3 * PAGE_SIZE),
    (0, 20 * PAGE_SIZE),
    (2 * PAGE_SIZE + 5, PAGE_SIZE),
    (3 * PAGE_SIZE, 5 * PAGE_SIZE),
    (5 * PAGE_SIZE - 1, 2),
    (8 * PAGE_SIZE + 1, 3 * PAGE_SIZE),
    (10 * PAGE_SIZE, 1150 * PAGE_SIZE),
    (END - 5, 10),
    (END, 2 * PAGE_SIZE),
    ((1 << 64) - 5, 100),
]


def expected(address: int, size: int) -> tuple[bytes, bytes]:
    """The valid prefix, and the whole with zeros."""
    first, last = address // PAGE_SIZE, (address + size - 1) // PAGE_SIZE
    exists = [frame < FRAMES and frame not in HOLES for frame in range(first, last + 1)]
    whole = b"".join(content_of(first + i) if there else bytes(PAGE_SIZE) for i, there in enumerate(exists))
    valid = exists.index(False) if False in exists else len(exists)
    skip = address % PAGE_SIZE
    return whole[skip : valid * PAGE_SIZE][:size], whole[skip : skip + size]


@pytest.mark.parametrize(("address", "size"), READS)
def test_reads_are_those_of_single_frames(driver: Trips, address: int, size: int) -> None:
    memory, (valid, padded) = PhysicalMemory(driver), expected(address, size)
    buffer = bytearray(UNTOUCHED * size)
    assert memory.read_into(address, memoryview(buffer)) == len(valid)
    same = buffer == valid + UNTOUCHED * (size - len(valid))
    assert same, "bytes after the valid prefix are untouched"
    memory.read_padded_into(address, memoryview(buffer))
    same = buffer == padded
    assert same


def test_many_requests_have_the_results_of_single_ones(driver: Trips) -> None:
    buffers = [bytearray(UNTOUCHED * size) for _, size in READS]
    pairs = [(address, memoryview(buffer)) for (address, _), buffer in zip(READS, buffers, strict=True)]
    results = PhysicalMemory(driver).read_batch(pairs)
    for (address, size), buffer, (done, error) in zip(READS, buffers, results, strict=True):
        valid, _ = expected(address, size)
        assert done == len(valid)
        same = buffer == valid + UNTOUCHED * (size - len(valid))
        assert same, f"{size:#x} at {address:#x}: bytes after the valid prefix are untouched"
        assert (error is None) == (done == size)


def test_a_large_read_takes_few_trips_of_bounded_size(driver: Trips) -> None:
    PhysicalMemory(driver).read_into(10 * PAGE_SIZE, memoryview(bytearray(1090 * PAGE_SIZE)))
    assert len(driver.trips) <= 2
    driver.trips.clear()
    PhysicalMemory(driver).read_padded_into(0, memoryview(bytearray(END)))
    assert len(driver.trips) <= 2 * len(HOLES) + 1
    if isinstance(driver, Batches):
        assert max(driver.trips) <= FRAMES_A_TRIP
        driver.trips.clear()
        PhysicalMemory(driver).read_batch([(0, memoryview(bytearray(END)))] * 3)
        assert max(driver.trips) <= FRAMES_A_TRIP


def test_an_error_in_the_middle_tells_where(driver: Trips) -> None:
    driver.gone_at = 1150
    for read in (PhysicalMemory(driver).read_into, PhysicalMemory(driver).read_padded_into):
        with pytest.raises(VmGoneError) as caught:
            read(1101 * PAGE_SIZE, memoryview(bytearray(100 * PAGE_SIZE)))
        error = caught.value
        assert error.address == 1101 * PAGE_SIZE + error.completed
        assert error.completed <= 49 * PAGE_SIZE
        assert error.requested == 100 * PAGE_SIZE


def test_an_error_in_a_batch_is_that_of_its_request(driver: Trips) -> None:
    driver.gone_at = 50
    buffers = [memoryview(bytearray(3 * PAGE_SIZE)) for _ in range(3)]
    addresses = (10 * PAGE_SIZE, 48 * PAGE_SIZE, 60 * PAGE_SIZE)
    results = PhysicalMemory(driver).read_batch(list(zip(addresses, buffers, strict=True)))
    assert [error and type(error) for _, error in results] == [None, VmGoneError, None]
    assert [done for done, _ in results] == [3 * PAGE_SIZE, results[1].done, 3 * PAGE_SIZE]
