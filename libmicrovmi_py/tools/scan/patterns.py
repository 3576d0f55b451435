# SPDX-License-Identifier: Apache-2.0
"""Patterns to look for: texts, and bytes some of which may be any."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.tools.scan.pieces import MOST_AROUND

_HEX = "hex:"
_TEXT = "text:"


class Pattern(NamedTuple):
    """``word`` is what the user wrote: a text, ``text:`` and a text, or ``hex:`` and digits, where ``??`` is any byte.

    ``anchor`` are bytes of it that stand together, from ``at`` on; ``others`` are the rest: place and byte of each.
    """

    word: str
    size: int
    at: int
    anchor: bytes
    others: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, word: str) -> Pattern:
        """Raises ``InvalidArgumentError`` for what is none, is too long, or is everywhere as it holds zeros alone."""
        known = _bytes(word)
        runs = re.finditer(rb"k+", bytes(b"k"[0] if byte is not None else 0 for byte in known))
        spans = [run.span() for run in runs if any(known[run.start() : run.end()])]
        if not spans or len(known) > MOST_AROUND:
            raise InvalidArgumentError(
                f"pattern {word}: a text or hex:4D5A??00, not all zeros, of {MOST_AROUND} bytes at the most"
            )
        begin, end = max(spans, key=lambda span: span[1] - span[0])
        others = ((at, byte) for at, byte in enumerate(known) if byte is not None and not begin <= at < end)
        return cls(word, len(known), begin, bytes(byte or 0 for byte in known[begin:end]), tuple(others))

    def matches(self, buffer: bytearray, size: int, own: int) -> Iterator[int]:
        """Where it begins within the first ``own`` bytes, and is whole within the first ``size``, overlaps included."""
        found = buffer.find(self.anchor, self.at, size)
        while found >= 0:
            start = found - self.at
            if start >= own:
                return
            if start + self.size <= size and all(buffer[start + at] == byte for at, byte in self.others):
                yield start
            found = buffer.find(self.anchor, found + 1, size)


def _bytes(word: str) -> list[int | None]:
    """The bytes of a word; ``None`` for one that may be any. Empty for what is none."""
    if not word.startswith(_HEX):
        return list(word.removeprefix(_TEXT).encode("utf-8", "surrogateescape"))
    digits = word.removeprefix(_HEX).replace(" ", "")
    pairs = re.findall(r"\?\?|[0-9A-Fa-f]{2}", digits)
    if "".join(pairs) != digits:
        return []
    return [None if pair == "??" else int(pair, 16) for pair in pairs]
