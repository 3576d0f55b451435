# SPDX-License-Identifier: Apache-2.0
"""Frames in which two memories differ: an oracle that shares no code with the library, and the calls from C."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ctypes import byref, c_size_t, c_uint64
from types import ModuleType
from typing import Any, NamedTuple

FRAME = 4096
RAM = 1

Run = tuple[int, int, int]
"""Start, size and kind of a run."""


class Piece(NamedTuple):
    """Memory from an address on, of a kind."""

    start: int
    content: bytes
    kind: int = RAM


class _Part(NamedTuple):
    """Bytes of a frame, from a place in it on."""

    place: int
    content: bytes
    kind: int


def _frames(pieces: Iterable[Piece]) -> dict[int, list[_Part]]:
    """By the number of each frame what there is of it."""
    found: dict[int, list[_Part]] = {}
    for start, content, kind in pieces:
        at = start
        while at < start + len(content):
            end = min((at // FRAME + 1) * FRAME, start + len(content))
            found.setdefault(at // FRAME, []).append(_Part(at % FRAME, content[at - start : end - start], kind))
            at = end
    return found


def _bytes(parts: Iterable[_Part]) -> dict[int, tuple[int, int]]:
    """By their places the bytes of a frame, with their kinds."""
    return {part.place + index: (value, part.kind) for part in parts for index, value in enumerate(part.content)}


def _kind(older: list[_Part], newer: list[_Part]) -> int | None:
    """The kind of a frame that differs: that of the first byte that does."""
    if [part[:2] for part in older] == [part[:2] for part in newer]:
        return None
    before, after = _bytes(older), _bytes(newer)
    for place in sorted({*before, *after}):
        first, second = before.get(place), after.get(place)
        if first is None or second is None or first[0] != second[0]:
            return (second or first or (0, 0))[1]
    return None


def joined(runs: Iterable[Run]) -> list[Run]:
    """Runs without a cut between two that follow each other."""
    whole: list[Run] = []
    for start, size, kind in runs:
        if whole and whole[-1][0] + whole[-1][1] == start and whole[-1][2] == kind:
            whole[-1] = whole[-1][0], whole[-1][1] + size, kind
        else:
            whole.append((start, size, kind))
    return whole


def differing(older: Sequence[Piece], newer: Sequence[Piece], start: int = 0) -> list[Run]:
    """The runs in which two memories differ, from the frame of an address on."""
    before, after = _frames(older), _frames(newer)
    kinds = {
        number: _kind(before.get(number, []), after.get(number, []))
        for number in sorted({*before, *after})
        if number >= start // FRAME
    }
    return joined((number * FRAME, FRAME, kind) for number, kind in kinds.items() if kind is not None)


class Differ:
    """``microvmi_diff`` of two contexts, with room for ``capacity`` runs."""

    def __init__(self, lib: Any, stubs: ModuleType, older: int, newer: int, capacity: int = 64) -> None:
        self._lib, self._pair = lib, (older, newer)
        self.ranges = (stubs.microvmi_memory_range * capacity)()
        self.next, self.count = c_uint64(0), c_size_t(77)

    def call(self) -> bool:
        done: bool = self._lib.microvmi_diff(
            *self._pair, byref(self.next), self.ranges, len(self.ranges), byref(self.count)
        )
        return done

    def rows(self) -> list[Run]:
        return [(row.start, row.size, row.kind) for row in self.ranges[: self.count.value]]

    def calls(self, begin: int = 0) -> Iterator[list[Run]]:
        self.next.value = begin
        while True:
            assert self.call(), self._lib.microvmi_last_error()
            assert self._lib.microvmi_last_error_code() == 0
            yield self.rows()
            if not self.next.value:
                return

    def all(self, begin: int = 0) -> list[Run]:
        return joined(run for rows in self.calls(begin) for run in rows)
