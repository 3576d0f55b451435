# SPDX-License-Identifier: Apache-2.0
"""Memory as a file: cursors, seek rules, reads and writes, and Python's own file machinery on top."""

from __future__ import annotations

import io
import threading

import pytest

from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import InvalidArgumentError, NotMappedError, ReadOnlyError
from libmicrovmi_py.memory import Memory, PaddedMemory
from libmicrovmi_py.model import PAGE_SIZE

HOLE, AFTER, END = 2 * PAGE_SIZE, 3 * PAGE_SIZE, 5 * PAGE_SIZE
FIRST = bytes(index % 253 for index in range(HOLE))
SECOND = bytes(index % 241 for index in range(END - AFTER))
I64_MIN, I64_MAX, U64_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1

Stream = Memory | PaddedMemory


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver({0: bytearray(FIRST), AFTER: bytearray(SECOND)})


@pytest.fixture
def plain(driver: FakeDriver) -> Memory:
    return Memory(driver)


@pytest.fixture(params=[Memory, PaddedMemory])
def stream(driver: FakeDriver, request: pytest.FixtureRequest) -> Stream:
    made = request.param(driver)
    assert isinstance(made, Memory | PaddedMemory)
    return made


def place(stream: Stream, position: int) -> None:
    assert stream.seek(position) == position


@pytest.mark.parametrize("before", [0, 1, 1000, END - 1, END])
@pytest.mark.parametrize("offset", [I64_MIN, -END - 1, -END, -1, 0, 1, 77, END - 1, END, END + 1, I64_MAX, U64_MAX])
@pytest.mark.parametrize("whence", [io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
def test_seek_saturates_from_everywhere(stream: Stream, before: int, offset: int, whence: int) -> None:
    place(stream, before)
    start = {io.SEEK_SET: 0, io.SEEK_CUR: before, io.SEEK_END: END}[whence]
    expected = sorted([0, start + offset, END])[1]
    assert stream.seek(offset, whence) == expected
    assert stream.tell() == expected


@pytest.mark.parametrize("whence", [-1, 5, 6])
def test_another_whence_is_refused_and_moves_nothing(stream: Stream, whence: int) -> None:
    place(stream, 7)
    with pytest.raises(InvalidArgumentError, match=f"whence is {whence}"):
        stream.seek(1, whence)
    assert stream.tell() == 7


def test_the_two_cursors_are_apart(driver: FakeDriver) -> None:
    plain, padded = Memory(driver), PaddedMemory(driver)
    plain.read(10)
    assert (plain.tell(), padded.tell()) == (10, 0)
    padded.seek(AFTER)
    assert (plain.tell(), padded.tell()) == (10, AFTER)


def test_a_plain_read_stops_before_a_hole_and_moves_by_what_it_read(plain: Memory) -> None:
    place(plain, HOLE - 5)
    assert plain.read(100) == FIRST[-5:]
    assert plain.tell() == HOLE


def test_a_plain_read_at_a_hole_is_an_error_and_moves_nothing(plain: Memory) -> None:
    place(plain, HOLE)
    buffer = bytearray(b"\xee" * 8)
    with pytest.raises(NotMappedError, match="0x2000"):
        plain.readinto(buffer)
    assert buffer == b"\xee" * 8
    assert plain.tell() == HOLE


def test_a_padded_read_goes_through_holes(driver: FakeDriver) -> None:
    padded = PaddedMemory(driver)
    place(padded, HOLE - 5)
    assert padded.read(PAGE_SIZE + 10) == FIRST[-5:] + bytes(PAGE_SIZE) + SECOND[:5]
    assert padded.tell() == AFTER + 5


def test_the_end_is_no_error(stream: Stream) -> None:
    place(stream, END - 3)
    assert stream.read(10) == SECOND[-3:]
    assert stream.read(10) == b""
    assert stream.tell() == END


def test_a_read_of_nothing_is_nothing_everywhere(stream: Stream) -> None:
    for position in (0, HOLE, END):
        place(stream, position)
        assert stream.readinto(bytearray()) == 0
        assert stream.tell() == position


def test_readall_of_plain_memory_stops_before_the_hole(plain: Memory) -> None:
    place(plain, 9)
    assert plain.readall() == FIRST[9:]
    with pytest.raises(NotMappedError):
        plain.readall()
    place(plain, AFTER)
    assert plain.read(-1) == SECOND
    assert plain.readall() == b""


def test_readall_of_padded_memory_is_the_whole_machine(driver: FakeDriver) -> None:
    assert PaddedMemory(driver).readall() == FIRST + bytes(PAGE_SIZE) + SECOND


def test_readall_crosses_chunks() -> None:
    content = bytes(range(256)) * (3 << 12)
    assert Memory(FakeDriver({0: bytearray(content)})).readall() == content


def test_buffers_of_other_items_are_filled_by_bytes(plain: Memory) -> None:
    import array

    words = array.array("I", [0] * 4)
    assert plain.readinto(words) == 16
    assert words.tobytes() == FIRST[:16]


def test_a_buffered_reader_works_on_top(driver: FakeDriver) -> None:
    reader = io.BufferedReader(PaddedMemory(driver), 1000)
    whole = FIRST + bytes(PAGE_SIZE) + SECOND
    assert reader.read(3) == whole[:3]
    assert reader.peek(1)[:1] == whole[3:4]
    assert reader.seek(HOLE - 2) == HOLE - 2
    assert reader.read(PAGE_SIZE + 4) == whole[HOLE - 2 : AFTER + 2]
    assert reader.read() == whole[AFTER + 2 :]


def test_a_buffered_random_works_on_top(plain: Memory) -> None:
    with io.BufferedRandom(plain, 512) as both:
        both.seek(100)
        both.write(b"hello")
        both.seek(98)
        assert both.read(9) == FIRST[98:100] + b"hello" + FIRST[105:107]


def test_a_write_lands_and_moves(plain: Memory) -> None:
    place(plain, PAGE_SIZE - 1)
    assert plain.write(b"abc") == 3
    assert plain.tell() == PAGE_SIZE + 2
    place(plain, PAGE_SIZE - 1)
    assert plain.read(3) == b"abc"


@pytest.mark.parametrize("position", [HOLE - 1, HOLE, END - 1, END])
def test_a_write_that_does_not_fit_writes_nothing(plain: Memory, driver: FakeDriver, position: int) -> None:
    place(plain, position)
    with pytest.raises(NotMappedError):
        plain.write(b"ab")
    assert plain.tell() == position
    assert PaddedMemory(driver).readall() == FIRST + bytes(PAGE_SIZE) + SECOND


def test_padded_memory_cannot_be_written(driver: FakeDriver) -> None:
    padded = PaddedMemory(driver)
    assert not padded.writable()
    with pytest.raises(io.UnsupportedOperation):
        padded.write(b"x")


def test_rom_cannot_be_written() -> None:
    memory = Memory(FakeDriver({0: bytearray(PAGE_SIZE), PAGE_SIZE: bytearray(PAGE_SIZE)}, rom=[0]))
    with pytest.raises(ReadOnlyError):
        memory.write(b"x")


def test_a_closed_stream_says_so_and_leaves_the_driver_open(driver: FakeDriver, stream: Stream) -> None:
    stream.close()
    for use in (stream.tell, stream.readall, lambda: stream.seek(0), lambda: stream.readinto(bytearray(1))):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert Memory(driver).read(2) == FIRST[:2]


def test_threads_on_one_stream_share_out_the_bytes() -> None:
    content = bytes(index // PAGE_SIZE for index in range(200 * PAGE_SIZE))
    memory = Memory(FakeDriver({0: bytearray(content)}))
    pieces: list[bytes] = []

    def take() -> None:
        while piece := memory.read(PAGE_SIZE):
            pieces.append(piece)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pieces) == [bytes([frame]) * PAGE_SIZE for frame in range(200)]
