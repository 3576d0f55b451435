# SPDX-License-Identifier: Apache-2.0
"""The RAM of a machine in pieces, whose size is not the machine's; what is known to be zero is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import PAGE_SIZE, MemoryKind

PIECE = 1 << 20
"""Bytes that are read at once."""

MOST_AROUND = PAGE_SIZE // 2
"""Bytes that pieces may share with their neighbours."""


def ram(machine: Microvmi) -> list[tuple[int, int]]:
    """Begin and end of what is RAM, ascending; ranges that touch are one."""
    found: list[tuple[int, int]] = []
    for item in machine.memory_map():
        if item.kind is not MemoryKind.RAM:
            continue
        if found and found[-1][1] == item.start:
            found[-1] = (found[-1][0], item.end)
        else:
            found.append((item.start, item.end))
    return found


def filled(machine: Microvmi) -> Iterator[tuple[int, int, int, int]]:
    """Begin and end of what may hold something, and of the RAM around it."""
    with machine.open_memory(padded=True) as stream:
        for start, end in ram(machine):
            at = start
            while (at := stream.seek(at, os.SEEK_DATA)) < end and at >= start:
                hole = max(min(stream.seek(at, os.SEEK_HOLE), end), at + 1)
                yield at, hole, start, end
                at = hole


class Piece(NamedTuple):
    """Bytes of a machine from ``address`` on: the first ``size`` of ``buffer``, which the next piece overwrites.

    What begins in the first ``own`` bytes is this piece's; what begins behind them is seen whole by the next one.
    """

    address: int
    buffer: bytearray
    size: int
    own: int


def pieces(machine: Microvmi, around: int = 0) -> Iterator[Piece]:
    """All of them, each with up to ``around`` bytes more than it owns, and as many of the zeros about what is filled.

    ``around`` is at most ``MOST_AROUND``: what is one byte longer, and not all zeros, is seen whole once, in the piece
    that owns its first byte. Memory that does not exist any more is zeros.
    """
    buffer = bytearray(PIECE + around)
    for at, hole, start, end in filled(machine):
        begin, last = max(at - around, start), min(hole + around, end)
        for address in range(begin, last, PIECE):
            size = min(len(buffer), last - address)
            machine.read_physical_padded_into(address, memoryview(buffer)[:size])
            yield Piece(address, buffer, size, PIECE)
