# SPDX-License-Identifier: Apache-2.0
"""Drivers that fail between the look in front of a write and its end, by the parts that a driver may have."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import (
    AccessError,
    InvalidArgumentError,
    InvalidContextError,
    IoError,
    NotMappedError,
    ReadOnlyError,
)
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import PAGE_SIZE

FRAMES = 16
NEW = b"\x5a"


def memory() -> dict[int, bytearray]:
    return {0: bytearray(b"".join(bytes([frame]) * PAGE_SIZE for frame in range(FRAMES)))}


class Vanishing(FakeDriver):
    """Frame 3 is there when one looks, and gone when it is written."""

    def write_frame(self, frame: int, offset: int, data: memoryview) -> None:
        if frame == 3:
            raise NotMappedError("no memory there", address=frame * PAGE_SIZE + offset)
        super().write_frame(frame, offset, data)


class Ranges(FakeDriver):
    """It reads and writes ranges, and fails in frame 9 and later, having done what is in front."""

    limit = 9 * PAGE_SIZE

    def read_range(self, address: int, buffer: memoryview) -> int:
        done = self._each(self.read_frame, address, buffer)
        self._fail(address, done, len(buffer))
        return done

    def write_range(self, address: int, data: memoryview) -> None:
        self._fail(address, self._each(self.write_frame, address, data), len(data))

    def _each(self, one, address: int, buffer: memoryview) -> int:  # type: ignore[no-untyped-def]
        done, size = 0, min(len(buffer), max(self.limit - address, 0))
        while done < size:
            frame, offset = divmod(address + done, PAGE_SIZE)
            end = min(done + PAGE_SIZE - offset, size)
            one(frame, offset, buffer[done:end])
            done = end
        return done

    @staticmethod
    def _fail(address: int, done: int, size: int) -> None:
        if done < size:
            raise IoError("the hypervisor failed", address=address + done, completed=done)


class WritesFail(Ranges):
    """Of these only the writes fail."""

    def read_range(self, address: int, buffer: memoryview) -> int:
        return self._whole(address, buffer)

    def _whole(self, address: int, buffer: memoryview) -> int:
        self.limit, limit = FRAMES * PAGE_SIZE, self.limit
        try:
            return self._each(self.read_frame, address, buffer)
        finally:
            self.limit = limit


def error_of(machine: Microvmi, address: int, size: int) -> AccessError:
    machine.memory.seek(address)
    with pytest.raises(IoError) as caught:
        machine.memory.write(NEW * size)
    assert machine.memory.tell() == address + caught.value.completed
    return caught.value


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("address", [3 * PAGE_SIZE, 3 * PAGE_SIZE - 7, PAGE_SIZE + 1])
def test_a_frame_that_vanishes_while_it_is_written_is_no_hole(paused: bool, address: int) -> None:
    """A hole would mean that nothing was written."""
    machine = Microvmi.from_driver(Vanishing(memory()))
    if paused:
        machine.pause()
    size = 4 * PAGE_SIZE - address
    before = bytes(machine.read_physical(address, size))
    error = error_of(machine, address, size)
    written = 3 * PAGE_SIZE - address
    assert (error.address, error.requested, error.completed) == (3 * PAGE_SIZE, size, written)
    assert machine.read_physical(address, size) == NEW * written + before[written:]


@pytest.mark.parametrize("address", [8 * PAGE_SIZE, 9 * PAGE_SIZE - 5, 3 * PAGE_SIZE + 1])
def test_what_was_read_to_look_does_not_count_as_written(address: int) -> None:
    driver = Ranges(memory())
    error = error_of(Microvmi.from_driver(driver), address, 10 * PAGE_SIZE - address)
    assert (error.completed, error.requested) == (0, 10 * PAGE_SIZE - address)
    assert error.address == 9 * PAGE_SIZE
    assert Microvmi.from_driver(FakeDriver(memory())).read_physical(0, 8 * PAGE_SIZE) == driver_content(driver)


def driver_content(driver: FakeDriver) -> bytes:
    content = bytearray(8 * PAGE_SIZE)
    for frame in range(8):
        driver.read_frame(frame, 0, memoryview(content)[frame * PAGE_SIZE : (frame + 1) * PAGE_SIZE])
    return bytes(content)


@pytest.mark.parametrize("fails", [False, True])
def test_kept_pages_are_not_read_after_a_write_of_ranges(fails: bool) -> None:
    driver = WritesFail(memory())
    machine = Microvmi.from_driver(driver)
    machine.pause()
    start, end = 6 * PAGE_SIZE + 3, (11 if fails else 9) * PAGE_SIZE
    for address in range(5 * PAGE_SIZE, 12 * PAGE_SIZE, PAGE_SIZE):
        machine.read_physical(address, 8)
    if fails:
        assert error_of(machine, start, end - start).completed == 9 * PAGE_SIZE - start
    else:
        machine.write_physical(start, NEW * (end - start))
    for address in range(7 * PAGE_SIZE, 9 * PAGE_SIZE, PAGE_SIZE):
        assert machine.read_physical(address, 8) == NEW * 8
    assert machine.read_physical(start - 1, 2) == b"\x06" + NEW
    assert machine.read_physical(9 * PAGE_SIZE, 8) == bytes([9]) * 8
    machine.close()


@pytest.mark.parametrize("size", [8, PAGE_SIZE, 2 * PAGE_SIZE])
def test_nothing_is_read_or_written_once_the_machine_is_closed(size: int) -> None:
    machine = Microvmi.from_driver(FakeDriver(memory()))
    buffer = bytearray(NEW * size)
    machine.close()
    calls: Sequence[tuple[object, ...]] = (
        (machine.read_physical, 0, size),
        (machine.read_physical_into, 0, buffer),
        (machine.read_physical_exactly_into, 0, buffer),
        (machine.read_physical_padded_into, 0, buffer),
        (machine.read_physical_batch, [(0, buffer)]),
        (machine.read_physical_batch, []),
        (machine.write_physical, 0, buffer),
        (machine.map_physical, 0, size),
        (machine.get_page_access, 0),
        (machine.listen, 0.0),
        (machine.memory_map,),
        (machine.vcpu_count,),
    )
    for function, *arguments in calls:
        with pytest.raises(InvalidContextError):
            function(*arguments)  # type: ignore[operator]
    for stream in (machine.memory, machine.padded_memory):
        for use in (stream.tell, stream.readall, lambda stream=stream: stream.seek(0)):
            with pytest.raises(ValueError, match="closed"):
                use()
        with pytest.raises(ValueError, match="closed"):
            stream.readinto(buffer)
    with pytest.raises(ValueError, match="closed"):
        machine.memory.write(buffer)
    assert buffer == NEW * size


@pytest.mark.parametrize(("address", "lands"), [(0, True), (1, False), (0x3FFF, False), (0x4000, True)])
def test_writes_right_beside_read_only_memory_land(address: int, lands: bool) -> None:
    """It lies from 0x2000 to 0x4000; each write is of two frames."""
    pieces = {0: bytearray(0x2000), 0x2000: bytearray(0x2000), 0x4000: bytearray(0x2000)}
    machine = Microvmi.from_driver(FakeDriver(pieces, rom=[0x2000]))
    if lands:
        machine.write_physical(address, NEW * 0x2000)
        assert machine.read_physical(address, 0x2000) == NEW * 0x2000
    else:
        with pytest.raises(ReadOnlyError):
            machine.write_physical(address, NEW * 0x2000)
        assert machine.read_physical(0, 0x6000) == bytes(0x6000)


@pytest.mark.parametrize("address", [-1, -PAGE_SIZE, 1 << 64])
def test_a_batch_with_an_address_that_cannot_be_reads_nothing(address: int) -> None:
    buffer = bytearray(NEW * 8)
    with pytest.raises(InvalidArgumentError, match="64 bits"):
        Microvmi.from_driver(FakeDriver(memory())).read_physical_batch([(0, buffer), (address, buffer)])
    assert buffer == NEW * 8


class Recording(FakeDriver):
    """It keeps the numbers of the frames that it was asked for."""

    def __init__(self, pieces: dict[int, bytearray]) -> None:
        super().__init__(pieces)
        self.asked: set[int] = set()

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        self.asked.add(frame)
        super().read_frame(frame, offset, buffer)


@pytest.mark.parametrize("address", [(1 << 52) - PAGE_SIZE - 8, (1 << 52) - 1, 1 << 52, 1 << 63, (1 << 64) - 8])
def test_no_driver_is_asked_for_a_frame_that_no_machine_has(address: int) -> None:
    driver = Recording(memory())
    machine, size = Microvmi.from_driver(driver), 4 * PAGE_SIZE
    buffer = bytearray(NEW * size)
    assert machine.read_physical_into(address, buffer) == 0
    machine.read_physical_padded_into(address, buffer)
    assert buffer == bytes(size)
    with pytest.raises(NotMappedError):
        machine.write_physical(address, NEW * size)
    assert machine.read_physical_batch([(address, buffer)])[0].done == 0
    assert max(driver.asked, default=0) < 1 << 40
