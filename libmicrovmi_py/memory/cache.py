# SPDX-License-Identifier: Apache-2.0
"""Pages of a paused machine, kept in C: small reads of them take neither a system call nor Python."""

from __future__ import annotations

from typing import Any

from libmicrovmi_py.memory.native import native


class PageCache:
    """Up to ``size`` bytes of pages, at least one; a newer page takes the place of an older one."""

    def __init__(self, size: int) -> None:
        ffi, self._lib = native()
        self._size = size
        self.pointer: Any = ffi.gc(self._lib.mvi_cache_new(size), self._lib.mvi_cache_free)
        if self.pointer == ffi.NULL:
            raise MemoryError(f"no memory for a page cache of {size} bytes")

    def emptied(self) -> PageCache:
        """An empty one of the same size, for another memory map: who still reads by the old one keeps to the old."""
        return PageCache(self._size)

    @property
    def epoch(self) -> int:
        """To be taken before a page is read that is then :meth:`put`."""
        return int(self._lib.mvi_cache_epoch(self.pointer))

    def get(self, address: int, buffer: memoryview) -> bool:
        """Fill ``buffer``, which lies within one page, if that page is there."""
        filled: bool = self._lib.mvi_cache_get(
            self.pointer, address, native().ffi.from_buffer("uint8_t[]", buffer), len(buffer)
        )
        return filled

    def put(self, epoch: int, frame: int, content: bytearray) -> None:
        """Keep a frame's content, unless something was dropped since ``epoch``."""
        self._lib.mvi_cache_put(self.pointer, epoch, frame, native().ffi.from_buffer("uint8_t[]", content))

    def drop(self, address: int, size: int) -> None:
        """Forget the pages of a range that was written."""
        self._lib.mvi_cache_drop(self.pointer, address, size)
