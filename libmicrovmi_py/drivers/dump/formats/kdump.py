# SPDX-License-Identifier: Apache-2.0
"""kdump-compressed files, as makedumpfile, QEMU and libvirt write them: every page is compressed by itself.

Blocks of header, sub header and two bitmaps of pages (those that exist, those that are in the file), then 24 bytes for
each page of the second: offset, size, flags. https://github.com/makedumpfile/makedumpfile, diskdump_mod.h. A part of a
split dump (``makedumpfile --split``) has all of the bitmaps, and the pages of a range that its sub header tells.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator, Mapping
from operator import eq

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.drivers.dump import notes
from libmicrovmi_py.drivers.dump.bitmap import Runs, found, within
from libmicrovmi_py.drivers.dump.contents import Contents, Processors
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.kinds import plausible
from libmicrovmi_py.drivers.dump.layout import Span
from libmicrovmi_py.drivers.dump.pages import PackedPages, Spans
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.splits import Joined, PartOfDump, others
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.model import PHYSICAL_BITS, Architecture
from libmicrovmi_py.transport.native import native

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.dump.codecs import Codec, Unpack
    from libmicrovmi_py.transport.packing import PageCodec

BEGINS = (b"KDUMP   ",)

_MACHINE = slice(272, 272 + 65)
_MACHINES = {
    **dict.fromkeys((b"x86_64", b"i386", b"i586", b"i686"), Architecture.X86),
    b"aarch64": Architecture.AARCH64,
}
_UNTOLD = (b"Unknown", b"")
"""What QEMU since version 9 writes for every machine, and what others leave empty."""
_PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
_INCOMPLETE = 8
_SPLIT, _PAGES = struct.Struct("<I"), struct.Struct("<Q")
_DESCRIPTOR = struct.Struct("<Q2I8x")
_AT_ONCE = 1 << 10
"""So many descriptors are checked at once."""


class _Writer(NamedTuple):
    """Where a 64-bit and a 32-bit program put things: the status in the header, the others in the sub header.

    ``span`` is the range of pages of a part, ``old_span`` that before version 6.
    """

    wide: bool
    status: int
    split: int
    notes: struct.Struct
    pages: int
    span: struct.Struct
    old_span: struct.Struct


_WRITERS = (
    _Writer(True, 424, 12, struct.Struct("<48x2Q"), 96, struct.Struct("<80x2Q"), struct.Struct("<16x2Q")),
    _Writer(False, 412, 8, struct.Struct("<32xQI"), 72, struct.Struct("<56x2Q"), struct.Struct("<12x2I")),
)


class _Header(NamedTuple):
    """What is needed of the two headers; ``block`` in bytes, ``blocks`` of bitmap, ``pages`` is one past the last.

    ``span`` is (first, one past the last) page that a part of a split dump may have, ``None`` for a whole one.
    ``notes`` are where in the file they are, and how many bytes.
    """

    writer: _Writer
    version: int
    block: int
    sub: int
    blocks: int
    pages: int
    machine: bytes
    span: Span | None
    notes: Span


def probe(image: Image) -> Probe:
    """By its signature."""
    return Probe(Sure.CERTAIN, "a kdump file")


def _header(image: Image) -> _Header:
    content = image.read(0, 444, "the header")
    if not content.startswith(BEGINS):
        raise image.damaged("there is no header of a kdump file")
    writer, (status, block, sub, blocks, pages) = _writer(image, content)
    (version,) = struct.unpack_from("<i", content, 8)
    if status & _INCOMPLETE:
        image.amiss("it says that it was not finished")
    more = image.read(block, writer.pages + _PAGES.size, "the sub header") if version >= 2 else b""
    span = _span(image, writer, version, more)
    if version >= 6:
        (pages,) = _PAGES.unpack_from(more, writer.pages)
    place = writer.notes.unpack_from(more) if version >= 4 else (0, 0)
    machine = content[_MACHINE].partition(b"\0")[0]
    return _Header(writer, version, block, sub, blocks, pages, machine, span, place)


def _span(image: Image, writer: _Writer, version: int, more: bytes) -> Span | None:
    if version < 2 or not _SPLIT.unpack_from(more, writer.split)[0]:
        return None
    first, end = (writer.span if version >= 6 else writer.old_span).unpack_from(more)
    if first > end:
        raise image.damaged(f"this part of it would have the pages from {first:#x} to {end:#x}")
    return first, end


def _writer(image: Image, content: bytes) -> tuple[_Writer, tuple[int, ...]]:
    """Who wrote the header, by where the size of a page is one; its status, that size, and the three words after it."""
    for writer in _WRITERS:
        words = struct.unpack_from("<5I", content, writer.status)
        if words[1] in _PAGE_SIZES:
            return writer, words
    raise image.damaged("its pages have a size that no machine has")


@functools.cache
def _codecs() -> Mapping[int, Codec]:
    from libmicrovmi_py.drivers.dump.codecs import CODECS  # of whom opens another dump, nobody needs it

    return CODECS


class Pages(PackedPages):
    """The pages of a file; they are called by the numbers of their descriptors."""

    def __init__(self, image: Image, header: _Header) -> None:
        super().__init__(image, header.block)
        bitmaps = (1 + header.sub) * header.block
        half = header.blocks * header.block // 2
        self._table = bitmaps + 2 * half
        if -(-header.pages // 8) > half or header.pages * header.block > 1 << PHYSICAL_BITS:
            raise image.damaged(f"bitmaps of {half:#x} bytes are too short for {header.pages:#x} pages")
        image.check(bitmaps, 2 * half, "the bitmaps of pages")
        existing, there = found(image, bitmaps, header.pages), found(image, bitmaps + half, header.pages)
        self.exists = Spans(existing.starts, existing.ends, self.size)
        """(start, end) of the memory that the machine had: the first bitmap has what was left out as well."""
        count = self._add_runs(there if header.span is None else within(there, header.span))
        codecs = self._codecs_of(self._check_descriptors(count))
        self._unpack: dict[int, Unpack] = {}
        self.read_in_c(codecs, table=self._table)

    def _add_runs(self, runs: Runs) -> int:
        """How many pages there are whose descriptors are in the file."""
        self.add_all(*runs[:3])
        size = runs.pages * _DESCRIPTOR.size
        there = self.image.clipped(self._table, size, f"descriptors of {runs.pages:#x} pages") // _DESCRIPTOR.size
        if there < runs.pages:
            self.leave_out([(there, runs.pages)])
        return there

    def _check_descriptors(self, count: int) -> int:
        """See that pages lie in the file and are no longer than they can be; all bits of their flags.

        Those of the first and the last pages: a file that was cut lacks the last ones. With ``partial`` those of all.
        """
        (ffi, lib), image = native(), self.image
        flags = ffi.new("uint32_t *")
        lost: list[Span] = []
        starts: Iterable[int] = range(0, count, _AT_ONCE)
        if starts and not image.opening.options.partial:
            starts = sorted({0, max(count - _AT_ONCE, 0)})
        for first in starts:
            end = min(first + _AT_ONCE, count)
            size = (end - first) * _DESCRIPTOR.size
            content = image.read(self._table + first * _DESCRIPTOR.size, size, "descriptors of pages")
            if lib.mvi_descriptors_look(content, end - first, self.size, image.size, flags) < end - first:
                image.amiss(self._wrong(content))
                lost += self._lost(content, first)
        if lost:
            self.leave_out(lost)
        return int(flags[0])

    def _wrong(self, content: bytes) -> str:
        """What is wrong with some of these pages."""
        lengths = {size for _, size, _ in _DESCRIPTOR.iter_unpack(content)}
        if min(lengths) == 0 or max(lengths) > self.size:
            return f"a page would have {min(lengths)} bytes, or {max(lengths)}"
        end = max(offset + size for offset, size, _ in _DESCRIPTOR.iter_unpack(content))
        return f"a page would end at {end:#x}, the file ends at {self.image.size:#x}"

    def _lost(self, content: bytes, first: int) -> Iterator[tuple[int, int]]:
        """(first, one past the last) descriptor of pages that are not there, of those in ``content``."""
        for index, (offset, size, _) in enumerate(_DESCRIPTOR.iter_unpack(content), first):
            if not 0 < size <= self.size or offset + size > self.image.size:
                yield index, index + 1

    def _codecs_of(self, flags: int) -> list[PageCodec]:
        """What C unpacks pages with whose flags have one of these bits."""
        codecs, found = _codecs(), []
        while flags:
            flag = flags & -flags
            flags ^= flag
            if flag not in codecs:
                raise self.image.refused(f"a kdump file with pages of kind {flag:#x}", "make one with zlib")
            try:
                found.append(codecs[flag].native(flag))
            except DriverUnavailableError as err:
                if codecs[flag].needed:
                    text = f"{self.image.path} is compressed with {codecs[flag].name}: {err}"
                    raise DriverUnavailableError(text) from err
        return found

    def _unpacked(self, packed: bytes, flag: int) -> bytes:
        """A page that C did not unpack. Raises as ``page``."""
        if flag not in self._unpack:
            if flag not in (codecs := _codecs()):
                raise ValueError(f"it is of kind {flag:#x}")
            self._unpack[flag] = codecs[flag].make()
        return self._unpack[flag](packed, self.size)

    def unpacked(self, index: int, count: int) -> Iterator[bytes]:
        """Their descriptors are read at once."""
        place = self._table + index * _DESCRIPTOR.size
        table = self.image.read(place, count * _DESCRIPTOR.size, "descriptors of pages")
        for offset, size, flags in _DESCRIPTOR.iter_unpack(table):
            packed = self.image.read(offset, size, "a page")
            yield self._unpacked(packed, flags) if flags else packed


def _processors(image: Image, header: _Header) -> Processors:
    if header.version < 4:
        return Processors()
    offset, size = header.notes
    if size > notes.MAX_SIZE:
        raise image.damaged("its notes are longer than any machine's")
    try:
        content, machine = image.read(offset, size, "notes"), _MACHINES.get(header.machine)
        told = header.machine not in _UNTOLD
        return notes.processors(content, wide=header.writer.wide, machine=machine, told=told)
    except ValueError as err:
        image.amiss(str(err))
        return Processors()


def _joined(image: Image, header: _Header, pages: Pages) -> Joined:
    """A part with the others of its dump."""
    found = [PartOfDump(header.span or (0, 0), pages)]
    for other in others(image, header.block):
        its = _header(other)
        alike = its._replace(span=None, notes=(0, 0)) == header._replace(span=None, notes=(0, 0))
        if its.span is None or not alike:
            if image.opening.options.parts is not None:
                raise other.refused(f"no part of the dump of {image.path}", "name those with parts=")
        elif its.span != header.span:
            found.append(PartOfDump(its.span, Pages(other, its)))
    return Joined(image, found, header.pages)


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    header = _header(image)
    pages, processors = Pages(image, header), _processors(image, header)
    memory = pages if header.span is None else _joined(image, header, pages)
    known = pages.exists if plausible(pages.exists) else memory.ranges()
    there = memory.ranges()
    whole = len(known) == len(there) and all(map(eq, known, there))
    machine = header.machine.decode("ascii", "replace") if header.machine not in _UNTOLD else ""
    return Contents(memory, processors, known, whole, producer=processors.producer, machine=machine)
