# SPDX-License-Identifier: Apache-2.0
"""Reading migration streams as a snapshot does."""

from __future__ import annotations

import os
from collections.abc import Sequence

from libmicrovmi_py.drivers.qemu.migration import Part, Progress, Stream, StreamError
from libmicrovmi_py.model import MemoryKind, MemoryRange
from libmicrovmi_py.transport.copy import Copy


def new_copy(size: int, max_bytes: int = 0) -> Copy:
    return Copy([MemoryRange(0, size, MemoryKind.RAM)], max_bytes)


def read(data: bytes, parts: Sequence[Part], copy: Copy) -> tuple[bytes, Progress]:
    """Read a whole stream. Raises as the reader does; what is behind the pages."""
    stream = Stream()
    os.write(stream.entrance.number, data)
    pages = stream.pages(stream.head(0.01, lambda: None), parts, copy)
    pages.end()
    try:
        progress = pages.wait(10)
        if not progress.over:
            raise StreamError("it never ends")
        return pages.rest(), progress
    finally:
        pages.stop()


def content(copy: Copy, size: int) -> bytes:
    return os.pread(copy.fd, size, 0)
