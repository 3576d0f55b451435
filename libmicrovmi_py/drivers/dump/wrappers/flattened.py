# SPDX-License-Identifier: Apache-2.0
"""The file that a flattened one describes (``makedumpfile -F``, QEMU's kdump formats): records with their offsets.

A page of header is followed by records: offset and size, big-endian, 8 bytes each, and the bytes. An offset of -1 ends
them; of two records for the same bytes the later one holds. Behind a header the rest of its block is in no record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.layout import Extent, laid_out
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.views import Part, View, filled

BEGINS = (b"makedumpfile\0",)

_HEADER = 4096
_BLOCKS = (4096, 65536)
"""The sizes that a page may have, and so a block of a kdump file."""
_MAX_RECORDS = 1 << 22
_WAY_OUT = "rearrange it: makedumpfile -R"


def probe(image: Image) -> Probe:
    """By its signature."""
    return Probe(Sure.CERTAIN, "a flattened dump")


def unwrap(image: Image) -> Image:
    """The file that the records make up."""
    kind, version = struct.unpack(">qq", image.read(16, 16, "the header of a flattened dump"))
    if (kind, version) != (1, 1):
        raise image.refused(f"a flattened dump of type {kind}, version {version}", _WAY_OUT)
    records = laid_out(reversed(list(_records(image))))
    if not records:
        raise image.damaged("there are no records in it")
    parts = [Part(record.start, record.size, image, record.offset) for record in records]
    return _Flattened(image.path, filled(parts, *_BLOCKS))


class _Flattened(View):
    def as_raw(self) -> None:
        """Nobody flattens raw memory."""
        raise self.refused("a flattened file of an unknown format", "see what it holds: makedumpfile -R")


def _records(image: Image) -> Iterator[Extent]:
    position, count = _HEADER, 0
    while True:
        if not image.has(position, 16):
            image.amiss(f"record {count} would lie at {position:#x}, the file ends at {image.size:#x}")
            return
        offset, size = struct.unpack(">qq", image.read(position, 16, f"record {count}"))
        if (offset, size) == (-1, -1):
            return
        position += 16
        if offset < 0 or size <= 0 or size > image.size - position:
            image.amiss(f"record {count} at {position - 16:#x} has offset {offset:#x} and size {size:#x}")
            return
        if count == _MAX_RECORDS:
            raise image.refused(f"a flattened file of more than {count} records", _WAY_OUT)
        yield Extent(offset, size, position)
        position += size
        count += 1
