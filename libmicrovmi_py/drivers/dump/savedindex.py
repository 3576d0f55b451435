# SPDX-License-Identifier: Apache-2.0
"""The index of a saved machine of QEMU, kept beside it (``index=on``): its blocks, and where each page is."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING, Any
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.kept import Kept
from libmicrovmi_py.drivers.dump.savedram import SavedPages
from libmicrovmi_py.drivers.dump.savedstream import SavedStream

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_KIND = "qemu 1"
_SIZES = struct.Struct("<3Q")
"""How many bytes what is told in words has, and those of the changes and of the entries."""


def read(image: Image, stream: SavedStream) -> None:
    """Read the index of the stream, or the stream, and keep its index. Raises ``ValueError`` as the stream does.

    One of which the pages are elsewhere (mapped-ram, x-ignore-shared) is read at once, and needs none.
    """
    kept = Kept(image, _KIND)
    content = kept.recalled()
    if content is None or not _take(image, stream, content):
        stream.read()
        if stream.mapped is None and not stream.pages.shared_left_out:
            kept.keep(_pieces(stream))


def _pieces(stream: SavedStream) -> Iterator[ReadableBuffer]:
    told = {
        "machine": stream.machine,
        "devices": stream.devices,
        "blocks": [[block.name, block.size] for block in stream.pages.blocks.values()],
    }
    words = json.dumps(told).encode()
    changes, entries = stream.pages.kept()
    yield _SIZES.pack(len(words), len(changes), len(entries) * entries.itemsize)
    yield words
    yield changes
    yield entries


def _take(image: Image, stream: SavedStream, content: bytes) -> bool:
    """Whether the index makes sense; the stream is as if it had been read then."""
    view = memoryview(content)
    try:
        words, changes, entries = _SIZES.unpack_from(content)
        told: Any = json.loads(content[_SIZES.size : _SIZES.size + words])
        machine, devices, blocks = str(told["machine"]), int(told["devices"]), told["blocks"]
        named = [(str(name), int(size)) for name, size in blocks]
        begin = _SIZES.size + words
        if not 0 < devices < image.size or begin + changes + entries != len(content):
            return False
        pages = SavedPages(image)
        pages.take(named, view[begin : begin + changes], view[begin + changes :])
    except (ValueError, TypeError, KeyError, struct.error, RecursionError):
        return False
    stream.pages, stream.machine, stream.devices = pages, machine, devices
    return True
