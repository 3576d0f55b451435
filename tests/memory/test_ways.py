# SPDX-License-Identifier: Apache-2.0
"""Every way to read gives the same bytes, the same error and the same cursor as reading into a buffer."""

from __future__ import annotations

import array
import io
import mmap
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import AccessError, InvalidArgumentError, NotMappedError
from libmicrovmi_py.memory import Memory, PaddedMemory
from libmicrovmi_py.model import PAGE_SIZE, MemoryKind
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.reach import Reach

TOP = (1 << 64) - 1
HOLE, AFTER, END = 3 * PAGE_SIZE + 100, 8 * PAGE_SIZE, 40 * PAGE_SIZE

Outcome = bytes | tuple[object, ...]


class Bytes:
    """A source over bytes."""

    def __init__(self, content: bytes) -> None:
        self._view = memoryview(bytearray(content))

    def reach(self) -> Reach:
        return Reach(view=self._view, writable=self._view)

    def open_for_writing(self) -> None:
        pass


class Ranges(Driver):
    """A machine of two regions with a hole between, or of what it is handed."""

    name = "ranges"

    def __init__(self, *ranges: tuple[int, int], maximum: int = END) -> None:
        chance = random.Random(1)
        self._maximum = maximum
        self._regions = tuple(
            Region(start, size, MemoryKind.RAM, Bytes(chance.randbytes(size)), 0) for start, size in ranges
        )

    @classmethod
    def open(cls, params: Parameters) -> Driver:
        raise NotImplementedError

    @property
    def max_addr(self) -> int:
        return self._maximum

    def regions(self) -> Sequence[Region]:
        return self._regions

    def close(self) -> None:
        pass


def regions() -> Driver:
    return Ranges((0, HOLE), (AFTER, END - AFTER))


def frames() -> Driver:
    chance = random.Random(1)
    first, second = chance.randbytes(3 * PAGE_SIZE), chance.randbytes(END - AFTER)
    return FakeDriver({0: bytearray(first), AFTER: bytearray(second)})


@pytest.fixture(params=[regions, frames])
def driver(request: pytest.FixtureRequest) -> Driver:
    made: Driver = request.param()
    return made


def outcome(read: Callable[[], bytes]) -> Outcome:
    try:
        return bytes(read())
    except AccessError as err:
        return type(err), str(err), err.address, err.requested, err.completed


def somewhere(chance: random.Random) -> tuple[int, int]:
    """Around the edges of memory and of pieces, sizes of words, pages and more."""
    edge = chance.choice((0, PAGE_SIZE, 3 * PAGE_SIZE, HOLE, AFTER, END, chance.randrange(END)))
    size = chance.choice((0, 1, 8, 4096, 5000, 100_000, 1 << 20))
    return max(edge + chance.randint(-20, 20), 0), size


@pytest.mark.parametrize("kind", [Memory, PaddedMemory])
def test_read_of_a_stream_is_readinto(driver: Driver, kind: type[Memory] | type[PaddedMemory]) -> None:
    chance, stream, other = random.Random(2), kind(driver), kind(driver)

    def by_buffer(size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: other.readinto(buffer)])

    for _ in range(300):
        address, size = somewhere(chance)
        assert stream.seek(address) == other.seek(address) == min(address, END)
        for _ in range(3):
            found = outcome(lambda size=size: stream.read(size))  # type: ignore[misc]
            assert found == outcome(lambda size=size: by_buffer(size)), (address, size)  # type: ignore[misc]
            assert stream.tell() == other.tell(), (address, size)


def test_read_by_address_is_reading_into_a_buffer(driver: Driver) -> None:
    chance, machine = random.Random(3), Microvmi.from_driver(driver)

    def by_buffer(address: int, size: int) -> bytes:
        buffer = bytearray(size)
        machine.read_physical_exactly_into(address, buffer)
        return bytes(buffer)

    for address, size in [*(somewhere(chance) for _ in range(500)), (TOP, 0), (TOP, 1), (TOP - 3, 100)]:
        found = outcome(lambda: machine.read_physical(address, size))  # noqa: B023
        assert found == outcome(lambda: by_buffer(address, size)), (address, size)  # noqa: B023


def test_results_of_a_batch_are_those_of_single_reads(driver: Driver) -> None:
    chance, machine = random.Random(4), Microvmi.from_driver(driver)
    wanted = [(address, bytearray(b"\xee" * size)) for address, size in (somewhere(chance) for _ in range(200))]
    for (address, buffer), (done, error) in zip(wanted, machine.read_physical_batch(wanted), strict=True):
        alone = bytearray(b"\xee" * len(buffer))
        assert done == machine.read_physical_into(address, alone)
        assert buffer == alone
        told = None if error is None else outcome(lambda error=error: _raise(error))  # type: ignore[misc]
        assert told == (None if done == len(buffer) else outcome(lambda: machine.read_physical(address, len(buffer))))  # noqa: B023


def _raise(error: AccessError) -> bytes:
    raise error


@pytest.mark.parametrize("whence", [io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
@pytest.mark.parametrize("maximum", [END, 1 << 63, TOP])
@pytest.mark.parametrize("before", [0, 7, END])
def test_a_seek_saturates_whatever_it_is_handed(whence: int, maximum: int, before: int) -> None:
    stream = Memory(Ranges((0, HOLE), maximum=maximum))
    for size in (0, 1, HOLE, END, 1 << 62, (1 << 63) - 1, 1 << 63, TOP, 1 << 64, 1 << 70):
        for offset in (size, -size):
            stream.seek(before)
            start = {io.SEEK_SET: 0, io.SEEK_CUR: before, io.SEEK_END: maximum}[whence]
            assert stream.seek(offset, whence) == stream.tell() == sorted([0, start + offset, maximum])[1]


@pytest.mark.parametrize("whence", [-1, 5, 1 << 40])
def test_another_whence_moves_nothing(driver: Driver, whence: int) -> None:
    stream = Memory(driver)
    stream.seek(7)
    with pytest.raises(InvalidArgumentError, match=f"whence is {whence}"):
        stream.seek(1, whence)
    assert stream.tell() == 7


def test_a_read_of_no_size_reads_all(driver: Driver) -> None:
    for arguments in ((), (None,), (-1,), (-5,)):
        padded, plain = PaddedMemory(driver), Memory(driver)
        padded.seek(AFTER)
        plain.seek(AFTER)
        assert padded.read(*arguments) == plain.read(*arguments) == plain.readall() + padded.readall() + _tail(driver)
        assert plain.tell() == padded.tell() == END


def _tail(driver: Driver) -> bytes:
    return Microvmi.from_driver(driver).read_physical(AFTER, END - AFTER)


@pytest.mark.parametrize(
    ("size", "error"),
    [(1.0, TypeError), ("8", TypeError), (1 << 62, MemoryError), (1 << 70, OverflowError)],
    ids=["float", "text", "huge", "wide"],
)
def test_a_size_that_cannot_be_is_an_error_and_moves_nothing(driver: Driver, size: int, error: type[Exception]) -> None:
    machine = Microvmi.from_driver(driver)
    for stream in (machine.memory, machine.padded_memory):
        stream.seek(5)
        with pytest.raises(error):
            stream.read(size)
        assert stream.tell() == 5
    with pytest.raises(error):
        machine.read_physical(0, size)


def test_a_negative_size_by_address_is_an_error(driver: Driver) -> None:
    with pytest.raises(ValueError, match="-1"):
        Microvmi.from_driver(driver).read_physical(0, -1)


class Number:
    """An integer of somebody else's."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value

    def __lt__(self, other: int) -> bool:
        return self._value < other


def test_integers_of_others_are_sizes(driver: Driver) -> None:
    stream = Memory(driver)
    assert stream.read(Number(8)) == Memory(driver).read(8)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ requests -------


def test_a_batch_fills_whatever_has_room(driver: Driver) -> None:
    machine, words, area = Microvmi.from_driver(driver), array.array("I", [0] * 4), mmap.mmap(-1, PAGE_SIZE)
    part = memoryview(bytearray(100))[10:26]
    requests = ((address, buffer) for address, buffer in ((5, words), (6, area), (7, part), (True, bytearray(2))))
    assert [result.done for result in machine.read_physical_batch(requests)] == [16, PAGE_SIZE, 16, 2]  # type: ignore[arg-type]
    assert words.tobytes() == machine.read_physical(5, 16)
    assert area[:] == machine.read_physical(6, PAGE_SIZE)
    assert part == machine.read_physical(7, 16)
    assert machine.read_physical_batch([]) == []


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ((0, b"12345678"), (TypeError, BufferError)),
        ((0, memoryview(bytearray(16))[::2]), TypeError),
        ((0, "text"), TypeError),
        ((0, None), TypeError),
        ((0,), ValueError),
        ((0, bytearray(8), 1), ValueError),
        (7, TypeError),
        ((-1, bytearray(8)), InvalidArgumentError),
        ((1 << 64, bytearray(8)), InvalidArgumentError),
    ],
    ids=["read-only", "apart", "text", "none", "one", "three", "number", "below", "above"],
)
def test_a_batch_with_a_request_that_cannot_be_reads_nothing(
    request_: tuple[int, bytearray], error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    machine, buffer = Microvmi.from_driver(regions()), bytearray(b"\xee" * 8)
    with pytest.raises(error):
        machine.read_physical_batch([(0, buffer), request_, (8, buffer)])
    assert buffer == b"\xee" * 8
    buffer.append(0)  # nobody holds it any more


def test_buffers_are_let_go_of_after_a_batch(driver: Driver) -> None:
    buffers = [bytearray(8) for _ in range(3)]
    Microvmi.from_driver(driver).read_physical_batch([(HOLE, buffers[0]), (0, buffers[1]), (END, buffers[2])])
    for buffer in buffers:
        buffer.append(0)


# ------------------------------------------------------------------------------------------------ life ------------


@pytest.mark.parametrize("kind", [Memory, PaddedMemory])
def test_a_closed_stream_is_not_read_or_moved(driver: Driver, kind: type[Memory] | type[PaddedMemory]) -> None:
    stream = kind(driver)
    stream.read(8)
    stream.close()
    for use in (lambda: stream.read(8), stream.read, stream.readall, lambda: stream.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_class_of_somebody_else_may_read_in_its_own_way() -> None:
    class Loud(Memory):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size).upper()

    stream = Loud(FakeDriver({0: bytearray(b"quiet".ljust(PAGE_SIZE))}))
    assert stream.read(5) == b"QUIET"


class Changing(Ranges):
    """A machine whose regions are others at every look."""

    def regions(self) -> Sequence[Region]:
        return tuple(self._regions)[:1] + self._regions[1:]


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Microvmi]:
    path = tmp_path / "image"
    path.write_bytes(b"".join(bytes([number % 251]) * PAGE_SIZE for number in range(400)))
    with Microvmi.open(str(path)) as machine:
        yield machine


def test_threads_on_one_stream_share_out_the_bytes(image: Microvmi) -> None:
    pieces: list[bytes] = []

    def take() -> None:
        while piece := image.memory.read(PAGE_SIZE):
            pieces.append(piece)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pieces) == sorted(bytes([number % 251]) * PAGE_SIZE for number in range(400))


def test_tables_that_are_replaced_under_a_read_stay_until_its_end() -> None:
    """Each call makes a table of its own, which the one of another thread must not take away."""
    machine = Microvmi.from_driver(Changing((0, HOLE), (AFTER, END - AFTER)))
    wrong: list[bytes | bytearray] = []
    expected = machine.read_physical(AFTER, END - AFTER)

    def read() -> None:
        memory = Memory(machine.driver, machine.physical)
        for _ in range(200):
            memory.seek(AFTER)
            buffer = bytearray(64)
            machine.read_physical_batch([(AFTER, buffer)])
            found = memory.read(END), machine.read_physical(AFTER, END - AFTER), buffer
            wrong.extend(item for item in found if item != expected[: len(item)])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_hole_at_the_cursor_is_an_error_of_read_as_well(driver: Driver) -> None:
    memory = Memory(driver)
    memory.seek(4 * PAGE_SIZE)
    with pytest.raises(NotMappedError) as caught:
        memory.read(8)
    assert (caught.value.address, caught.value.requested, caught.value.completed) == (4 * PAGE_SIZE, 8, 0)
    assert memory.tell() == 4 * PAGE_SIZE
