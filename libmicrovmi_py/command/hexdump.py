# SPDX-License-Identifier: Apache-2.0
"""Memory as lines: the address, sixteen bytes, and those of them that are printable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_ROW = 16
_SHOWN = bytes(item if 32 <= item < 127 else ord(".") for item in range(256))


def lines(pieces: Iterable[tuple[int, bytes]]) -> Iterator[str]:
    """Lines of pieces (address, bytes) that follow each other. Lines like the one before are one ``*``.

    The last line is the address behind the last byte. Pieces are whole rows but for the last one.
    """
    before: bytes | None = None
    starred = False
    end: int | None = None
    for address, data in pieces:
        for offset in range(0, len(data), _ROW):
            row = data[offset : offset + _ROW]
            if row == before:
                if not starred:
                    yield "*"
                starred = True
                continue
            before, starred = row, False
            yield _line(address + offset, row)
        end = address + len(data)
    if end is not None:
        yield f"{end:016x}"


def _line(address: int, row: bytes) -> str:
    halves = f"{row[:8].hex(' '):23}  {row[8:].hex(' '):23}"
    return f"{address:016x}  {halves}  |{row.translate(_SHOWN).decode()}|"
