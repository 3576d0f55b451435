# SPDX-License-Identifier: Apache-2.0
"""The ring of events, in plain memory: the test plays Xen's end of it."""

from __future__ import annotations

import struct

import pytest

from libmicrovmi_py.drivers.xen.ring import BackRing
from libmicrovmi_py.errors import IoError

SIZE = 400
PLACES = 8


class Front:
    """Xen's end: puts requests, takes responses."""

    def __init__(self) -> None:
        self.page = bytearray(b"\xa5" * 4096)
        self.ring = BackRing(memoryview(self.page), SIZE)
        self.ring.initialise()
        self.made = self.taken = 0

    def counters(self) -> tuple[int, ...]:
        return struct.unpack_from("<4I", self.page)

    def start_at(self, counter: int) -> None:
        """Let as many entries have come and gone."""
        self.made = self.taken = counter
        struct.pack_into("<4I", self.page, 0, counter, counter + 1, counter, counter + 1)
        vars(self.ring)["_taken"] = vars(self.ring)["_answered"] = counter

    def ask(self, content: bytes) -> None:
        start = 64 + self.made % PLACES * SIZE
        self.page[start : start + SIZE] = content
        self.made = (self.made + 1) % (1 << 32)
        struct.pack_into("<I", self.page, 0, self.made)

    def answers(self) -> list[bytes]:
        found = []
        while self.taken != self.counters()[2]:
            start = 64 + self.taken % PLACES * SIZE
            found.append(bytes(self.page[start : start + SIZE]))
            self.taken = (self.taken + 1) % (1 << 32)
        return found


@pytest.fixture
def front() -> Front:
    return Front()


def entry(number: int) -> bytes:
    return number.to_bytes(4, "little") * (SIZE // 4)


def test_a_new_ring_is_empty_and_asks_to_be_woken_by_the_first_entry(front: Front) -> None:
    assert front.counters() == (0, 1, 0, 1)
    assert bytes(front.page[16:64]) == bytes(48)
    assert front.ring.take() is None


def test_requests_come_in_order_and_once(front: Front) -> None:
    for number in range(PLACES):
        front.ask(entry(number))
    assert [front.ring.take() for _ in range(PLACES + 1)] == [*map(entry, range(PLACES)), None]
    assert front.counters()[1] == PLACES + 1


def test_responses_may_come_in_another_order_than_requests(front: Front) -> None:
    front.ask(entry(1))
    front.ask(entry(2))
    first, second = front.ring.take(), front.ring.take()
    assert first is not None
    assert second is not None
    front.ring.put(second)
    front.ring.put(first)
    assert front.answers() == [entry(2), entry(1)]


def test_the_ring_goes_round_and_its_counters_wrap(front: Front) -> None:
    front.start_at((1 << 32) - 5)
    for number in range(3 * PLACES):
        front.ask(entry(number))
        request = front.ring.take()
        assert request == entry(number)
        front.ring.put(request)
        assert front.answers() == [entry(number)]


def test_what_has_no_response_is_counted_taken_or_not(front: Front) -> None:
    front.start_at((1 << 32) - 2)
    front.ask(entry(1))
    front.ask(entry(2))
    request = front.ring.take()
    assert front.ring.unanswered == 2
    front.ring.put(request or b"")
    assert front.ring.unanswered == 1


def test_more_requests_than_places_is_a_broken_ring(front: Front) -> None:
    struct.pack_into("<I", front.page, 0, PLACES + 1)
    with pytest.raises(IoError, match="broken"):
        front.ring.take()
