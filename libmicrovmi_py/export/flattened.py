# SPDX-License-Identifier: Apache-2.0
"""A file as a stream of what is written where, as ``makedumpfile -F`` has it, for what cannot be written in order."""

from __future__ import annotations

import struct
from collections.abc import Callable

from libmicrovmi_py.declare import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_HEADER = struct.Struct(">16s2q")
_RECORD = struct.Struct(">2q")
_HEADER_SIZE = 4096


class Flattened:
    """Each write becomes a record: offset and size, big-endian, and the bytes."""

    def __init__(self, write: Callable[[ReadableBuffer], object]) -> None:
        """``write`` has bytes follow those before."""
        self._write = write
        write(_HEADER.pack(b"makedumpfile", 1, 1).ljust(_HEADER_SIZE, b"\0"))

    def put(self, offset: int, content: ReadableBuffer) -> None:
        """These bytes of the file are there."""
        self._write(_RECORD.pack(offset, len(memoryview(content).cast("B"))))
        self._write(content)

    def end(self) -> None:
        """There is no more."""
        self._write(_RECORD.pack(-1, -1))
