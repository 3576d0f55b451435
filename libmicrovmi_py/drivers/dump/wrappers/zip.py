# SPDX-License-Identifier: Apache-2.0
"""zip: its largest file. One that is stored is read where it lies, one that is deflated at random."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator

from libmicrovmi_py.drivers.dump import unpacked
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.inflate import BARE, Inflated
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.views import Part, View

BEGINS = (b"PK\x03\x04",)

_AFF4 = ("container.description", "information.turtle")
_WAY_OUT = "unpack it first: unzip"
_LOCAL = struct.Struct("<4s22x2H")


def probe(image: Image) -> Probe:
    """By its signature, and what is in it."""
    try:
        with zipfile.ZipFile(_Reader(image)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError):
        return Probe(Sure.CERTAIN, "a zip file without its directory, or a damaged one", "copy it again, or repair it")
    if any(name in names for name in _AFF4):
        return Probe(Sure.CERTAIN, "an AFF4 image", "convert it to raw: aff4imager")
    return Probe(Sure.CERTAIN, "a zip file")


def unwrap(image: Image) -> Image:
    """What is inside."""
    with zipfile.ZipFile(_Reader(image)) as archive:
        files = [item for item in archive.infolist() if not item.filename.endswith("/") and item.file_size]
        if not files:
            raise image.refused("a zip file of nothing", "name the file with the machine's memory")
        largest = max(files, key=lambda item: item.file_size)
        if len(files) > 1:
            image.opening.say(f"{image.path} has {len(files)} files: {largest.filename!r} is the largest")
        return _inside(image, archive, largest)


def _inside(image: Image, archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Image:
    if item.flag_bits & 1:
        raise image.refused("an encrypted zip file", _WAY_OUT)
    head = image.read(item.header_offset, _LOCAL.size, "the header of a file")
    magic, name, extra = _LOCAL.unpack(head)
    if magic != BEGINS[0]:
        raise image.damaged(f"there is no header of a file at {item.header_offset:#x}")
    begin = item.header_offset + _LOCAL.size + name + extra
    size = image.clipped(begin, item.compress_size, "what is packed")
    if item.compress_type == zipfile.ZIP_STORED:
        if size == 0:
            raise image.damaged("there is nothing in it")
        return View(image.path, [Part(0, size, image, begin)])
    if item.compress_type == zipfile.ZIP_DEFLATED:
        return Inflated(image, begin, size, BARE, item.CRC)
    return unpacked.whole(image, _chunks(archive, item), "zip")


def _chunks(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(item) as file:
            while chunk := file.read(1 << 20):
                yield chunk
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        OSError,
        RuntimeError,
        zlib.error,
        lzma.LZMAError,
    ) as err:
        raise ValueError(str(err)) from None


class _Reader(io.RawIOBase):
    """An image as ``zipfile`` wants it."""

    def __init__(self, image: Image) -> None:
        super().__init__()
        self._image, self._position = image, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._position, self._image.size)[whence]
        if base + offset < 0:
            raise ValueError("before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(self._image.size - self._position, 0)
        length = left if size is None or size < 0 else min(size, left)
        content = self._image.read(self._position, length, "the zip file")
        self._position += length
        return content
