# SPDX-License-Identifier: Apache-2.0
"""Pages of files that C finds and unpacks by itself, without Python and without its lock: ``packed.h``."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, Any, NamedTuple
from libmicrovmi_py.transport.foreign_reads import ForeignReads, Line, Order
from libmicrovmi_py.transport.native import native

if TYPE_CHECKING:
    from array import array

    from libmicrovmi_py.transport.fds import OwnedFd

_AT_ONCE = 1 << 20
"""Bytes of a call of C's: one that is closed meanwhile ends soon."""


class PageCodec(NamedTuple):
    """A function of a library that unpacks the pages with a flag, and how it is called: ``struct mvi_codec``."""

    flag: int
    call: int
    function: int
    make: int = 0
    end: int = 0


class ImagePart(NamedTuple):
    """The bytes of an image from ``start`` to before ``end`` are those of a file from ``offset`` on."""

    start: int
    end: int
    offset: int
    file: OwnedFd


class Packing:
    """Pages that C reads. It keeps what they are made of, open files too.

    ``runs`` are (first pages in memory, ends, what the first pages are called), ``size`` is that of a page in bytes, a
    power of 2. Pages are told by a ``table`` in the image, or by ``entries``.
    """

    def __init__(
        self,
        runs: tuple[array[int], array[int], array[int]],
        size: int,
        parts: Sequence[ImagePart],
        codecs: Iterable[PageCodec],
        *,
        table: int = 0,
        entries: array[int] | None = None,
    ) -> None:
        """The arrays cannot become longer any more. Raises ``MemoryError``."""
        ffi, self._lib = native()
        known = [(item.function, item.make, item.end, item.flag, item.call) for item in codecs]
        starts, ends, indices = map(_address, runs)
        places = ffi.new("struct mvi_image_part[]", [(*part[:3], part.file.number) for part in parts])
        functions = ffi.new("struct mvi_codec[]", known)
        words, count = (ffi.NULL, 0) if entries is None else (_address(entries), len(entries))
        told = (
            *(starts, ends, indices, len(runs[0])),
            *(places, len(parts), functions, len(known)),
            *(words, count, table, size.bit_length() - 1),
        )
        self._kept = told, parts
        made = self._lib.mvi_packed_new(ffi.new("struct mvi_packing *", told))
        if made == ffi.NULL:
            raise MemoryError("no memory for packed pages")
        self._pointer: Any = ffi.gc(made, self._lib.mvi_packed_free)
        self._end = runs[1][-1] * size

    def read(self, address: int, buffer: memoryview) -> int:
        """Fill ``buffer`` up to the first page that is not there or cannot be unpacked: the length of that."""
        target = native().ffi.from_buffer("uint8_t[]", buffer, require_writable=True)
        return int(self._lib.mvi_packed_read(self._pointer, address, target, len(buffer)))

    def reads(self) -> ForeignReads:
        """How C reads them where it needs no Python."""
        handle = int(native().ffi.cast("uintptr_t", self._pointer))
        order, end = Order.ADDRESS_BUFFER_SIZE, self._end
        return ForeignReads(Line(), _filler(), handle, order, end=end, most=_AT_ONCE, crosses=True, keeps=self)


@functools.cache
def _filler() -> int:
    """Where the function is that reads a range as a whole."""
    ffi, lib = native()
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, "mvi_packed_fill")))


def _address(numbers: array[int]) -> Any:
    return native().ffi.from_buffer("uint64_t[]", numbers)
