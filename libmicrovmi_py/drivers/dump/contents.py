# SPDX-License-Identifier: Apache-2.0
"""What a format finds in a dump file, and how a format is described."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.layout import Piece
from libmicrovmi_py.errors import AccessError
from libmicrovmi_py.model import X86Registers


@dataclass(frozen=True, slots=True)
class Processors:
    """How many vCPUs the machine had, 0 if the dump does not tell, and the registers of the first of them.

    ``hypervisor`` is whether a hypervisor made the dump from outside, with all memory that it knows.
    """

    count: int = 0
    registers: Sequence[X86Registers] = ()
    hypervisor: bool = False


class Paged(Protocol):
    """Memory that has to be unpacked page by page."""

    def ranges(self) -> Sequence[tuple[int, int]]:
        """(start, end) of the memory that is there, sorted, in bytes."""

    def read_range(self, address: int, buffer: memoryview) -> int:
        """As ``SupportsRanges.read_range``."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Memory, either as it lies in the file or page by page, and vCPUs. Pieces are sorted and do not overlap.

    ``exists`` is (start, end) of the memory that the machine had as far as the file tells, ``None`` if that is what
    the file holds; ``whole`` is whether nothing of it is known to have been left out.
    """

    memory: Sequence[Piece] | Paged
    processors: Processors = Processors()
    exists: Sequence[tuple[int, int]] | None = None
    whole: bool = True

    def ranges(self) -> Sequence[tuple[int, int]]:
        """(start, end) of the memory that the file holds."""
        if isinstance(self.memory, Sequence):
            return [(piece.start, piece.end) for piece in self.memory]
        return self.memory.ranges()

    def reader(self, image: Image) -> Callable[[int, int], bytes]:
        """Reads bytes from a guest-physical address on, fewer where the file has no more, or cannot be read."""
        memory = self.memory
        if isinstance(memory, Sequence):
            return functools.partial(_bytes_of_pieces, image, memory)
        return functools.partial(_bytes_of_pages, memory)


def _bytes_of_pieces(image: Image, pieces: Sequence[Piece], address: int, size: int) -> bytes:
    content = b""
    index = bisect.bisect_right(pieces, address, key=lambda piece: piece.start) - 1
    for piece in itertools.islice(pieces, max(index, 0), None):
        begin = address + len(content)
        length = min(piece.end - begin, size - len(content))
        if not piece.start <= begin or length <= 0:
            break
        content += image.read(piece.offset + begin - piece.start, length, "memory")
    return content


def _bytes_of_pages(pages: Paged, address: int, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    try:
        done = pages.read_range(address, buffer)
    except AccessError as err:
        done = err.completed
    return bytes(buffer[:done])


@dataclass(frozen=True, slots=True)
class Format:
    """A format: the name that the parameter ``format`` takes, how such a file starts, and how it is read.

    ``read`` raises an ``IoError`` for a file that is cut short or lies, a ``DriverUnavailableError`` for one that this
    version cannot read.
    """

    name: str
    magic: bytes
    read: Callable[[Image], Contents]
