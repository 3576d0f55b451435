# SPDX-License-Identifier: Apache-2.0
"""Upstream's two streams, with its habits: closing one does not end it, and the plain one does not move by a read."""

from __future__ import annotations

import io

from libmicrovmi_py.declare import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from libmicrovmi_py.compat.machine import MicrovmiExt

PAGE_SIZE = 4096


class AbstractPhysicalMemoryIO(io.RawIOBase):
    """A position in guest-physical memory. Only steps from where it is are kept between 0 and the end of memory."""

    def __init__(self, m: MicrovmiExt) -> None:
        self._m = m
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move, and return the position. Raises ``ValueError`` for one below 0, ``RuntimeError`` for another whence."""
        end = self._m.get_max_physical_addr()
        if whence == io.SEEK_CUR:
            self._position = min(max(self._position + offset, 0), end)
            return self._position
        if whence not in (io.SEEK_SET, io.SEEK_END):
            raise RuntimeError(f"seek: unexpected whence value {whence}")
        position = offset + (end if whence == io.SEEK_END else 0)
        if position < 0:
            raise ValueError(f"seek: {position} is before the start of memory")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing: there is one stream for all who ask, and some of them close what they got and ask again."""

    def _checked(self, size: int | None) -> int:
        if size is None or size < 0:
            raise NotImplementedError("read: a size is needed, as memory has no end that a stream could find")
        return size


class PhysicalMemoryIO(AbstractPhysicalMemoryIO):
    """The plain stream: a read ends before memory that does not exist, with nothing if that is where it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        data, done = self._m.read_physical(self._position, self._checked(size))
        return data[:done]

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        return self._m.read_physical_into(self._position, buffer)


class PaddedPhysicalMemoryIO(AbstractPhysicalMemoryIO):
    """The padded stream: as many bytes as are asked for, always; what does not exist is zeros."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = bytearray(self._checked(size))
        self.readinto(data)
        return bytes(data)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        self._m.read_padded_into(self._position, view)
        self.seek(len(view), io.SEEK_CUR)
        return len(view)
