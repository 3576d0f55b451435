# SPDX-License-Identifier: Apache-2.0
"""The files that pictures are: taken apart again, and compared with what they were made of."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import struct
import zlib
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from libmicrovmi_py.model import MemoryKind, MemoryRange
from libmicrovmi_py.tools.picture import page, png, svg
from libmicrovmi_py.tools.picture.contents import Content, Owner, Picture
from libmicrovmi_py.tools.picture.palette import LOOKS, amount, columns, place, share, ticks

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"'\x1b[31m"
CELLS = bytes(index * 7 % 11 % len(Content) for index in range(5000))
PICTURE = Picture(
    CELLS,
    4096,
    5000 * 4096 - 100,
    [MemoryRange(0, 5000 * 4096, MemoryKind.RAM)],
    [Owner(4096, 8192, HOSTILE), Owner(40960, 5000 * 4096, "kernel code")],
)


def decoded(content: bytes) -> tuple[list[bytes], list[str]]:
    """The rows of numbers of a PNG, and the colours, by its own words."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", content, at + 8 + size) == (zlib.crc32(kind + body),)
        chunks[kind] = body
        at += size + 12
    assert next(iter(chunks)) == b"IHDR"
    assert list(chunks)[-1] == b"IEND"
    width, height, depth, colour, packing, filtering, interlaced = struct.unpack(">2I5B", chunks[b"IHDR"])
    assert (depth, colour, packing, filtering, interlaced) == (8, 3, 0, 0, 0)
    lines = zlib.decompress(chunks[b"IDAT"])
    assert len(lines) == height * (width + 1)
    rows = [lines[start : start + width + 1] for start in range(0, len(lines), width + 1)]
    assert all(row[0] == 0 for row in rows)
    colours = [f"#{chunks[b'PLTE'][start : start + 3].hex()}" for start in range(0, len(chunks[b"PLTE"]), 3)]
    return [row[1:] for row in rows], colours


def test_the_pixels_of_a_png_are_the_cells() -> None:
    rows, colours = decoded(png.cells(PICTURE))
    assert b"".join(rows)[: len(CELLS)] == CELLS
    assert set(b"".join(rows)[len(CELLS) :]) == {png.GROUND}
    assert colours[: len(Content)] == [LOOKS[content].light for content in Content]


def test_a_chart_has_each_cell_enlarged_at_its_place() -> None:
    rows, _ = decoded(png.chart(PICTURE, HOSTILE))
    wide, times = columns(PICTURE), png.scale(PICTURE)
    assert times == 4
    for cell, content in enumerate(CELLS):
        x, y = png.MARGIN_LEFT + cell % wide * times, png.MARGIN_TOP + cell // wide * times
        assert {rows[y + line][x + dot] for line in range(times) for dot in range(times)} == {content}


def test_a_machine_of_one_frame_and_one_of_much_have_pictures() -> None:
    for cells in (b"\1", bytes([3]) * 100000):
        picture = Picture(cells, 4096, len(cells) * 4096, [])
        rows, _ = decoded(png.chart(picture, "x"))
        assert png.MARGIN_LEFT < len(rows[0]) < 2000
        ElementTree.fromstring(svg.chart(picture, "x"))
        page.chart(picture, "x")


def test_an_svg_is_xml_with_the_cells_within() -> None:
    root = ElementTree.fromstring(svg.chart(PICTURE, HOSTILE))
    space = "{http://www.w3.org/2000/svg}"
    assert {item.tag.removeprefix(space) for item in root.iter() if isinstance(item.tag, str)} == {
        *("svg", "title", "style", "rect", "text", "tspan", "path", "image")
    }
    (image,) = root.iter(f"{space}image")
    assert image.attrib["href"].startswith("data:image/png;base64,")
    assert base64.b64decode(image.attrib["href"].partition(",")[2]) == png.cells(PICTURE)
    texts = " ".join("".join(item.itertext()) for item in root.iter(f"{space}text"))
    assert all(content.name.lower() in texts for content in Content)
    others = [item for item in root.iter() if item is not image]
    assert not [name for item in others for name in item.attrib if "href" in name or name.startswith("on")]
    assert "url(" not in "".join(root.itertext())


class Parts(HTMLParser):
    """Tags with their attributes, and the texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.texts.append((self.tags[-1][0], data))

    def text_of(self, tag: str, number: int = 0) -> str:
        return [text for name, text in self.texts if name == tag and text.strip()][number]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts(page.chart(PICTURE, HOSTILE))


def test_a_page_refers_to_nothing_outside(parts: Parts) -> None:
    assert not [item for item in parts.tags if item[1].keys() & {"src", "href", "srcset", "data", "action", "style"}]
    assert "url(" not in parts.text_of("style")
    assert not re.search(
        r"https?:|//[a-z]|@import|fetch\(|XMLHttp|innerHTML|insertAdjacent|eval", parts.text_of("script", 1)
    )


def test_a_page_runs_its_own_script_and_no_other(parts: Parts) -> None:
    (policy,) = [item["content"] for tag, item in parts.tags if item.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for rule, text in (("script-src", parts.text_of("script", 1)), ("style-src", parts.text_of("style"))):
        hashed = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{hashed}'"
    assert [item.get("type") for tag, item in parts.tags if tag == "script"] == ["application/json", None]
    assert not [name for _, item in parts.tags for name in item if name.startswith("on")]


def test_what_others_say_is_text_in_a_page(parts: Parts) -> None:
    assert not [tag for tag, _ in parts.tags if tag == "img"]
    assert parts.text_of("title").strip() == HOSTILE
    assert HOSTILE in json.loads(parts.text_of("script"))["names"]


def test_the_data_of_a_page_is_the_picture(parts: Parts) -> None:
    data = json.loads(parts.text_of("script"))
    assert zlib.decompress(base64.b64decode(data["cells"])) == CELLS
    assert (data["size"], data["cell"], data["columns"]) == (PICTURE.size, 4096, columns(PICTURE))
    numbers = struct.unpack("<5000H", zlib.decompress(base64.b64decode(data["owners"])))
    told = [data["names"][number] for number in numbers]
    assert told == ["", HOSTILE, HOSTILE, *[""] * 7, *["kernel code"] * 4990]
    assert data["ranges"] == [[0, 5000 * 4096, "ram"]]
    assert [item["bytes"] for item in data["contents"]] == [PICTURE.totals()[content] for content in Content]


def linear(colour: str) -> list[float]:
    values = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]


def in_lab(rgb: list[float]) -> tuple[float, float, float]:
    """CIELAB: distances are about as eyes see them."""
    rows = ((0.4124, 0.3576, 0.1805, 0.95047), (0.2126, 0.7152, 0.0722, 1.0), (0.0193, 0.1192, 0.9505, 1.08883))
    shares = [sum(a * b for a, b in zip(row, rgb, strict=False)) / row[3] for row in rows]
    x, y, z = (share ** (1 / 3) if share > 0.008856 else 7.787 * share + 16 / 116 for share in shares)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


SEEN = {
    "all colours": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "no red": ((0.1523, 1.0526, -0.2049), (0.1145, 0.7863, 0.0992), (-0.0039, -0.0481, 1.0520)),
    "no green": ((0.3673, 0.8606, -0.2280), (0.2801, 0.6725, 0.0474), (-0.0118, 0.0429, 0.9689)),
    "no blue": ((1.2555, -0.0767, -0.1788), (-0.0784, 0.9308, 0.1476), (0.0047, 0.6914, 0.3039)),
}
"""How linear colours are seen by who has not all receptors (Machado, Oliveira and Fernandes, 2009)."""


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("ground", ["light", "dark"])
def test_everybody_can_tell_the_colours_apart(ground: str, seen: str) -> None:
    colours = []
    for look in LOOKS.values():
        rgb = linear(getattr(look, ground))
        colours.append(
            in_lab([min(max(sum(a * b for a, b in zip(row, rgb, strict=True)), 0), 1) for row in SEEN[seen]])
        )
    nearest = min(
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
        for one, other in itertools.combinations(colours, 2)
    )
    assert nearest > 15


def test_an_axis_has_round_addresses_where_rows_begin() -> None:
    for count in (1, 300, 5000, 1 << 20):
        picture = Picture(bytes([1]) * count, 4096, count * 4096, [])
        addresses = ticks(picture)
        assert 1 <= len(addresses) <= 16
        assert all(address % (columns(picture) * 4096) == 0 for address in addresses)
    assert [place(address) for address in (0, 0x1000, 3 << 20, 5 << 30)] == ["0", "4 KiB", "3 MiB", "5 GiB"]


def test_amounts_are_as_people_read_them() -> None:
    assert [amount(count) for count in (0, 512, 1536, 1 << 30)] == ["0 B", "512 B", "1.5 KiB", "1 GiB"]
    assert [share(count, 10000) for count in (0, 1, 1234, 10000)] == ["0.0 %", "<0.1 %", "12.3 %", "100.0 %"]
