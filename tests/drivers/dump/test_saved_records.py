# SPDX-License-Identifier: Apache-2.0
"""The records of a saved machine that are read in C: what is taken over, and where that ends."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from drivers.dump.builders import PAGE

from libmicrovmi_py.transport.native import native

FULL, BYTE, SAME = 0x8, 0x2, 0x20
PAGES = 8


class Walked(NamedTuple):
    """Where the next record is, the entries, and how many records there were."""

    position: int
    entries: Sequence[int]
    records: int


def walked(data: bytes, begin: int = 0, end: int | None = None, **given: Any) -> Walked:
    """Walk over a buffer, of a file that ends with it if nothing else is said."""
    ffi, lib = native()
    entries = ffi.new("uint64_t[]", PAGES)
    walk = ffi.new("struct mvi_saved_walk *", {"entries": entries, "room": PAGES, "size": PAGES * PAGE})
    walk.position, walk.end = begin, begin + len(data) if end is None else end
    for name, value in given.items():
        setattr(walk, name, value)
    room = ffi.new("uint8_t[]", data)  # of that size, so that a checker of memory sees what is read beyond it
    lib.mvi_saved_walk(walk, room, begin, len(data))
    return Walked(walk.position, list(entries), walk.records)


def head(number: int, flags: int) -> bytes:
    return struct.pack(">Q", number * PAGE | flags)


def byte(number: int, value: int) -> bytes:
    return head(number, BYTE | SAME) + bytes([value])


def full(number: int) -> bytes:
    return head(number, FULL | SAME) + bytes(PAGE)


def test_pages_as_they_are_and_of_one_byte_are_taken_over() -> None:
    data = byte(0, 0) + full(1) + byte(3, 0xAB)
    assert walked(data, 100) == (100 + len(data), [2, (100 + 9 + 8) << 3 | 1, 0, 0xAB << 3 | 2, 0, 0, 0, 0], 3)


@pytest.mark.parametrize("flags", [FULL, BYTE, 0x10, 0x40 | SAME, 0x100 | SAME, 0x4, FULL | BYTE | SAME, 0, 0xFFF])
def test_it_ends_before_any_other_record(flags: int) -> None:
    data = byte(0, 1) + head(1, flags) + bytes(PAGE)
    assert walked(data)[::2] == (9, 1)


@pytest.mark.parametrize("number", [PAGES, PAGES + 1, 1 << 51])
def test_it_ends_before_a_page_without_an_entry_or_outside_of_the_block(number: int) -> None:
    assert walked(byte(0, 1) + byte(number, 2))[::2] == (9, 1)
    assert walked(byte(0, 1) + byte(3, 2), size=3 * PAGE)[::2] == (9, 1)
    assert walked(byte(0, 1) + byte(3, 2), room=3)[::2] == (9, 1)
    assert walked(byte(0, 1) + byte(3, 2), first=PAGES - 3)[::2] == (9, 1)
    assert walked(byte(0, 1), size=0)[::2] == (0, 0)


def test_it_ends_where_the_buffer_or_the_file_does() -> None:
    data = byte(0, 1) + byte(1, 2)
    for size in range(9, 18):
        assert walked(data[:size], end=1 << 20)[::2] == (9, 1)
    page = byte(0, 1) + full(1)
    assert walked(page[:17], end=len(page))[::2] == (len(page), 2), "its bytes need not be looked at"
    assert walked(page[:17], end=len(page) - 1)[::2] == (9, 1)
    assert walked(page, 50, position=49)[::2] == (49, 0)
    assert walked(page, 50, position=50 + len(page))[::2] == (50 + len(page), 0)


def test_the_page_of_a_record_that_was_read_already_comes_first() -> None:
    word = 2 * PAGE | BYTE | SAME
    assert walked(b"\x07" + byte(3, 1), word=word) == (10, [0, 0, 7 << 3 | 2, 1 << 3 | 2, 0, 0, 0, 0], 2)
    assert walked(b"", word=word)[::2] == (0, 0)
    assert walked(b"\x07", word=9 * PAGE | BYTE | SAME)[::2] == (0, 0)


def test_changed_records_never_make_it_read_or_write_elsewhere() -> None:
    """What reads or writes beyond the buffers is seen by AddressSanitizer (make sanitize-memory)."""
    for number in range(2000):
        source = random.Random(f"records {number}")
        data = bytearray(b"".join(byte(at, at) for at in range(8)))
        for _ in range(source.randrange(4)):
            data[source.randrange(len(data))] = source.getrandbits(8)
        found = walked(bytes(data), begin=source.choice([0, 1 << 40, (1 << 64) - 200]))
        assert found.records <= 8
        assert len([entry for entry in found.entries if entry]) <= found.records


def test_what_is_there_and_what_is_not_is_found() -> None:
    ffi, lib = native()
    entries = ffi.new("uint64_t[]", [0, 0, 5, 1, 0])
    following = [[lib.mvi_saved_next(entries, first, 5, there) for first in range(6)] for there in (False, True)]
    assert following == [[0, 1, 4, 4, 4, 5], [2, 2, 2, 3, 5, 5]]
    assert lib.mvi_saved_next(entries, 7, 5, True) == 7
