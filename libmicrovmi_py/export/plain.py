# SPDX-License-Identifier: Apache-2.0
"""Files that hold memory and nothing else: raw, where an offset is an address, and LiME, without what is not there."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from libmicrovmi_py.export.layout import Layout, Segment, joined
from libmicrovmi_py.machine.microvmi import Microvmi

_LIME = struct.Struct("<4sIQQ8x")
"""The header of a range: magic, version, first and last address. https://github.com/504ensicsLabs/LiME"""


def raw(machine: Microvmi) -> Layout:
    """Byte N is the one at guest-physical address N, up to the maximum address; what does not exist is zeros."""
    end = machine.max_addr
    ranges = joined(machine.memory_map(), end)
    return Layout(machine, [Segment(start, until - start, None, start) for start, until in ranges], end)


def lime(machine: Microvmi) -> Layout:
    """The memory below the maximum address, range by range, each behind a header."""
    segments = list(_lime(joined(machine.memory_map(), machine.max_addr)))
    return Layout(machine, segments, segments[-1].end if segments else 0)


def _lime(ranges: list[tuple[int, int]]) -> Iterator[Segment]:
    offset = 0
    for start, end in ranges:
        yield Segment(offset, _LIME.size, _LIME.pack(b"EMiL", 1, start, end - 1))
        offset += _LIME.size
        yield Segment(offset, end - start, None, start)
        offset += end - start
