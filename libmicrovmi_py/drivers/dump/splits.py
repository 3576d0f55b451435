# SPDX-License-Identifier: Apache-2.0
"""Dumps that are split into several files: the parts are found beside each other, or named with ``parts=``."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.image import File, Image
from libmicrovmi_py.drivers.dump.kinds import joined
from libmicrovmi_py.drivers.dump.layout import Span
from libmicrovmi_py.drivers.dump.pages import PackedPages

_WAY_OUT = "put them into its folder, name them with parts=, or open what is there with partial=on"


class PartOfDump(NamedTuple):
    """The pages of a part, which are all those of the dump from the first to before the second of ``span``."""

    span: Span
    pages: PackedPages


def others(image: Image, header: int) -> list[File]:
    """The files of the other parts: those that are named, or those in its folder with the same header of so many bytes.

    Raises as ``File.open``.
    """
    image.opening.split = True
    named = image.opening.options.parts
    if named is None:
        return image.alike(header)
    return [File.open(path, image.opening) for path in named.split(",")]


class Joined:
    """Memory of several parts, each of which has its own pages."""

    def __init__(self, image: Image, parts: Sequence[PartOfDump], end: int) -> None:
        """``end`` is one past the last page of the dump. Parts that are missing are an error, but with ``partial``."""
        kept = {part.span: part for part in parts if part.span[0] < part.span[1]}
        self._parts = sorted(kept.values(), key=lambda part: part.span)
        self._ends = [part.span[1] * part.pages.size for part in self._parts]
        before = 0
        if self._parts and self._parts[-1].span[1] > end:
            raise image.damaged(f"a part of it goes to page {self._parts[-1].span[1]:#x} of {end:#x}")
        for first, last in [part.span for part in self._parts] + [(end, end)]:
            if first < before:
                raise image.refused(f"one part of a dump: page {first:#x} is there twice", "name one set with parts=")
            if first > before:
                self._miss(image, before, first)
            before = last

    def _miss(self, image: Image, first: int, end: int) -> None:
        missing = f"pages {first:#x} to {end - 1:#x} are in others"
        if not image.opening.options.partial:
            raise image.refused(f"one part of a split dump: {missing}", _WAY_OUT)
        image.opening.lacks(f"{image.path} is one part of a split dump: {missing}")

    def ranges(self) -> Sequence[tuple[int, int]]:
        """(start, end) of the memory that is in the files, in bytes."""
        return joined(span for part in self._parts for span in part.pages.ranges())

    def read_range(self, address: int, buffer: memoryview) -> int:
        """Fill ``buffer`` up to the first page that is in no file; the length of that."""
        done = 0
        while done < len(buffer):
            index = bisect.bisect_right(self._ends, address + done)
            if index == len(self._parts):
                break
            length = min(len(buffer) - done, self._ends[index] - address - done)
            read = self._parts[index].pages.read_range(address + done, buffer[done : done + length])
            done += read
            if read < length:
                break
        return done
