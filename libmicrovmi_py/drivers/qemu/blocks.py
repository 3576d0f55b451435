# SPDX-License-Identifier: Apache-2.0
"""Which block of a migration stream is which memory of the machine."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.qemu.flatview import Extent
from libmicrovmi_py.drivers.qemu.migration import Part, StreamError
from libmicrovmi_py.errors import listed, logger
from libmicrovmi_py.model import PAGE_SIZE, MemoryKind, MemoryRange

if TYPE_CHECKING:
    from libmicrovmi_py.transport.copy import Copy

_log = logger(__name__)

_MOST_PARTS = 1024


def places(blocks: Mapping[str, int], extents: Sequence[Extent], copy: Copy) -> tuple[list[Part], list[MemoryRange]]:
    """Where in the copy the blocks, names with their sizes, belong; and the ranges of the copy that they fill.

    The others are memory that QEMU does not save (of devices, shared with others), and are left out. Raises
    ``StreamError`` if that is RAM, or if it is not certain which block RAM is.
    """
    names = {name: _full_name(blocks, name) for name in {extent.block for extent in extents}}
    parts: list[Part] = []
    taken: list[MemoryRange] = []
    left: list[str] = []
    for item in copy.ranges:
        own = list(_parts(item, extents, names, copy))
        if sum(part.size for part in own) == item.size and all(_fits(part, blocks) for part in own):
            parts += own
            taken.append(item)
        elif item.kind is MemoryKind.RAM:
            raise StreamError(f"it is not certain where the RAM at {item.start:#x} is in the migration stream")
        else:
            left.append(f"{item.start:#x}")
    if len(parts) > _MOST_PARTS:
        raise StreamError(f"the machine has its memory in more than {_MOST_PARTS} pieces")
    if left:
        _log.info("memory that QEMU does not save is not in the snapshot: at %s", listed(left))
    return parts, taken


def _full_name(blocks: Mapping[str, int], name: str) -> str | None:
    """How the stream calls a block: by its name, behind the place of its device if it has one. ``None``: that is not
    certain."""
    found = [full for full in blocks if full == name or full.endswith(f"/{name}")]
    return found[0] if len(found) == 1 else None


def _parts(item: MemoryRange, extents: Sequence[Extent], names: Mapping[str, str | None], copy: Copy) -> Iterator[Part]:
    """What of a range is in blocks."""
    end = item.start + item.size
    first = bisect.bisect_right(extents, item.start, key=lambda extent: extent.start) - 1
    for extent in extents[max(0, first) :]:
        low, high = max(extent.start, item.start), min(extent.start + extent.size, end)
        if extent.start >= end:
            break
        if low < high and (name := names[extent.block]) is not None:
            yield Part(name, extent.offset + low - extent.start, high - low, copy.offset_of(low))


def _fits(part: Part, blocks: Mapping[str, int]) -> bool:
    """Whether a part is whole pages of its block."""
    whole = not (part.offset | part.size | part.place) % PAGE_SIZE
    return whole and part.offset + part.size <= blocks[part.block]
