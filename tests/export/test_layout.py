# SPDX-License-Identifier: Apache-2.0
"""A file that is made while it is read: the same bytes by any way, at any offset, with its holes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import InvalidArgumentError, InvalidContextError, IoError
from libmicrovmi_py.export import Extent, Layout, Segment, raw

PAGE = 4096
MIB = 1 << 20


def numbered(start: int, size: int) -> bytearray:
    """Pages that hold their address."""
    return bytearray(b"".join(at.to_bytes(8, "little") * (PAGE // 8) for at in range(start, start + size, PAGE)))


@pytest.fixture
def machine() -> Iterator[Microvmi]:
    with Microvmi.from_driver(FakeDriver({start: numbered(start, 4 * PAGE) for start in (PAGE, 8 * PAGE)})) as vm:
        yield vm


@pytest.fixture
def layout(machine: Microvmi) -> Layout:
    """Text, a gap, memory of which some does not exist, text right behind it, a gap."""
    segments = [Segment(0, 5, b"begin"), Segment(100, 6 * PAGE, None, 2 * PAGE), Segment(100 + 6 * PAGE, 3, b"end")]
    return Layout(machine, segments, 7 * PAGE)


EXPECTED = b"begin" + bytes(95) + numbered(2 * PAGE, 3 * PAGE) + bytes(3 * PAGE) + b"end" + bytes(PAGE - 103)


def read(layout: Layout, offset: int, size: int) -> bytes:
    buffer = bytearray(b"\xaa" * size)
    done = layout.read_into(offset, buffer)
    assert buffer[done:] == b"\xaa" * (size - done)
    return bytes(buffer[:done])


def test_all_of_it_is_read(layout: Layout) -> None:
    assert len(EXPECTED) == layout.size
    assert read(layout, 0, layout.size) == EXPECTED


def test_any_part_is_what_the_whole_has_there(layout: Layout) -> None:
    edges = sorted({0, 5, 100, 100 + 3 * PAGE, 100 + 6 * PAGE, 103 + 6 * PAGE, 7 * PAGE})
    near = [edge + off for edge in edges for off in (-1, 0, 1) if edge + off >= 0]
    for start, end in itertools.product(near, near):
        size = max(end - start, 0)
        assert read(layout, start, size) == EXPECTED[start : start + size], (start, end)


def test_nothing_is_behind_the_end(layout: Layout) -> None:
    assert read(layout, layout.size - 2, 10) == bytes(2)
    assert read(layout, layout.size, 10) == b""
    assert read(layout, 1 << 60, 10) == b""
    assert list(layout.extents(layout.size)) == []


@pytest.mark.parametrize("offset", [-1, 1 << 64])
def test_an_offset_that_no_file_has_is_refused(layout: Layout, offset: int) -> None:
    with pytest.raises(InvalidArgumentError, match="not within 64 bits"):
        layout.read_into(offset, bytearray(1))


def test_extents_follow_each_other_and_what_is_no_hole_is_all_that_counts(layout: Layout) -> None:
    found = list(layout.extents())
    assert found[0] == Extent(0, 5, False)
    assert found[1] == Extent(5, 95, True)
    assert [item.offset for item in found[1:]] == [item.end for item in found[:-1]]
    assert found[-1].end == layout.size
    assert all(one.hole != other.hole for one, other in itertools.pairwise(found))
    assert all(EXPECTED[item.offset : item.end].strip(b"\0") == b"" for item in found if item.hole)


def test_extents_of_a_part_end_with_it(layout: Layout) -> None:
    draw = random.Random(1)
    whole = [item.hole for item in layout.extents() for _ in range(item.size)]
    for _ in range(100):
        start, end = sorted(draw.sample(range(layout.size + 1), 2))
        found = list(layout.extents(start, end - start))
        assert (found[0].offset, found[-1].end) == (start, end)
        assert [item.hole for item in found for _ in range(item.size)] == whole[start:end]


def test_what_a_sparse_file_does_not_have_is_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        file.seek(3 * MIB)
        file.write(b"x" * MIB)
    with Microvmi.open(str(path)) as vm:
        found = [item for item in raw(vm).extents() if not item.hole]
        assert found == [Extent(3 * MIB, MIB, False)]
        assert read(raw(vm), 3 * MIB - 10, MIB) == bytes(10) + b"x" * (MIB - 10)


def test_a_frame_that_cannot_be_read_is_an_error() -> None:
    with Microvmi.from_driver(FakeDriver({0: numbered(0, 4 * PAGE)}, unreadable=[2])) as vm:
        layout = raw(vm)
        assert read(layout, 0, 2 * PAGE) == numbered(0, 2 * PAGE)
        with pytest.raises(IoError):
            layout.read_into(PAGE, bytearray(2 * PAGE))


def test_of_a_machine_that_was_closed_nothing_is_read(machine: Microvmi, layout: Layout) -> None:
    machine.close()
    with pytest.raises(InvalidContextError):
        layout.read_into(100, bytearray(10))


@pytest.mark.parametrize(
    "segments", [[Segment(0, 11, bytes(11))], [Segment(0, 4, b"abcd"), Segment(3, 1, b"e")], [Segment(5, 6, None, 0)]]
)
def test_segments_that_overlap_or_leave_the_file_are_refused(machine: Microvmi, segments: list[Segment]) -> None:
    with pytest.raises(InvalidArgumentError, match="overlap"):
        Layout(machine, segments, 10)
