# SPDX-License-Identifier: Apache-2.0
"""A picture as SVG: axis and legend are text, the cells an image of a pixel each within the file."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape

from libmicrovmi_py.tools.picture import png
from libmicrovmi_py.tools.picture.contents import Picture
from libmicrovmi_py.tools.picture.palette import LOOKS, amount, columns, place, share, ticks

SIDE = 640
"""How wide the cells are drawn; their height follows."""

LEFT, TOP, LEGEND = 96, 56, 290

_STYLE = """
text { font-family: system-ui, "DejaVu Sans", sans-serif; font-size: 13px; fill: #20242a }
.title { font-size: 18px; font-weight: 600 }
.minor { fill: #5b6470; font-size: 12px }
.line { stroke: #8a939e }
"""


def chart(picture: Picture, title: str) -> str:
    """The text of an SVG file."""
    rows = -(-len(picture.cells) // columns(picture))
    stretch = 2 if rows * 2 <= columns(picture) else 1  # for a picture that is about square
    height = max(SIDE * rows * stretch // columns(picture), 1)
    whole = max(TOP + height + 24, TOP + 44 * len(LOOKS) + 24)
    size = f"{amount(picture.size)}, {amount(picture.cell)} a dot"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + SIDE + LEGEND} {whole}" role="img">',
            "<!-- SPDX-License-Identifier: Apache-2.0 -->",
            f"<title>{_safe(title)}</title>",
            f"<style>{_STYLE}</style>",
            '<rect width="100%" height="100%" rx="8" fill="#f4f5f7"/>',
            f'<text class="title" x="{LEFT}" y="26">{_safe(title)}</text>',
            f'<text class="minor" x="{LEFT}" y="44">{size}</text>',
            *_axis(picture, height),
            _image(picture, height),
            *_legend(picture),
            "</svg>\n",
        ]
    )


def _safe(text: str) -> str:
    """Text that is the user's or a guest's, without what XML has no place for."""
    return escape("".join(character if character.isprintable() else "?" for character in text))


def _image(picture: Picture, height: int) -> str:
    cells = base64.b64encode(png.cells(picture)).decode()
    return (
        f'<image x="{LEFT}" y="{TOP}" width="{SIDE}" height="{height}" preserveAspectRatio="none"'
        f' style="image-rendering: pixelated" href="data:image/png;base64,{cells}"/>'
        f'<rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{height}" fill="none" class="line"/>'
    )


def _axis(picture: Picture, height: int) -> Iterator[str]:
    rows = -(-len(picture.cells) // columns(picture))
    for address in ticks(picture, min(max(height // 18, 1), 16)):
        y = TOP + address // picture.cell // columns(picture) * height / rows
        yield f'<path class="line" d="M{LEFT - 6} {y:.1f}h6"/>'
        yield f'<text x="{LEFT - 10}" y="{y + 4.5:.1f}" text-anchor="end">{place(address)}</text>'


def _legend(picture: Picture) -> Iterator[str]:
    left = LEFT + SIDE + 24
    for index, (content, count) in enumerate(picture.totals().items()):
        top = TOP + index * 44
        look = LOOKS[content]
        yield f'<rect x="{left}" y="{top}" width="16" height="16" rx="3" fill="{look.light}" class="line"/>'
        told = _safe(f"{amount(count)}, {share(count, picture.size)}")
        name = f'<tspan font-weight="600">{content.name.lower()}</tspan>'
        yield f'<text x="{left + 26}" y="{top + 13}">{name} {told}</text>'
        yield f'<text class="minor" x="{left + 26}" y="{top + 29}">{look.meaning}</text>'
