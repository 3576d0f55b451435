# SPDX-License-Identifier: Apache-2.0
"""What an open file is: a layout, a text, or the memory of a process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence

from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.errors import NotMappedError
from libmicrovmi_py.export import Layout
from libmicrovmi_py.memory.virtual import AddressSpace

END_OF_PROCESSES = 1 << 56
"""No process has memory from there on, on any machine."""


@dataclass(frozen=True, slots=True)
class LayoutFile:
    """Memory in one of the formats of ``export``."""

    layout: Layout
    fixed: bool

    def read(self, offset: int, size: int, room: memoryview) -> Sequence[memoryview | bytes]:
        """As ``server.File`` has it; ``IoError`` where memory exists and cannot be read."""
        done = self.layout.read_into(offset, room[:size])
        return [room[:done]]

    def seek(self, offset: int, whence: int) -> int:
        """As ``server.File`` has it."""
        if offset >= self.layout.size:
            raise OSError(errno.ENXIO, "")
        places = ((extent.offset, extent.hole) for extent in self.layout.extents(offset))
        return _sought(places, whence, self.layout.size)


@dataclass(frozen=True, slots=True)
class TextFile:
    """Bytes that were made when it was opened, or before."""

    content: bytes
    fixed: bool

    def read(self, offset: int, size: int, room: memoryview) -> Sequence[memoryview | bytes]:
        """As ``server.File`` has it."""
        return [self.content[offset : offset + size]]

    def seek(self, offset: int, whence: int) -> int:
        """As ``server.File`` has it; there are no holes."""
        if offset >= len(self.content):
            raise OSError(errno.ENXIO, "")
        return offset if whence == os.SEEK_DATA else len(self.content)


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """A process's memory by virtual address, as ``/proc/PID/mem``: an I/O error where nothing is mapped."""

    space: AddressSpace
    fixed = False

    def read(self, offset: int, size: int, room: memoryview) -> Sequence[memoryview | bytes]:
        """Up to the first byte that is not mapped; ``NotMappedError`` for that one."""
        size = min(size, max(END_OF_PROCESSES - offset, 0))
        done = self.space.read_virtual_into(offset, room[:size])
        if not done and size:
            raise NotMappedError(f"nothing is mapped at {offset:#x}", address=offset)
        return [room[:done]]

    def seek(self, offset: int, whence: int) -> int:
        """What is mapped counts as data."""
        return _sought(self._places(offset), whence, END_OF_PROCESSES)

    def _places(self, offset: int) -> Iterable[tuple[int, bool]]:
        """Where pages and holes begin from an offset on, by turns."""
        for item in self.space.mapped(offset, END_OF_PROCESSES):
            if item.start > offset:
                yield offset, True
            yield max(item.start, offset), False
            offset = item.end
        if offset < END_OF_PROCESSES:
            yield offset, True


def _sought(places: Iterable[tuple[int, bool]], whence: int, end: int) -> int:
    """The first place, of (offset, whether it is a hole), of the wanted kind; behind all is a hole."""
    if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        raise OSError(errno.EINVAL, "")
    for offset, hole in places:
        if hole == (whence == os.SEEK_HOLE):
            return offset
    if whence == os.SEEK_DATA:
        raise OSError(errno.ENXIO, "")
    return end
