# SPDX-License-Identifier: Apache-2.0
"""Images made of parts of other images, in an order of their own: nothing is unpacked."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Sequence

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.image import File, Image, Place
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.mapping import HostMapping


class Part(NamedTuple):
    """``size`` bytes from ``start`` of the view are those of an image from ``offset`` on."""

    start: int
    size: int
    image: Image
    offset: int

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.start + self.size


class View(Image):
    """Parts of images, sorted and not overlapping; between two of them there may be bytes that nobody has."""

    def __init__(self, path: str, parts: Sequence[Part]) -> None:
        """``parts`` are one at least."""
        super().__init__(path, parts[-1].end, parts[0].image.opening)
        self._parts = parts
        self._starts = [part.start for part in parts]
        self.flat = all(part.image.flat for part in parts)

    def _of(self, offset: int, size: int) -> Iterator[tuple[Image, int, int]]:
        """(image, offset in it, size) of those bytes."""
        index = bisect.bisect_right(self._starts, offset) - 1
        while size > 0:
            part = self._parts[index] if 0 <= index < len(self._parts) else None
            if part is None or not part.start <= offset < part.end:
                raise self.damaged(f"no record has the bytes at {offset:#x}")
            length = min(part.end - offset, size)
            yield part.image, part.offset + offset - part.start, length
            offset, size, index = offset + length, size - length, index + 1

    def clipped(self, offset: int, size: int, what: str) -> int:
        """As the image's; up to the first byte that no part has."""
        size = super().clipped(offset, size, what)
        there = 0
        try:
            for image, _, length in self._of(offset, size):
                if isinstance(image, Unwritten):
                    raise image.damaged("nothing is there")
                there += length
        except IoError:
            self.amiss(
                f"{what} would lie at {offset:#x}, {size:#x} bytes: no record has the bytes at {offset + there:#x}"
            )
        return there

    def _read(self, offset: int, size: int, what: str) -> bytes:
        return b"".join(image.read(begin, length, what) for image, begin, length in self._of(offset, size))

    def places(self, offset: int, size: int) -> Iterator[Place]:
        """Those of the parts."""
        for image, begin, length in self._of(offset, size):
            yield from image.places(begin, length)

    def pieces(self) -> Iterator[tuple[int, Place]]:
        """Those of the parts."""
        for part in self._parts:
            start = part.start
            for place in part.image.places(part.offset, part.size):
                yield start, place
                start += place.size

    def next_data(self, offset: int) -> int:
        """As the image behind it; a hole within a part counts as a hole."""
        part = self._parts[max(bisect.bisect_right(self._starts, offset) - 1, 0)]
        if not part.start <= offset < part.end:
            return offset
        found = part.image.next_data(part.offset + offset - part.start)
        return min(found - part.offset + part.start, part.end)


class Unwritten(Image):
    """Bytes of a file between those that were written: they read as zeros, as in a file, but are never memory."""

    def _read(self, offset: int, size: int, what: str) -> bytes:
        return bytes(size)

    def places(self, offset: int, size: int) -> Iterator[Place]:
        """Nowhere."""
        raise self.damaged("no record has some bytes of memory")

    def next_data(self, offset: int) -> int:
        """There is none."""
        return self.size


def filled(parts: Sequence[Part], block: int, most: int) -> list[Part]:
    """The parts, sorted, and between them what was never written: the rest of a block that begins with a header.

    Blocks have a multiple of ``block`` bytes, and not more than ``most``. Other gaps are what was lost.
    """
    found: list[Part] = []
    end = 0
    for part in parts:
        size = part.start - end
        if 0 < size < most and end and part.start % block == 0:
            found.append(Part(end, size, Unwritten(part.image.path, size, part.image.opening), 0))
        found.append(part)
        end = part.end
    return found


def one_after_the_other(images: Sequence[Image]) -> View:
    """The images as one: what is split into several files."""
    parts, start = [], 0
    for image in images:
        parts.append(Part(start, image.size, image, 0))
        start += image.size
    return View(images[0].path, parts)


class Zeros(Image):
    """``size`` zeros, for a part of a view: nothing is in any file where they are. They take no memory."""

    def __init__(self, beside: Image, size: int) -> None:
        """``beside`` is the image that lacks them."""
        super().__init__(beside.path, size, beside.opening)
        self._hole: File | None = None

    def _read(self, offset: int, size: int, what: str) -> bytes:
        return bytes(size)

    def places(self, offset: int, size: int) -> Iterator[Place]:
        """In a file that is a hole, made by who asks first."""
        if self._hole is None:
            with StandardStreamsHeld():
                fd = OwnedFd(os.memfd_create("microvmi"))
            os.ftruncate(fd.number, self.size)
            mapping = HostMapping.of_file(fd, mapped=self.opening.options.mapped, image=True)
            self._hole = File(self.path, mapping, self.opening, made=True)
        yield from self._hole.places(offset, size)

    def next_data(self, offset: int) -> int:
        """Nowhere."""
        return self.size
