# SPDX-License-Identifier: Apache-2.0
"""The colours of a picture, told apart also by those who do not see all of them, and the words of its legend."""

from __future__ import annotations

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.tools.picture.contents import Content, Picture


class Look(NamedTuple):
    """How a content looks: its colour on a light and on a dark ground (``#rrggbb``), and what it means."""

    light: str
    dark: str
    meaning: str


LOOKS = {
    Content.UNMAPPED: Look("#c8ced8", "#000000", "no memory there"),
    Content.ZERO: Look("#ffffff", "#2c323b", "zeros only"),
    Content.DATA: Look("#8a939e", "#8a939e", "anything else"),
    Content.TEXT: Look("#ffb000", "#ffb000", "characters"),
    Content.CODE: Look("#648fff", "#648fff", "instructions of the processor"),
    Content.POINTERS: Look("#0f8a66", "#0f8a66", "many addresses"),
    Content.RANDOM: Look("#b5179e", "#b5179e", "compressed or encrypted"),
}

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def amount(count: int) -> str:
    """A number of bytes as people read it: ``1.5 GiB``."""
    unit = 0
    value = float(count)
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f}".removesuffix(".0") + f" {_UNITS[unit]}"


def place(address: int) -> str:
    """An address as an axis has it: in the largest unit in which it is whole."""
    unit = 0
    while address and address % 1024 == 0 and unit < len(_UNITS) - 1:
        address, unit = address // 1024, unit + 1
    return f"{address} {_UNITS[unit]}" if address else "0"


def columns(picture: Picture) -> int:
    """How many cells a row has: a power of two, as rows are to begin at round addresses, for about a square."""
    wide = 16
    while wide * wide < len(picture.cells):
        wide *= 2
    return wide


def ticks(picture: Picture, most: int = 16) -> list[int]:
    """Addresses at which rows begin, to be told beside the picture: ``most`` at the most, evenly apart."""
    row = columns(picture) * picture.cell
    step = row
    while picture.size / step > most:
        step *= 2
    return list(range(0, picture.size, step))


def share(count: int, size: int) -> str:
    """A part of all, as a legend has it."""
    percent = 100 * count / size
    return f"{percent:.1f} %" if percent >= 0.05 or not count else "<0.1 %"
