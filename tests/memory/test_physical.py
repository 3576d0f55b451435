# SPDX-License-Identifier: Apache-2.0
"""Memory by address, over frames and over regions alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import InvalidArgumentError, NotMappedError, ReadOnlyError, VmGoneError
from libmicrovmi_py.memory import PhysicalMemory
from libmicrovmi_py.model import PAGE_SIZE, MemoryKind
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.reach import Reach

# Frames 0-1 RAM, 2 a hole, 3 RAM, 4 ROM, 5-7 a hole, 8 RAM.
LAYOUT = {0: 2, 3: 1, 4: 1, 8: 1}
ROM_FRAME = 4
END = 9 * PAGE_SIZE


def content_of(frame: int) -> bytes:
    return bytes((frame * 16 + index) % 251 for index in range(PAGE_SIZE))


def make_memory() -> dict[int, bytearray]:
    return {
        first * PAGE_SIZE: bytearray(b"".join(content_of(first + index) for index in range(count)))
        for first, count in LAYOUT.items()
    }


EXPECTED = b"".join(
    content_of(frame) if frame in (0, 1, 3, 4, 8) else bytes(PAGE_SIZE) for frame in range(END // PAGE_SIZE)
)


@dataclass
class Bytes:
    """A source of regions over a bytearray; to be written only when it was opened for that."""

    content: bytearray
    writable: bool = True
    opened: bool = False

    def reach(self) -> Reach:
        view = memoryview(self.content)
        return Reach(view=view.toreadonly(), writable=view if self.opened else None)

    def open_for_writing(self) -> None:
        if not self.writable:
            raise ReadOnlyError("open read-only")
        self.opened = True


class RegionDriver(Driver):
    """The same machine as :class:`FakeDriver`, as regions."""

    name = "regions"

    def __init__(self, memory: dict[int, bytearray], rom: set[int], writable: bool = True) -> None:
        self._regions = tuple(
            Region(
                start,
                len(data),
                MemoryKind.ROM if start in rom else MemoryKind.RAM,
                Bytes(bytearray(2) + data, writable),
                2,
            )
            for start, data in sorted(memory.items())
        )

    @classmethod
    def open(cls, params: Parameters) -> RegionDriver:
        return cls(make_memory(), {ROM_FRAME * PAGE_SIZE})

    @property
    def max_addr(self) -> int:
        return self._regions[-1].end

    def regions(self) -> Sequence[Region]:
        return self._regions

    def close(self) -> None:
        pass


def make_driver(kind: str) -> Driver:
    if kind == "regions":
        return RegionDriver.open(Parameters())
    return FakeDriver(make_memory(), rom=[ROM_FRAME * PAGE_SIZE])


@pytest.fixture(params=["frames", "regions"])
def memory(request: pytest.FixtureRequest) -> PhysicalMemory:
    return PhysicalMemory(make_driver(request.param))


def read(memory: PhysicalMemory, address: int, size: int) -> bytes:
    buffer = bytearray(b"\xee" * size)
    done = memory.read_into(address, memoryview(buffer))
    assert buffer[done:] == b"\xee" * (size - done), "bytes after the valid prefix were touched"
    return bytes(buffer[:done])


def padded(memory: PhysicalMemory, address: int, size: int) -> bytes:
    buffer = bytearray(b"\xee" * size)
    memory.read_padded_into(address, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize(
    ("address", "size", "expected"),
    [
        (0, 1, 1),
        (0, 2 * PAGE_SIZE, 2 * PAGE_SIZE),
        (5, 3 * PAGE_SIZE, 2 * PAGE_SIZE - 5),
        (PAGE_SIZE - 1, 2, 2),
        (2 * PAGE_SIZE - 1, 2, 1),
        (2 * PAGE_SIZE, 1, 0),
        (3 * PAGE_SIZE, 2 * PAGE_SIZE + 1, 2 * PAGE_SIZE),
        (8 * PAGE_SIZE + 100, PAGE_SIZE, PAGE_SIZE - 100),
        (END - 1, 1, 1),
        (END, 1, 0),
        (END + PAGE_SIZE, 1, 0),
        (1 << 63, 4096, 0),
        ((1 << 64) - 1, 4096, 0),
        (0, 0, 0),
        (END, 0, 0),
    ],
)
def test_a_read_is_the_prefix_up_to_the_first_hole(
    memory: PhysicalMemory, address: int, size: int, expected: int
) -> None:
    assert read(memory, address, size) == EXPECTED[address : address + expected]


def test_every_read_within_the_machine_is_right(memory: PhysicalMemory) -> None:
    edges = [frame * PAGE_SIZE + delta for frame in range(10) for delta in (-1, 0, 1) if frame or delta >= 0]
    holes = {2 * PAGE_SIZE: 3 * PAGE_SIZE, 5 * PAGE_SIZE: 8 * PAGE_SIZE}
    for start in edges:
        for end in (edge for edge in edges if edge > start):
            stop = min([hole for hole, after in holes.items() if start < after and hole < end] + [end, END])
            expected = EXPECTED[start : max(stop, start)]
            assert read(memory, start, end - start) == expected, (start, end)
            assert padded(memory, start, end - start) == EXPECTED[start:end].ljust(end - start, b"\0"), (start, end)


@pytest.mark.parametrize("address", [END, END - 8, 1 << 63, (1 << 64) - 8])
def test_padded_reads_are_zeros_beyond_the_machine(memory: PhysicalMemory, address: int) -> None:
    assert padded(memory, address, 3 << 20) == EXPECTED[address : address + 8].ljust(3 << 20, b"\0")


@pytest.mark.parametrize("address", [-1, 1 << 64])
def test_addresses_have_64_bits(memory: PhysicalMemory, address: int) -> None:
    for access in (memory.read_into, memory.read_padded_into, memory.write_from):
        with pytest.raises(InvalidArgumentError, match="64 bits"):
            access(address, memoryview(bytearray(1)))


def test_reading_exactly_tells_the_prefix_and_the_address(memory: PhysicalMemory) -> None:
    with pytest.raises(NotMappedError, match=r"no memory at physical address 0x2000 \(16 of 32 bytes") as caught:
        memory.read_exactly_into(2 * PAGE_SIZE - 16, memoryview(bytearray(32)))
    assert (caught.value.address, caught.value.requested, caught.value.completed) == (2 * PAGE_SIZE, 32, 16)


def test_a_write_lands_across_frames(memory: PhysicalMemory) -> None:
    memory.write_from(PAGE_SIZE - 2, memoryview(b"abcd"))
    assert read(memory, PAGE_SIZE - 3, 6) == EXPECTED[PAGE_SIZE - 3 : PAGE_SIZE - 2] + b"abcd" + b"\x12"


@pytest.mark.parametrize(
    ("address", "size", "error", "where"),
    [
        (2 * PAGE_SIZE - 4, 8, NotMappedError, 2 * PAGE_SIZE),
        (2 * PAGE_SIZE, 1, NotMappedError, 2 * PAGE_SIZE),
        (END - 4, 8, NotMappedError, END),
        (END, 1, NotMappedError, END),
        ((1 << 64) - 1, 1, NotMappedError, (1 << 64) - 1),
        (4 * PAGE_SIZE, 1, ReadOnlyError, 4 * PAGE_SIZE),
        (4 * PAGE_SIZE - 4, 8, ReadOnlyError, 4 * PAGE_SIZE),
    ],
)
def test_a_write_that_cannot_be_whole_changes_nothing(
    memory: PhysicalMemory, address: int, size: int, error: type[Exception], where: int
) -> None:
    with pytest.raises(error) as caught:
        memory.write_from(address, memoryview(b"\xff" * size))
    assert getattr(caught.value, "address", None) == where
    assert padded(memory, 0, END) == EXPECTED


def test_a_source_that_cannot_be_written_says_so() -> None:
    memory = PhysicalMemory(RegionDriver(make_memory(), set(), writable=False))
    with pytest.raises(ReadOnlyError, match="open read-only"):
        memory.write_from(0, memoryview(b"x"))


class Dying(FakeDriver):
    """Its machine ends when frame 1 is touched."""

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        if frame == 1:
            raise VmGoneError("the machine ended")
        super().read_frame(frame, offset, buffer)


def test_other_errors_tell_how_much_is_valid() -> None:
    memory = PhysicalMemory(Dying(make_memory()))
    buffer = bytearray(2 * PAGE_SIZE)
    for access in (memory.read_into, memory.read_padded_into):
        with pytest.raises(VmGoneError, match="the machine ended") as caught:
            access(16, memoryview(buffer))
        assert caught.value.completed == PAGE_SIZE - 16
        assert caught.value.address == PAGE_SIZE


class ReadOnlyDriver(Driver):
    """Frames without writes."""

    name = "readonly"

    @classmethod
    def open(cls, params: Parameters) -> ReadOnlyDriver:
        return cls()

    @property
    def max_addr(self) -> int:
        return PAGE_SIZE

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        buffer[:] = bytes(len(buffer))

    def close(self) -> None:
        pass


def test_a_driver_without_writes_says_so() -> None:
    with pytest.raises(ReadOnlyError, match="cannot write"):
        PhysicalMemory(ReadOnlyDriver()).write_from(0, memoryview(b"x"))
    PhysicalMemory(ReadOnlyDriver()).write_from(0, memoryview(b""))


class NoMemory(ReadOnlyDriver):
    read_frame = None  # type: ignore[assignment]


def test_a_driver_without_memory_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="neither regions"):
        PhysicalMemory(NoMemory())
