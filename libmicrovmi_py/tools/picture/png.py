# SPDX-License-Identifier: Apache-2.0
"""A picture as PNG: the cells, an axis of addresses and a legend, in a palette."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from libmicrovmi_py.tools.picture.contents import Content, Picture
from libmicrovmi_py.tools.picture.font import ADVANCE, HEIGHT, glyph
from libmicrovmi_py.tools.picture.palette import LOOKS, amount, columns, place, share, ticks

GROUND, INK = len(Content), len(Content) + 1
"""Numbers of two more colours: what is around the picture, and what is written."""

_COLOURS = [*(LOOKS[content].light for content in Content), "#f4f5f7", "#20242a"]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"

LEAST_WIDTH = 512
"""A small machine's cells are drawn larger, until they are so wide, in pixels."""

MARGIN_LEFT, MARGIN_TOP, MARGIN = 120, 40, 20
_LEGEND = 26
_SIZE = 2


def encode(width: int, rows: Sequence[bytes | bytearray], colours: Sequence[str], text: str = "") -> bytes:
    """A PNG file: ``rows`` of ``width`` numbers of ``colours`` (``#rrggbb``), and a title."""
    header = struct.pack(">2I5B", width, len(rows), 8, 3, 0, 0, 0)
    palette = b"".join(bytes.fromhex(colour[1:]) for colour in colours)
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 6)
    title = [_chunk(b"tEXt", b"Title\0" + text.encode("latin-1", "replace"))] if text else []
    parts = [_chunk(b"IHDR", header), _chunk(b"PLTE", palette), *title, _chunk(b"IDAT", body), _chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def cells(picture: Picture) -> bytes:
    """The cells alone, one pixel each."""
    wide = columns(picture)
    rows = [_padded(picture.cells[start : start + wide], wide) for start in range(0, len(picture.cells), wide)]
    return encode(wide, rows, _COLOURS)


def _padded(row: bytes, wide: int) -> bytes:
    return row.ljust(wide, bytes([GROUND]))


def scale(picture: Picture) -> int:
    """Pixels of a cell, across and down."""
    return max(LEAST_WIDTH // columns(picture), 1)


def chart(picture: Picture, title: str) -> bytes:
    """The whole picture, as a PNG file."""
    wide, times = columns(picture), scale(picture)
    canvas = _Canvas(MARGIN_LEFT + max(wide * times, LEAST_WIDTH) + MARGIN)
    canvas.grow(MARGIN_TOP)
    canvas.write(MARGIN_LEFT, 12, title)
    for start in range(0, len(picture.cells), wide):
        row = _enlarged(_padded(picture.cells[start : start + wide], wide), times)
        canvas.add(MARGIN_LEFT, row, times)
    _axis(canvas, picture, wide, times)
    _legend(canvas, picture)
    return encode(canvas.width, canvas.rows, _COLOURS, title)


def _enlarged(row: bytes, times: int) -> bytes:
    return row if times == 1 else b"".join(row[index : index + 1] * times for index in range(len(row)))


def _axis(canvas: _Canvas, picture: Picture, wide: int, times: int) -> None:
    canvas.grow(MARGIN)
    height = (len(canvas.rows) - MARGIN_TOP - MARGIN) // (HEIGHT * _SIZE + 4)
    for address in ticks(picture, min(max(height, 1), 16)):
        line = MARGIN_TOP + address // picture.cell // wide * times
        canvas.rows[line][MARGIN_LEFT - 8 : MARGIN_LEFT - 2] = bytes([INK]) * 6
        text = place(address)
        canvas.write(MARGIN_LEFT - 14 - len(text) * ADVANCE * _SIZE, max(line - 4, MARGIN_TOP - 4), text)


def _legend(canvas: _Canvas, picture: Picture) -> None:
    totals = picture.totals()
    for content, count in totals.items():
        top = len(canvas.rows)
        canvas.grow(_LEGEND)
        canvas.box(MARGIN_LEFT, top, 18, content)
        canvas.write(MARGIN_LEFT + 30, top + 2, content.name.lower())
        canvas.write(MARGIN_LEFT + 150, top + 2, f"{amount(count):>10}  {share(count, picture.size):>8}")
    canvas.grow(MARGIN // 2)


class _Canvas:
    """Rows of numbers of colours that grow downwards."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows: list[bytearray] = []

    def grow(self, count: int) -> None:
        """Empty rows."""
        self.rows += [bytearray([GROUND]) * self.width for _ in range(count)]

    def add(self, left: int, row: bytes, times: int) -> None:
        """The same row several times."""
        line = (bytes([GROUND]) * left + row).ljust(self.width, bytes([GROUND]))
        self.rows += [bytearray(line) for _ in range(times)]

    def box(self, left: int, top: int, side: int, colour: int) -> None:
        """A filled square with a border."""
        for line in range(top, top + side):
            edge = line in (top, top + side - 1)
            inner = INK if edge else colour
            self.rows[line][left : left + side] = bytes([INK, *[inner] * (side - 2), INK])

    def write(self, left: int, top: int, text: str) -> None:
        """Characters, as far as there is room."""
        room = (self.width - left) // (ADVANCE * _SIZE)
        for index, character in enumerate(text[: max(room, 0)]):
            self._draw(left + index * ADVANCE * _SIZE, top, glyph(character))

    def _draw(self, left: int, top: int, dots: Sequence[str]) -> None:
        for y, line in enumerate(dots):
            for x, dot in enumerate(line):
                if dot == "#":
                    for row in range(top + y * _SIZE, top + (y + 1) * _SIZE):
                        self.rows[row][left + x * _SIZE : left + (x + 1) * _SIZE] = bytes([INK]) * _SIZE
