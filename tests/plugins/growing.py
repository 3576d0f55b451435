# SPDX-License-Identifier: Apache-2.0
"""A driver whose machine has more memory once it was asked for its map: the first 4 KiB of its file once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.drivers.dump.image import File
from libmicrovmi_py.model import MemoryKind, MemoryRange
from libmicrovmi_py.params import Parameters


class Growing(Driver):
    """The file ``path``, and later its first page behind twice its size."""

    name = "growing"
    automatic = False
    parameters: ClassVar[dict[str, str]] = {"path": "the file"}

    def __init__(self, image: File) -> None:
        self._image = image
        self._regions = [Region(0, image.size, MemoryKind.RAM, image.mapping, 0)]

    @classmethod
    def open(cls, params: Parameters) -> Growing:
        return cls(File.open(params["path"]))

    @property
    def max_addr(self) -> int:
        return self._image.size

    def regions(self) -> Sequence[Region]:
        return self._regions

    def memory_map(self) -> list[MemoryRange]:
        """All there is, which is more than C knew."""
        if len(self._regions) == 1:
            more = Region(2 * self._image.size, 0x1000, MemoryKind.DEVICE, self._image.mapping, 0)
            self._regions = [*self._regions, more]
        return [MemoryRange(region.start, region.size, region.kind) for region in self._regions]

    def close(self) -> None:
        self._image.mapping.close()


DRIVER = Growing
