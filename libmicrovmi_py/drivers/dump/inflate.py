# SPDX-License-Identifier: Apache-2.0
"""Deflated data (gzip, zlib, zip) at random: the decompressor's state, its window with it, is kept every few MiB."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING, Any
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.packed import Packed, packed_data
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.transport.native import give_way

if TYPE_CHECKING:
    from array import array

_IN, _OUT = 16 << 10, 1 << 20
_APART = 4 << 20
"""Entry points are so many bytes apart, unpacked, at first."""
_MOST = 2048
"""So many entry points are kept, some 50 KiB each; with more, every second one goes."""

GZIP, ZLIB, BARE = 31, 15, -15
"""How zlib is told that there are gzip's header and checksum, its own, or none."""


class _Stream:
    """Where a decompressor is: its state, and the bytes of the file that it gets next."""

    def __init__(self, image: Image, begin: int, end: int, kind: int) -> None:
        self._image, self._position, self._end, self._kind = image, begin, end, kind
        self._state: Any = zlib.decompressobj(kind)
        self._tail = b""

    def copied(self) -> _Stream:
        """The same once more."""
        other = _Stream.__new__(_Stream)
        other._image, other._end, other._kind = self._image, self._end, self._kind
        other._position, other._tail, other._state = self._position, b"", self._state.copy()
        return other

    @property
    def between(self) -> bool:
        """Whether it may be copied: it holds no bytes of the file."""
        return not self._tail and not self._state.eof

    def chunk(self) -> bytes:
        """What comes next, ``b""`` at the end. Raises ``ValueError`` where the file is cut or damaged."""
        while not self._state.eof or self._next_member():
            data = self._tail or packed_data(self._image, self._position, min(_IN, self._end - self._position))
            self._position += 0 if self._tail else len(data)
            if not data:
                raise ValueError("it ends in the middle")
            try:
                content: bytes = self._state.decompress(data, _OUT)
            except zlib.error as err:
                raise ValueError(str(err)) from None
            self._tail = self._state.unconsumed_tail
            if content:
                return content
        return b""

    def _next_member(self) -> bool:
        """Whether another member of a gzip file follows; what else is behind the last one is passed over."""
        self._position -= len(self._state.unused_data)
        self._tail = b""
        if self._kind != GZIP or self._end - self._position < 18:
            return False
        if self._image.read(self._position, 3, "the header of a member") != b"\x1f\x8b\x08":
            return False
        self._state = zlib.decompressobj(self._kind)
        return True


class Inflated(Packed):
    """What is deflated in a part of an image; opening it unpacks all of it once, which finds damage as well."""

    def __init__(self, image: Image, begin: int, size: int, kind: int, checksum: int | None = None) -> None:
        """``checksum`` is the CRC-32 that is told elsewhere."""
        self._entries: list[_Stream] = []
        self._checksum = 0
        super().__init__(image, self._indexed(_Stream(image, begin, begin + size, kind), image))
        if checksum not in (None, self._checksum):
            image.amiss("what is in it has another checksum")

    def _indexed(self, stream: _Stream, image: Image) -> array[int]:
        starts, done, apart = [0], 0, _APART
        self._entries.append(stream.copied())
        for content in _contents(stream, image):
            done += len(content)
            self._checksum = zlib.crc32(content, self._checksum)
            if done - starts[-1] >= apart and stream.between:
                starts.append(done)
                self._entries.append(stream.copied())
            if len(starts) > _MOST:
                starts, self._entries, apart = starts[::2], self._entries[::2], 2 * apart
            give_way()
        if not done:
            raise image.damaged("there is nothing in it")
        if done == starts[-1]:
            del self._entries[-1]
        else:
            starts.append(done)
        return words("Q", starts)

    def unpack(self, index: int) -> bytes:
        """From the entry point on."""
        stream, size = self._entries[index].copied(), self.starts[index + 1] - self.starts[index]
        content = bytearray()
        while len(content) < size:
            chunk = stream.chunk()
            if not chunk:
                break
            content += chunk
        return bytes(content[:size])


def _contents(stream: _Stream, image: Image) -> Iterator[bytes]:
    done = 0
    while True:
        try:
            content = stream.chunk()
        except ValueError as err:
            image.amiss(f"{err}, after {done} bytes unpacked")
            return
        if not content:
            return
        done += len(content)
        yield content
