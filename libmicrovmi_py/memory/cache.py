# SPDX-License-Identifier: Apache-2.0
"""Pages of a paused machine, kept in C: small reads of them take neither a system call nor Python."""

from __future__ import annotations

from libmicrovmi_py.declare import Any
from libmicrovmi_py.transport.native import native


class PageCache:
    """Up to ``size`` bytes of pages, at least one; a newer page takes the place of an older one."""

    def __init__(self, size: int) -> None:
        ffi, self._lib = native()
        self._size = size
        self.pointer: Any = ffi.gc(self._lib.mvi_cache_new(size), self._lib.mvi_cache_free)
        if self.pointer == ffi.NULL:
            raise MemoryError(f"no memory for a page cache of {size} bytes")

    def emptied(self) -> PageCache:
        """An empty cache of the same size, for a new memory map; reads that are under way keep the old one."""
        return PageCache(self._size)

    @property
    def epoch(self) -> int:
        """The state of the cache: ask for it before you read a page, and hand it to :meth:`keep` with the page."""
        return int(self._lib.mvi_cache_epoch(self.pointer))

    def get(self, address: int, buffer: memoryview) -> bool:
        """Fill ``buffer``, which lies within one page, if that page is there."""
        filled: bool = self._lib.mvi_cache_get(
            self.pointer, address, native().ffi.from_buffer("uint8_t[]", buffer), len(buffer)
        )
        return filled

    def keep(self, epoch: int, content: bytearray, address: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from the content of its frame, which is kept unless something was dropped since ``epoch``."""
        from_buffer = native().ffi.from_buffer
        page, target = from_buffer("uint8_t[]", content), from_buffer("uint8_t[]", buffer)
        self._lib.mvi_cache_keep(self.pointer, epoch, page, address, target, len(buffer))

    def drop(self, address: int, size: int) -> None:
        """Forget the pages of a range that was written."""
        self._lib.mvi_cache_drop(self.pointer, address, size)
