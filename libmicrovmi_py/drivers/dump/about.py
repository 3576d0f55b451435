# SPDX-License-Identifier: Apache-2.0
"""What a dump tells of itself, and how it was opened, put together for who asks."""

from __future__ import annotations

from collections.abc import Iterable

from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.recognition import Recognised
from libmicrovmi_py.drivers.imageinfo import ImageAccess, ImageInfo
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE


def image_info(found: Recognised, contents: Contents, *, lies_flat: bool) -> ImageInfo:
    """``lies_flat``: memory lies in files as it is."""
    opening = found.image.opening
    there = contents.ranges()
    present = _pages(there)
    flat = ImageAccess.MAPPED if opening.options.mapped else ImageAccess.CALLS
    return ImageInfo(
        found.format,
        tuple(opening.wrappers),
        contents.producer or contents.processors.producer,
        contents.machine,
        flat if lies_flat else ImageAccess.PIECES,
        present,
        _pages([*there, *(contents.exists or ())]) - present,
        None if contents.zeros is None else contents.zeros(),
        tuple(file.path for file in opening.files if not file.made),
        tuple(opening.missing),
        tuple(opening.said),
    )


def _pages(ranges: Iterable[tuple[int, int]]) -> int:
    """How many pages have a byte in one of these ranges, (start, end) each."""
    count = last = 0
    for start, end in sorted(ranges):
        first, last_here = max(start >> PAGE_SHIFT, last), end + PAGE_SIZE - 1 >> PAGE_SHIFT
        count += max(last_here - first, 0)
        last = max(last, last_here)
    return count
