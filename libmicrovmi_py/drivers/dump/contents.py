# SPDX-License-Identifier: Apache-2.0
"""What a format finds in a dump: memory, vCPUs, and what the dump tells of itself."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, Protocol, dataclass
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.layout import Extent
from libmicrovmi_py.errors import AccessError

if TYPE_CHECKING:
    from libmicrovmi_py.arch.state import VcpuState
    from libmicrovmi_py.drivers.dump.kinds import AllKinds


@dataclass(frozen=True, slots=True)
class Processors:
    """How many vCPUs the machine had, 0 if the dump does not tell, and what is known of the first of them.

    ``hypervisor`` is whether a hypervisor made the dump from outside, with all memory that it knows; ``producer`` is
    the program that wrote the registers down, ``""`` if nothing tells.
    """

    count: int = 0
    states: Sequence[VcpuState] = ()
    hypervisor: bool = False
    producer: str = ""


class Paged(Protocol):
    """Memory that has to be unpacked page by page."""

    def ranges(self) -> Sequence[tuple[int, int]]:
        """(start, end) of the memory that is there, sorted, in bytes."""

    def read_range(self, address: int, buffer: memoryview) -> int:
        """As ``SupportsRanges.read_range``."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Memory, either as it lies in an image or page by page, and vCPUs. Extents are sorted and do not overlap.

    ``exists`` has (start, end) of all memory of the machine that the file tells of; ``None``: no more than the file
    holds. ``whole`` is false if parts of that were left out of the file. ``image`` is where the extents lie if that is
    another one than the format was given: a file beside it, or a view of several. ``producer`` is the program that
    wrote the dump, ``machine`` the type of machine, as the dump has them; ``""`` where it tells nothing. ``zeros``
    counts the pages of ``memory`` for which the dump has no bytes but the word that they are zeros; ``None``: it does
    not tell. ``kinds`` is for a format that knows which memory is a device's; ``None``: it is found out, where a
    hypervisor made the dump.
    """

    memory: Sequence[Extent] | Paged
    processors: Processors = Processors()
    exists: Sequence[tuple[int, int]] | None = None
    whole: bool = True
    image: Image | None = None
    producer: str = ""
    machine: str = ""
    zeros: Callable[[], int] | None = None
    kinds: AllKinds | None = None

    def ranges(self) -> Sequence[tuple[int, int]]:
        """(start, end) of the memory that the file holds."""
        if isinstance(self.memory, Sequence):
            return [(extent.start, extent.end) for extent in self.memory]
        return self.memory.ranges()

    def reader(self, image: Image) -> Callable[[int, int], bytes]:
        """Reads bytes from a guest-physical address on, fewer where the file has no more, or cannot be read."""
        memory = self.memory
        if isinstance(memory, Sequence):
            return functools.partial(_bytes_of_extents, image, memory)
        return functools.partial(_bytes_of_pages, memory)


def _bytes_of_extents(image: Image, extents: Sequence[Extent], address: int, size: int) -> bytes:
    content = b""
    index = bisect.bisect_right(extents, address, key=lambda extent: extent.start) - 1
    for extent in itertools.islice(extents, max(index, 0), None):
        begin = address + len(content)
        length = min(extent.end - begin, size - len(content))
        if not extent.start <= begin or length <= 0:
            break
        content += image.read(extent.offset + begin - extent.start, length, "memory")
    return content


def _bytes_of_pages(pages: Paged, address: int, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    try:
        done = pages.read_range(address, buffer)
    except AccessError as err:
        done = err.completed
    return bytes(buffer[:done])
