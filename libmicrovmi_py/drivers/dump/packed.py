# SPDX-License-Identifier: Apache-2.0
"""An image of which one piece after the other is unpacked when it is read; a few are kept."""

from __future__ import annotations

import abc
import bisect
import threading
from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.dump.image import Image, Place
from libmicrovmi_py.errors import IoError

if TYPE_CHECKING:
    from array import array

_KEPT = 64 << 20
"""So many bytes of pieces are kept; the last one always."""

LARGEST_PIECE = 64 << 20
"""Bytes: what has larger pieces is unpacked as a whole, as reading one byte would unpack too much."""


_LONGEST_HOLE = 4 << 20


def packed_data(image: Image, position: int, size: int) -> bytes:
    """What is there of so many bytes of packed data. Raises ``ValueError`` in a hole of the file that has no end.

    A decompressor may make something of zeros for ever, and a sparse file of a few KiB has as many as it likes.
    """
    content = image.read(position, min(size, image.size - position), "packed data")
    if content and not any(content) and image.next_data(position) - position > _LONGEST_HOLE:
        raise ValueError(f"there is nothing from {position:#x} on")
    return content


class Packed(Image):
    """Pieces that are packed. ``starts`` are where they begin, unpacked, and at the end their size in all."""

    flat = False

    def __init__(self, image: Image, starts: array[int]) -> None:
        super().__init__(image.path, starts[-1], image.opening)
        self.image = image
        self.starts = starts
        self._lock = threading.Lock()
        self._pieces: dict[int, bytes] = {}
        self._bytes = 0

    @abc.abstractmethod
    def unpack(self, index: int) -> bytes:
        """That piece, unpacked. Raises ``ValueError`` with what is wrong, or ``IoError``."""

    def _read(self, offset: int, size: int, what: str) -> bytes:
        return b"".join(self._parts(offset, size, what))

    def _parts(self, offset: int, size: int, what: str) -> Iterator[bytes]:
        index = bisect.bisect_right(self.starts, offset) - 1
        while size > 0:
            begin = offset - self.starts[index]
            part = self._piece(index, what)[begin : begin + size]
            yield part
            offset, size, index = offset + len(part), size - len(part), index + 1

    def _piece(self, index: int, what: str) -> bytes:
        with self._lock:
            content = self._pieces.pop(index, None)
            if content is not None:
                self._pieces[index] = content  # the last one used goes last
                return content
        try:
            content = self.unpack(index)
            if len(content) != self.starts[index + 1] - self.starts[index]:
                raise ValueError(f"it is not {self.starts[index + 1] - self.starts[index]} bytes unpacked")
        except ValueError as err:
            raise IoError(f"{self.path}: piece {index}, in which {what} is, is damaged: {err}") from err
        self._keep(index, content)
        return content

    def _keep(self, index: int, content: bytes) -> None:
        with self._lock:
            if index in self._pieces:
                return
            self._pieces[index] = content
            self._bytes += len(content)
            while self._bytes > _KEPT and len(self._pieces) > 1:
                self._bytes -= len(self._pieces.pop(next(iter(self._pieces))))

    def places(self, offset: int, size: int) -> Iterator[Place]:
        """It lies nowhere as it is."""
        raise NotImplementedError(f"{self.path} is not flat")

    def as_raw(self) -> None:
        """As what it is packed in."""
        self.image.as_raw()

    def next_data(self, offset: int) -> int:
        """Nobody knows where it has zeros only."""
        return offset
