# SPDX-License-Identifier: Apache-2.0
"""What a format finds in a dump file, and how a format is described."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.layout import Piece
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
    """Memory, either as it lies in the file or page by page, and vCPUs. Pieces are sorted and do not overlap."""

    memory: Sequence[Piece] | Paged
    processors: Processors = Processors()


@dataclass(frozen=True, slots=True)
class Format:
    """A format: the name that the parameter ``format`` takes, how such a file starts, and how it is read.

    ``read`` raises an ``IoError`` for a file that is cut short or lies, a ``DriverUnavailableError`` for one that this
    version cannot read.
    """

    name: str
    magic: bytes
    read: Callable[[Image], Contents]
