# SPDX-License-Identifier: Apache-2.0
"""HVM and PVH domains that Xen saved: ``xl save``. Headers of xl and of libxl, then libxc's stream of records.

Records have a type, a length and a body that is padded to 8 bytes. PAGE_DATA has numbers of frames with what they are,
and the pages of those that there are: in a stream of a live domain some come more than once, and the last one holds.
https://xenbits.xen.org/docs/unstable/specs/libxl-migration-stream.html, .../libxc-migration-stream.html.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.drivers.dump.contents import Contents, Processors
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.layout import Extent, joined, laid_out
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.xendomain import DomainKinds, runs
from libmicrovmi_py.drivers.saved import xenstate
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE, PHYSICAL_BITS

if TYPE_CHECKING:
    from array import array

BEGINS = (
    b"Xen saved domain, xl format\n \0 \r",
    b"LibxlFmt",
    b"\xff\xff\xff\xff\xff\xff\xff\xffXENF",
)

_XL, _LIBXL, _LIBXC = BEGINS
_XL_HEADER = struct.Struct("<32s4I")
_ORDER, _SECOND = 0x01020304, 1 << 1
"""What the order of bytes is told by, and the flag of xl for streams of libxl's second version."""
_LIBXL_HEADER = struct.Struct(">8s2I")
_LIBXC_HEADER = struct.Struct(">12sIH6x")
_DOMAIN = struct.Struct("<IH2x2I")
_RECORD = struct.Struct("<2I")
_PAGES_HEADER = struct.Struct("<I4x")
_CONTEXT = 1
_END, _PAGES, _STATE = 0, 1, 9
_MOST_RECORDS = 1 << 22
_MOST_PAGES = 1 << 16
"""Of a record; Xen writes 1024."""
_LARGEST_STATE = 64 << 20
_TYPE, _NOT_THERE = 60, (0xD, 0xE, 0xF)
"""Where a number has what its frame is, and what frames are that have no page: broken, to be allocated, invalid."""
_GONE = 1 << 62
"""Beyond all files: where the pages of frames that became invalid are."""
_LEGACY = "convert it: convert-legacy-stream"
_WAY_OUT = "restore the domain and open that, or make a core: xl dump-core"


class _Found(NamedTuple):
    """What is in a stream: extents in its order, the state of the vCPUs, and which Xen wrote it."""

    extents: list[Extent]
    state: bytes
    producer: str


def probe(image: Image) -> Probe:
    """By its first header."""
    return Probe(Sure.CERTAIN, "a saved domain of Xen")


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    found = _stream(image, _begin(image))
    extents = [extent for extent in laid_out(reversed(found.extents)) if extent.offset < _GONE]
    exists = [(extent.start, extent.end) for extent in extents]
    processors = _processors(image, found.state)
    kinds = DomainKinds(exists)
    return Contents(extents, processors, exists, producer=found.producer, machine="x86_64", kinds=kinds)


def _begin(image: Image) -> int:
    """Where libxc's stream begins."""
    position = 0
    if image.start.startswith(_XL):
        _, order, flags, _, size = _XL_HEADER.unpack(image.read(0, _XL_HEADER.size, "the header of xl"))
        if order != _ORDER:
            raise image.refused("a saved domain of Xen with big-endian numbers", _WAY_OUT)
        if not flags & _SECOND:
            raise image.refused("a saved domain of a Xen before 4.6", _LEGACY)
        position = _XL_HEADER.size + size
    if image.has(position, len(_LIBXC)) and image.read(position, len(_LIBXC), "a header") == _LIBXC:
        return position
    return _inside_libxl(image, position)


def _inside_libxl(image: Image, position: int) -> int:
    """The same of libxl's stream, in which libxc's follows an empty record."""
    header = image.read(position, _LIBXL_HEADER.size, "the header of libxl")
    magic, version, options = _LIBXL_HEADER.unpack(header)
    if magic != _LIBXL:
        raise image.damaged(f"there is no header of libxl at {position:#x}")
    if version != 2 or options & 1:
        raise image.refused(f"a saved domain of Xen of version {version} with options {options:#x}", _WAY_OUT)
    position += _LIBXL_HEADER.size
    for _ in range(_MOST_RECORDS):
        kind, size = _RECORD.unpack(image.read(position, _RECORD.size, "a record of libxl"))
        position += _RECORD.size + size + -size % 8
        if kind == _CONTEXT:
            return position
        if kind == _END:
            break
    raise image.damaged("its stream has no memory of the domain")


def _stream(image: Image, position: int) -> _Found:
    """Read libxc's stream up to its end."""
    header = image.read(position, _LIBXC_HEADER.size, "the header of libxc")
    magic, version, options = _LIBXC_HEADER.unpack(header)
    if magic != _LIBXC:
        raise image.damaged(f"there is no header of libxc at {position:#x}")
    if version not in (2, 3) or options & 1:
        raise image.refused(f"a saved domain of Xen of version {version} with options {options:#x}", _WAY_OUT)
    position += _LIBXC_HEADER.size
    kind, shift, major, minor = _DOMAIN.unpack(image.read(position, _DOMAIN.size, "the header of the domain"))
    if kind == 1:
        raise image.refused("a saved paravirtual domain of Xen", "only HVM and PVH domains are read")
    if kind != 2 or shift != PAGE_SHIFT:
        raise image.damaged(f"its domain is of kind {kind}, with pages of 2^{shift} bytes")
    extents, state = _records(image, position + _DOMAIN.size)
    return _Found(extents, state, f"Xen {major}.{minor}" if major else "Xen")


def _records(image: Image, position: int) -> tuple[list[Extent], bytes]:
    """The memory, and the state of vCPUs and devices."""
    memory, state = _Memory(image), b""
    for _ in range(_MOST_RECORDS):
        if not image.has(position, _RECORD.size):
            break
        kind, size = _RECORD.unpack(image.read(position, _RECORD.size, "a record"))
        position += _RECORD.size
        if kind == _END:
            return memory.extents, state
        if kind == _PAGES:
            memory.add(position, size)
        elif kind == _STATE:
            if size > _LARGEST_STATE:
                raise image.damaged(f"the state of its vCPUs would have {size:#x} bytes")
            state = image.read(position, image.clipped(position, size, "the state of its vCPUs"), "a state")
        position += size + -size % 8
    image.amiss(f"its stream goes on at {position:#x}, and it ends at {image.size:#x}")
    return memory.extents, state


class _Memory:
    """The memory of a stream, record by record."""

    def __init__(self, image: Image) -> None:
        self.extents: list[Extent] = []
        self._image = image
        self._end = 0

    def add(self, position: int, size: int) -> None:
        """Add what is there of a record of pages. Raises ``IoError`` for one that contradicts itself."""
        end = position + size
        what = f"a record of pages at {position:#x}"
        if self._image.clipped(position, _PAGES_HEADER.size, what) < _PAGES_HEADER.size:
            return
        (count,) = _PAGES_HEADER.unpack(self._image.read(position, _PAGES_HEADER.size, what))
        if not 0 < count <= _MOST_PAGES:
            raise self._image.damaged(f"{what} would have {count} of them")
        position += _PAGES_HEADER.size
        if self._image.clipped(position, 8 * count, what) < 8 * count:
            return
        numbers = words("Q", self._image.read(position, 8 * count, what))
        position += 8 * count
        for extent in self._pieces(numbers, position):
            self._keep(extent)
            position += extent.size if extent.offset < _GONE else 0
        if position != end:
            raise self._image.damaged(f"{what} would end at {position:#x}, and not at {end:#x}")

    def _pieces(self, numbers: array[int], offset: int) -> Iterator[Extent]:
        """Frames that follow each other, in the record's order; their pages lie from ``offset`` on."""
        for _, number, count in runs(numbers):
            kind, first = divmod(number, 1 << _TYPE)
            start, size = first << PAGE_SHIFT, count << PAGE_SHIFT
            if start + size > 1 << PHYSICAL_BITS:
                raise self._image.damaged(f"memory would be at {start:#x}")
            there = kind not in _NOT_THERE
            yield Extent(start, size, offset if there else _GONE + start)
            offset += size if there else 0

    def _keep(self, extent: Extent) -> None:
        """A frame without a page counts only if it had one before."""
        if extent.offset < _GONE:
            size = self._image.clipped(extent.offset, extent.size, f"memory from {extent.start:#x} on")
            extent = extent._replace(size=size & -PAGE_SIZE)
        elif extent.start >= self._end:
            return
        self._end = max(self._end, extent.end)
        self.extents[-1:] = joined([*self.extents[-1:], extent])
        if len(self.extents) > MAX_PIECES:
            raise self._image.refused(f"a saved domain of Xen of more than {MAX_PIECES} pieces", _WAY_OUT)


def _processors(image: Image, state: bytes) -> Processors:
    if not state:
        return Processors()
    try:
        count = xenstate.count(state)
        return Processors(count, xenstate.states(state, range(count)), producer="Xen")
    except IoError as err:
        image.amiss(str(err))
        return Processors()
