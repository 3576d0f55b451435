# SPDX-License-Identifier: Apache-2.0
"""The memory map is found by trying frames, and by few of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from libmicrovmi_py.drivers.xen.layout import probe
from libmicrovmi_py.model import MemoryKind, MemoryRange, end_of_ram

HIGHEST = 0xFEFFF
SPECIAL = range(0xFC000, 0xFC009)
HVM_SPECIAL = range(0xFEFF8, 0xFF000)


class Domain:
    """Frames that exist, and how many were tried."""

    def __init__(self, *runs: range) -> None:
        self.runs = runs
        self.tried = 0
        self.calls = 0

    @property
    def pages(self) -> int:
        return sum(len(run) for run in self.runs)

    def errors(self, frames: Sequence[int]) -> list[int]:
        self.calls += 1
        self.tried += len(frames)
        assert len(frames) <= 1024
        return [0 if any(frame in run for run in self.runs) else -22 for frame in frames]


def ranges(*runs: range) -> tuple[MemoryRange, ...]:
    def kind(run: range) -> MemoryKind:
        return MemoryKind.DEVICE if 0xF0000 <= run.start < 0x100000 else MemoryKind.RAM

    return tuple(MemoryRange(run.start << 12, len(run) << 12, kind(run)) for run in runs)


@pytest.mark.parametrize(
    ("highest", "runs"),
    [
        (HIGHEST, (range(0x1000), SPECIAL, HVM_SPECIAL)),
        (HIGHEST, (range(0xA0), range(0xC0, 0x10000), range(0xF0000, 0xF1000), SPECIAL, HVM_SPECIAL)),
        (HIGHEST, (range(0x12345), SPECIAL, HVM_SPECIAL)),
        (0x47FFFF, (range(0xF0000), SPECIAL, HVM_SPECIAL, range(0x100000, 0x480000))),
        (HIGHEST, (range(1, 2), SPECIAL)),
        (0x1FF, (range(0x200),)),
    ],
    ids=["pvh", "hvm", "odd size", "above 4 GiB", "one frame", "no special pages"],
)
def test_what_comes_in_superpages_is_found_with_few_tries(highest: int, runs: tuple[range, ...]) -> None:
    domain = Domain(*runs)
    assert probe(domain.errors, highest, domain.pages) == ranges(*runs)
    assert domain.calls < 24


def test_holes_within_superpages_are_found_by_trying_what_is_around_memory() -> None:
    domain = Domain(range(0x700), range(0x701, 0x8F0), range(0x910, 0x1000), SPECIAL)
    assert probe(domain.errors, HIGHEST, domain.pages) == ranges(*domain.runs)
    assert 0x1000 < domain.tried < 0x3000


def test_pages_that_are_in_no_frame_do_not_make_it_try_everything() -> None:
    domain = Domain(range(0x1000), SPECIAL)
    assert probe(domain.errors, HIGHEST, domain.pages + 5) == ranges(*domain.runs)
    assert domain.tried < 0x3000


def test_memory_that_no_try_hits_is_found_by_trying_everything() -> None:
    domain = Domain(range(0x1000), *(range(first + 1, first + 0x200) for first in range(0x8000, 0x8600, 0x200)))
    assert probe(domain.errors, 0xFFFF, domain.pages) == ranges(*domain.runs)
    assert domain.tried > 0xFFFF


def test_the_maximum_address_does_not_count_special_pages() -> None:
    domain = Domain(range(0x1000), SPECIAL, HVM_SPECIAL)
    assert end_of_ram(probe(domain.errors, HIGHEST, domain.pages)) == 0x1000000


def test_memory_and_devices_are_told_apart_where_they_touch() -> None:
    domain = Domain(range(0xEFE00, 0x100200))
    found = probe(domain.errors, 0x1001FF, domain.pages)
    assert found == ranges(range(0xEFE00, 0xF0000), range(0xF0000, 0x100000), range(0x100000, 0x100200))


def test_a_domain_without_memory_has_an_empty_map() -> None:
    assert probe(Domain().errors, HIGHEST, 0) == ()
