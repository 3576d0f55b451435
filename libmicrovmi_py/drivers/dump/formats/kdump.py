# SPDX-License-Identifier: Apache-2.0
"""kdump-compressed files, as makedumpfile, QEMU and libvirt write them: every page is compressed by itself.

Blocks of header, sub header and two bitmaps of pages (those that exist, those that are in the file), then 24 bytes for
each page of the second: offset, size, flags. https://github.com/makedumpfile/makedumpfile, diskdump_mod.h.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import add

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.drivers.dump import notes
from libmicrovmi_py.drivers.dump.bitmap import runs
from libmicrovmi_py.drivers.dump.contents import Contents, Processors
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.kinds import plausible
from libmicrovmi_py.drivers.dump.known import FORMATS
from libmicrovmi_py.errors import AccessError, DriverUnavailableError, IoError
from libmicrovmi_py.model import PHYSICAL_BITS, Architecture
from libmicrovmi_py.transport.native import give_way

if TYPE_CHECKING:
    from array import array

    from libmicrovmi_py.drivers.dump.codecs import Unpack

_MAGIC = FORMATS["kdump"]
_MACHINE = slice(272, 272 + 65)
_MACHINES = {
    **dict.fromkeys((b"x86_64", b"i386", b"i586", b"i686"), Architecture.X86),
    b"aarch64": Architecture.AARCH64,
}
_UNTOLD = (b"Unknown", b"")
"""What QEMU since version 9 writes for every machine, and what others leave empty."""
_PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
_INCOMPLETE = 8
_DESCRIPTOR = struct.Struct("<Q2I8x")
_AT_ONCE = 1 << 16
"""So many descriptors are checked at once."""


class _Writer(NamedTuple):
    """Where a 64-bit and a 32-bit program put things: the status in the header, the others in the sub header."""

    wide: bool
    status: int
    split: int
    notes: struct.Struct
    pages: int


_WRITERS = (
    _Writer(True, 424, 12, struct.Struct("<48x2Q"), 96),
    _Writer(False, 412, 8, struct.Struct("<32xQI"), 72),
)


class _Header(NamedTuple):
    """What is needed of the two headers; ``block`` in bytes, ``blocks`` of bitmap, ``pages`` is one past the last."""

    writer: _Writer
    version: int
    block: int
    sub: int
    blocks: int
    pages: int
    machine: bytes


def _header(image: Image) -> _Header:
    content = image.read(0, 444, "the header")
    if not content.startswith(_MAGIC):
        raise image.damaged("there is no header of a kdump file")
    writer, (status, block, sub, blocks, pages) = _writer(image, content)
    (version,) = struct.unpack_from("<i", content, 8)
    if status & _INCOMPLETE:
        raise image.damaged("it says that it was not finished")
    if version >= 2 and _word(image, "<I", block + writer.split):
        raise image.refused("one part of a kdump file", "join the parts: makedumpfile --reassemble")
    if version >= 6:
        pages = _word(image, "<Q", block + writer.pages)
    machine = content[_MACHINE].partition(b"\0")[0]
    return _Header(writer, version, block, sub, blocks, pages, machine)


def _writer(image: Image, content: bytes) -> tuple[_Writer, tuple[int, ...]]:
    """Who wrote the header, by where the size of a page is one; its status, that size, and the three words after it."""
    for writer in _WRITERS:
        words = struct.unpack_from("<5I", content, writer.status)
        if words[1] in _PAGE_SIZES:
            return writer, words
    raise image.damaged("its pages have a size that no machine has")


def _word(image: Image, layout: str, offset: int) -> int:
    (word,) = struct.unpack(layout, image.read(offset, struct.calcsize(layout), "the sub header"))
    return int(word)


class Pages:
    """The pages of a file.

    ``_starts``, ``_ends`` and ``_before`` tell of each run of pages: its first, one past its last, and how many are in
    the runs before it.
    """

    def __init__(self, image: Image, header: _Header) -> None:
        self._image, self._block = image, header.block
        bitmaps = (1 + header.sub) * header.block
        half = header.blocks * header.block // 2
        self._table = bitmaps + 2 * half
        if -(-header.pages // 8) > half or header.pages * header.block > 1 << PHYSICAL_BITS:
            raise image.damaged(f"bitmaps of {half:#x} bytes are too short for {header.pages:#x} pages")
        image.check(bitmaps, 2 * half, "the bitmaps of pages")
        self._starts, self._ends, self._before = _words("Q"), _words("Q"), _words("Q")
        count = self._find_runs(runs(image, bitmaps + half, header.pages))
        self.exists = self._bytes(runs(image, bitmaps, header.pages))
        """(start, end) of the memory that the machine had: the first bitmap has what was left out as well."""
        self._codecs = self._load(self._check_descriptors(count))

    def _find_runs(self, found: Iterator[tuple[int, int]]) -> int:
        count = 0
        for first, end in found:
            self._starts.append(first)
            self._ends.append(end)
            self._before.append(count)
            count += end - first
            self._image.check(self._table, count * _DESCRIPTOR.size, f"descriptors of {count:#x} pages")
        return count

    def _check_descriptors(self, count: int) -> set[int]:
        """See that every page lies in the file and is no longer than it can be; the flags that there are."""
        flags: set[int] = set()
        for first in range(0, count, _AT_ONCE):
            size = min(_AT_ONCE, count - first) * _DESCRIPTOR.size
            content = self._image.read(self._table + first * _DESCRIPTOR.size, size, "descriptors of pages")
            offsets, fields = _words("Q", content)[0::3], _words("I", content)
            sizes = fields[2::6]
            flags.update(fields[3::6])
            lengths = set(sizes)
            if min(lengths) == 0 or max(lengths) > self._block:
                raise self._image.damaged(f"a page would have {min(lengths)} bytes, or {max(lengths)}")
            if max(offsets) + max(lengths) <= self._image.size:
                continue
            end = max(map(add, offsets, sizes))
            if end > self._image.size:
                raise self._image.damaged(f"a page would end at {end:#x}, the file ends at {self._image.size:#x}")
        return flags

    def _load(self, flags: set[int]) -> Mapping[int, Unpack]:
        """The codecs for these flags; the others are not needed."""
        from libmicrovmi_py.drivers.dump.codecs import CODECS

        found = {}
        for flag in flags - {0}:
            if flag not in CODECS:
                raise self._image.refused(f"a kdump file with pages of kind {flag:#x}", "make one with zlib")
            name, make = CODECS[flag]
            try:
                found[flag] = make()
            except DriverUnavailableError as err:
                raise DriverUnavailableError(f"{self._image.path} is compressed with {name}: {err}") from err
        return found

    def ranges(self) -> Sequence[tuple[int, int]]:
        """(start, end) of the memory that is in the file, in bytes."""
        return self._bytes(zip(self._starts, self._ends, strict=True))

    def _bytes(self, found: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(first * self._block, end * self._block) for first, end in found]

    def read_range(self, address: int, buffer: memoryview) -> int:
        """Fill ``buffer`` up to the first page that is not in the file; the length of that."""
        first, end = address // self._block, -(-(address + len(buffer)) // self._block)
        run = bisect.bisect_right(self._starts, first) - 1
        if run < 0 or first >= self._ends[run]:
            return 0
        count, index = min(end, self._ends[run]) - first, self._before[run] + first - self._starts[run]
        place = self._table + index * _DESCRIPTOR.size
        table = self._image.read(place, count * _DESCRIPTOR.size, "descriptors of pages")
        done, begin = 0, address % self._block
        for offset, size, flags in _DESCRIPTOR.iter_unpack(table):
            length = min(self._block - begin, len(buffer) - done)
            content = self._page(offset, size, flags, address + done, done)
            buffer[done : done + length] = memoryview(content)[begin : begin + length]
            done, begin = done + length, 0
            give_way()
        return done

    def _page(self, offset: int, size: int, flags: int, address: int, done: int) -> bytes:
        try:
            packed = self._image.read(offset, size, f"the page of physical address {address:#x}")
            content = self._codecs[flags](packed, self._block) if flags else packed
            if len(content) != self._block:
                raise ValueError(f"it has {len(content)} bytes")
        except (ValueError, KeyError, AccessError) as err:
            text = f"{self._image.path}: the page of physical address {address:#x} is damaged: {err}"
            raise IoError(text, address=address, completed=done) from err
        return content


def _processors(image: Image, header: _Header) -> Processors:
    if header.version < 4:
        return Processors()
    layout = header.writer.notes
    offset, size = layout.unpack(image.read(header.block, layout.size, "the sub header"))
    if size > notes.MAX_SIZE:
        raise image.damaged("its notes are longer than any machine's")
    try:
        content, machine = image.read(offset, size, "notes"), _MACHINES.get(header.machine)
        told = header.machine not in _UNTOLD
        return notes.processors(content, wide=header.writer.wide, machine=machine, told=told)
    except ValueError as err:
        raise image.damaged(str(err)) from None


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    header = _header(image)
    pages, processors = Pages(image, header), _processors(image, header)
    known = pages.exists if plausible(pages.exists) else pages.ranges()
    return Contents(pages, processors, known, whole=known == pages.ranges())


def _words(kind: str, content: bytes = b"") -> array[int]:
    from array import array  # of all that opens an image only this needs it

    return array(kind, content)
