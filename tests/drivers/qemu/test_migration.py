# SPDX-License-Identifier: Apache-2.0
"""QEMU's migration stream: its pages come where they belong, and whatever else it says is told and harms nothing."""

from __future__ import annotations

import os

import pytest
from drivers.qemu.migration_reader import content, new_copy, read
from drivers.qemu.migration_stream import PAGE, REST, head, over, page, part

from libmicrovmi_py.drivers.qemu.blocks import places
from libmicrovmi_py.drivers.qemu.flatview import Extent
from libmicrovmi_py.drivers.qemu.migration import MAGIC, Mended, Part, Stream, StreamError, apart
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import MemoryKind, MemoryRange
from libmicrovmi_py.transport.copy import Copy
from libmicrovmi_py.transport.deadline import Deadline

BLOCKS = {"pc.ram": 4 * PAGE, "0000:00:02.0/vga.vram": 2 * PAGE}
PARTS = [Part("pc.ram", 0, 2 * PAGE, PAGE), Part("pc.ram", 3 * PAGE, PAGE, 0)]
A, B, C = b"a" * PAGE, b"b" * PAGE, b"c" * PAGE
SIZE = 4 * PAGE

WHOLE = (
    head(BLOCKS)
    + over()
    + part()
    + page(3 * PAGE, C, "pc.ram")
    + page(0, A)
    + page(0, B, "0000:00:02.0/vga.vram")
    + over()
    + part()
    + page(2 * PAGE, None, "pc.ram")
    + page(PAGE, None)
    + over()
    + REST
)


def test_pages_come_where_they_belong_and_the_rest_is_kept() -> None:
    copy = new_copy(SIZE)
    rest, progress = read(WHOLE, PARTS, copy)
    assert content(copy, SIZE) == C + A + bytes(2 * PAGE)
    assert rest == MAGIC + REST
    assert progress.copied == 3 * PAGE
    assert copy.data_bytes == 2 * PAGE, "zeros take no memory"


def test_sections_may_have_no_footers() -> None:
    copy = new_copy(SIZE)
    data = head({"ram": PAGE}) + over(footer=False) + part() + page(0, A, "ram") + over(footer=False) + REST
    read(data, [Part("ram", 0, PAGE, 0)], copy)
    assert content(copy, PAGE) == A


def test_what_was_read_takes_no_memory_in_the_stream() -> None:
    stream, count = Stream(), 4096
    copy = new_copy(count * PAGE)
    data = head({"ram": count * PAGE}) + over() + part() + page(0, A, "ram")
    os.write(stream.entrance.number, data + b"".join(page(at * PAGE, B) for at in range(1, count)) + over() + REST)
    pages = stream.pages(stream.head(1, lambda: None), [Part("ram", 0, count * PAGE, 0)], copy)
    pages.end()
    assert pages.wait(10).over
    taken = next(
        os.stat(f"/proc/self/fd/{number}").st_blocks * 512
        for number in os.listdir("/proc/self/fd")
        if "microvmi-migration" in os.readlink(f"/proc/self/fd/{number}")
    )
    assert taken <= 5 << 20


ALL = page(0, A, "pc.ram") + page(PAGE, None) + page(3 * PAGE, C)


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        (ALL + page(0, B), "twice"),
        (page(0, A, "pc.ram") + page(PAGE, None), "all pages"),
        (page(0, A), "did not announce"),
        (page(0, A, "pc.rom"), "did not announce"),
        (page(4 * PAGE, A, "pc.ram"), "outside"),
        (page(1 << 63, A, "pc.ram"), "outside"),
        (b"\0\0\0\0\0\0\0\x40", "did not announce"),
        (page(0, None, "pc.ram")[:7] + b"\x42" + page(0, None, "pc.ram")[8:], "form"),
        (page(0, None, "pc.ram")[:-1] + b"\1", "form"),
    ],
    ids=["twice", "missing", "nameless", "unknown", "behind", "far", "flags", "other", "filled"],
)
def test_wrong_pages_are_told(pages: bytes, reason: str) -> None:
    with pytest.raises(StreamError, match=reason):
        read(head(BLOCKS) + over() + part() + pages + over() + REST, PARTS, new_copy(SIZE))


def test_a_stream_that_ends_anywhere_is_told() -> None:
    for end in range(len(WHOLE) - len(REST) + 1):
        if end < 300 or end % 501 == 0:
            with pytest.raises(StreamError, match=r"ends in the middle|did not begin"):
                read(WHOLE[:end], PARTS, new_copy(SIZE))


@pytest.mark.parametrize("kind", [b"\x01\0\0\0\x09\x05block", b"\x02\0\0\0\x09", b"\x06", b"\x08", b"\xff"])
def test_sections_that_are_not_known_are_told(kind: bytes) -> None:
    with pytest.raises(StreamError, match="section that is not known"):
        read(head(BLOCKS) + over() + part() + ALL + over() + kind + bytes(100), PARTS, new_copy(SIZE))


def test_a_rest_that_is_too_long_is_told() -> None:
    with pytest.raises(StreamError, match="longer than can be"):
        read(head(BLOCKS) + over() + part() + ALL + over() + REST + bytes(65 << 20), PARTS, new_copy(SIZE))


def test_a_copy_that_may_not_hold_so_much_says_so() -> None:
    with pytest.raises(IoError, match="max_bytes"):
        read(WHOLE, PARTS, new_copy(SIZE, PAGE))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no stream at all", "no migration stream"),
        (head(BLOCKS, version=5), "not RAM's"),
        (head(BLOCKS).replace(b"\x03ram", b"\x03rom"), "not RAM's"),
        (head(BLOCKS)[:40], "did not begin"),
        (head(BLOCKS, b"\x05\x07unknown\0\0\0\1"), "configuration that is not known"),
        (head(BLOCKS, b"\x05\x1econfiguration/target-page-bits\0\0\0\1\0\0\0\x0e"), "not of 4096 bytes"),
        (head(BLOCKS, b"\x05\x1aconfiguration/capabilities\0\0\0\1\xff\0\0\0"), "cannot be"),
        (head({"ram": PAGE})[:-8] + (2 * PAGE).to_bytes(8, "big"), "cannot be"),
        (head({"ram": PAGE})[:-8] + (PAGE // 2).to_bytes(8, "big"), "cannot be"),
    ],
)
def test_wrong_beginnings_are_told(data: bytes, reason: str) -> None:
    with pytest.raises(StreamError, match=reason):
        read(data, PARTS, new_copy(SIZE))


def test_known_configurations_are_passed_over() -> None:
    bits = b"\x05\x1econfiguration/target-page-bits\0\0\0\1\0\0\0\x0c"
    capabilities = b"\x05\x1aconfiguration/capabilities\0\0\0\1\0\0\0\2\x06events\x03abc"
    data = head({"ram": PAGE}, bits + capabilities) + over() + part() + page(0, A, "ram") + over() + REST
    read(data, [Part("ram", 0, PAGE, 0)], new_copy(SIZE))


def test_a_beginning_that_does_not_come_is_not_awaited_for_ever() -> None:
    looks: list[int] = []
    with pytest.raises(StreamError, match="did not begin"):
        Stream().head(0.05, lambda: looks.append(1))
    assert looks


def test_a_stream_that_is_given_up_takes_no_memory() -> None:
    stream = Stream()
    os.write(stream.entrance.number, bytes(1 << 20))
    stream.discard()
    assert os.fstat(stream.entrance.number).st_blocks == 0
    assert not Deadline(1).expired


# ------------------------------------------------------------------------------------------------ where blocks are

VIDEO = MemoryRange(0x40000, 2 * PAGE, MemoryKind.DEVICE)
LOW = MemoryRange(0, 2 * PAGE, MemoryKind.RAM)
RAM = Extent(0, 2 * PAGE, MemoryKind.RAM, "pc.ram", PAGE, 0)


def test_blocks_are_found_by_their_names_behind_those_of_their_devices() -> None:
    copy = Copy([LOW, VIDEO])
    video = Extent(VIDEO.start, VIDEO.size, MemoryKind.DEVICE, "vga.vram", 0, 0)
    parts, ranges = places(BLOCKS, [RAM, video], copy)
    assert ranges == [LOW, VIDEO]
    assert parts == [
        Part("pc.ram", PAGE, 2 * PAGE, copy.offset_of(0)),
        Part("0000:00:02.0/vga.vram", 0, 2 * PAGE, copy.offset_of(VIDEO.start)),
    ]


def test_memory_of_devices_that_is_not_certain_is_left_out() -> None:
    video = Extent(VIDEO.start, VIDEO.size, MemoryKind.DEVICE, "vga.vram", 0, 0)
    two = {**BLOCKS, "0000:00:03.0/vga.vram": 2 * PAGE}
    for blocks in (two, {"pc.ram": 4 * PAGE}, {**BLOCKS, "0000:00:02.0/vga.vram": PAGE}):
        _, ranges = places(blocks, [RAM, video], Copy([LOW, VIDEO]))
        assert ranges == [LOW]


def test_ram_that_is_not_certain_is_no_snapshot() -> None:
    for blocks in ({}, {"pc.ram": 2 * PAGE}, {"pc.ram": 4 * PAGE, "x/pc.ram": 4 * PAGE}):
        with pytest.raises(StreamError, match="not certain"):
            places(blocks, [RAM], Copy([LOW]))


def test_memory_that_is_shown_twice_is_read_once_and_copied() -> None:
    whole, again = Part("pc.bios", 0, 4 * PAGE, 0), Part("pc.bios", 2 * PAGE, 2 * PAGE, 8 * PAGE)
    alone, mended = apart([again, whole])
    assert alone == [Part("pc.bios", 0, 2 * PAGE, 0), Part("pc.bios", 2 * PAGE, 2 * PAGE, 8 * PAGE)]
    assert mended == [Mended(2 * PAGE, 8 * PAGE, 2 * PAGE)]
