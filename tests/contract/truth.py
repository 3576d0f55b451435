# SPDX-License-Identifier: Apache-2.0
"""What reads of a stand's memory have to give, out of its pieces."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

PAGE = 4096


@dataclass(frozen=True)
class Truth:
    """Memory that exists: spans (start, bytes), ascending, adjacent pieces joined."""

    spans: tuple[tuple[int, bytes], ...]

    @classmethod
    def of(cls, pieces: Mapping[int, bytes]) -> Truth:
        """Join what is adjacent; pieces must not overlap."""
        joined: list[tuple[int, list[bytes]]] = []
        end = -1
        for start, content in sorted(pieces.items()):
            assert start >= end, f"the piece at {start:#x} overlaps the one before"
            if start == end:
                joined[-1][1].append(content)
            else:
                joined.append((start, [content]))
            end = start + len(content)
        return cls(tuple((start, b"".join(parts)) for start, parts in joined))

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """(start, end) of each span."""
        return [(start, start + len(content)) for start, content in self.spans]

    @property
    def holes(self) -> list[tuple[int, int]]:
        """(start, end) between spans."""
        ends, starts = [end for _, end in self.ranges], [start for start, _ in self.ranges]
        before = [(0, starts[0])] if starts[0] else []
        return [*before, *zip(ends[:-1], starts[1:], strict=True)]

    def valid(self, address: int, size: int) -> bytes:
        """The valid prefix of a read."""
        index = bisect_right(self.spans, address, key=lambda span: span[0]) - 1
        if index < 0:
            return b""
        start, content = self.spans[index]
        return content[address - start : address - start + size]

    def padded(self, address: int, size: int) -> bytes:
        """The same with zeros where nothing exists."""
        whole, end = bytearray(size), address + size
        for start, content in self.spans:
            first, last = max(start, address), min(start + len(content), end)
            if first < last:
                whole[first - address : last - address] = content[first - start : last - start]
        return bytes(whole)

    def edges(self) -> list[int]:
        """Every address at which memory begins or ends."""
        return sorted({address for pair in self.ranges for address in pair})

    def frames(self) -> list[int]:
        """The address of every frame boundary within a span."""
        first = [(start // PAGE + 1) * PAGE for start, _ in self.ranges]
        return [
            boundary for begin, (_, end) in zip(first, self.ranges, strict=True) for boundary in range(begin, end, PAGE)
        ]
