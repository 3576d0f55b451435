# SPDX-License-Identifier: Apache-2.0
"""Raw: byte N of the file is guest-physical address N, but for what ``hole=`` or ``map=`` say.

Every file that is nothing else is taken for it. The RAM file of a hypervisor has the memory above the hole below 4 GiB
right behind that below it: where the firmware's tables in it show that, it is said.
"""

from __future__ import annotations

from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.firmware import told
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.kinds import joined
from libmicrovmi_py.drivers.dump.layout import Extent, laid_out
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.model import PHYSICAL_BITS

_4_GIB = 1 << 32
_SMALLEST = 1 << 31
"""No machine of less memory has any above 4 GiB."""
_FORM = "START-END@OFFSET, several of them with commas"


def read(image: Image) -> Contents:
    """The memory in the file. If it ends within a frame, the frame exists up to there."""
    options = image.opening.options
    if options.hole and options.map:
        raise InvalidArgumentError("hole= and map= cannot be given both: map= says all")
    if options.map:
        return Contents(_mapped(image, options.map))
    if options.hole:
        start, end = _span("hole", options.hole, options.hole)
        if start >= image.size:
            raise InvalidArgumentError(f"hole={options.hole}: the file has {image.size:#x} bytes, all of them below it")
        return Contents([Extent(0, start, 0), Extent(end, image.size - start, start)][not start :])
    _hint(image)
    return Contents([Extent(0, image.size, 0)])


def _mapped(image: Image, text: str) -> list[Extent]:
    extents: list[Extent] = []
    for item in text.split(","):
        span, _, offset = item.partition("@")
        start, end = _span("map", text, span)
        place = _number("map", text, offset)
        size = image.clipped(place, end - start, f"memory from {start:#x} on")
        extents.append(Extent(start, size, place))
    if len(extents) > MAX_PIECES or sum(item.size for item in extents) != sum(item.size for item in laid_out(extents)):
        raise InvalidArgumentError(f"map={text}: an address is there twice")
    return laid_out(extents)


def _span(key: str, text: str, span: str) -> tuple[int, int]:
    first, _, last = span.partition("-")
    start, end = _number(key, text, first), _number(key, text, last)
    if not start < end <= 1 << PHYSICAL_BITS:
        raise InvalidArgumentError(f"{key}={text}: {span} is no range of addresses")
    return start, end


def _number(key: str, text: str, number: str) -> int:
    try:
        return int(number, 0)
    except ValueError:
        form = _FORM if key == "map" else "START-END, one past the last address"
        raise InvalidArgumentError(f"{key}={text}: write {form}") from None


def _hint(image: Image) -> None:
    """Say it if what the firmware told the guest of its memory fits the file's size, but not its addresses."""
    if image.size <= _SMALLEST:
        return
    spans = joined(
        [
            *told(
                lambda address, size: (
                    image.read(address, min(size, image.size - address), "memory") if address < image.size else b""
                )
            ),
            (0, 1 << 20),
        ]
    )
    low = spans[0][1]
    if len(spans) < 2 or low >= _4_GIB or spans[-1][1] <= image.size or spans[1][0] < _4_GIB:
        return
    if abs(sum(end - start for start, end in spans) - image.size) <= 1 << 20:
        hole = f"hole={low:#x}-{spans[1][0]:#x}"
        image.opening.say(f"{image.path} seems to have memory from {spans[1][0]:#x} on right at {low:#x}: say {hole}")
