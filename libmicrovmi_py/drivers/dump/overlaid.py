# SPDX-License-Identifier: Apache-2.0
"""Memory of two makings, as one: pages of a saved machine, and files of memory that was shared with others."""

from __future__ import annotations

from collections.abc import Sequence

from libmicrovmi_py.drivers.dump.contents import Paged
from libmicrovmi_py.drivers.dump.image import File, Image
from libmicrovmi_py.drivers.dump.kinds import joined
from libmicrovmi_py.drivers.dump.layout import Extent, Span, laid_out
from libmicrovmi_py.drivers.dump.pages import ExtentPages
from libmicrovmi_py.drivers.dump.savedlayout import Placed
from libmicrovmi_py.drivers.dump.views import one_after_the_other
from libmicrovmi_py.errors import InvalidArgumentError


class Overlaid:
    """What the first does not have may be in the second."""

    def __init__(self, first: Paged, second: Paged) -> None:
        self._first, self._second = first, second

    def ranges(self) -> Sequence[Span]:
        """(start, end) of the memory that is in either, in bytes."""
        return joined([*self._first.ranges(), *self._second.ranges()])

    def read_range(self, address: int, buffer: memoryview) -> int:
        """Fill ``buffer`` up to the first page that is in neither; the length of that."""
        done = 0
        while done < len(buffer):
            place, rest = address + done, buffer[done:]
            read = self._first.read_range(place, rest) or self._second.read_range(place, rest)
            if not read:
                break
            done += read
        return done


def shared_files(image: Image, placed: Sequence[Placed], there: Sequence[Span]) -> ExtentPages | None:
    """The memory of the files that ``parts=`` names: each is a block that is not ``there``, by its size.

    Raises ``InvalidArgumentError`` for one that is of no such size, and as ``File.open``.
    """
    named = image.opening.options.parts
    if named is None:
        return None
    image.opening.split = True
    files = [File.open(path, image.opening) for path in named.split(",")]
    lacks = [item for item in placed if not any(start < item.end and end > item.address for start, end in there)]
    blocks = list(dict.fromkeys(item.block for item in lacks))
    extents, begin = [], 0
    for file in files:
        block = next((block for block in blocks if block.size == file.size), None)
        if block is None:
            raise InvalidArgumentError(f"parts={file.path}: no memory of its {file.size} bytes is missing")
        blocks.remove(block)
        extents += [Extent(item.address, item.size, begin + item.offset) for item in lacks if item.block == block]
        begin += file.size
    return ExtentPages(one_after_the_other(files), laid_out(extents))
