# SPDX-License-Identifier: Apache-2.0
"""How pages of kdump files are compressed: zlib is Python's own, the others are libraries of the system."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from libmicrovmi_py.declare import Any
from libmicrovmi_py.transport.foreign import Foreign, load

Unpack = Callable[[bytes, int], bytes]
"""From packed bytes and the size that they have unpacked; raises ``ValueError`` if they have not."""


def _zlib() -> Unpack:
    import zlib

    def unpack(packed: bytes, size: int) -> bytes:
        try:
            stream = zlib.decompressobj()
            content = stream.decompress(packed, size + 1)
        except zlib.error as err:
            raise ValueError(str(err)) from None
        if len(content) != size or not stream.eof:
            raise ValueError(f"it is not {size} bytes unpacked")
        return content

    return unpack


def _foreign(library: Foreign, call: Callable[[bytes, Any, Any], bool]) -> Unpack:
    """``call(packed, buffer, length)`` unpacks, sets ``length[0]`` to how much, and returns whether it worked."""

    def unpack(packed: bytes, size: int) -> bytes:
        buffer, length = library.ffi.new("char[]", size), library.ffi.new("size_t *", size)
        if not call(packed, buffer, length) or length[0] != size:
            raise ValueError(f"it is not {size} bytes unpacked")
        return bytes(library.ffi.buffer(buffer))

    return unpack


def _lzo() -> Unpack:
    declaration = "int lzo1x_decompress_safe(const char *, size_t, char *, size_t *, void *);"
    library = load(("liblzo2.so.2",), declaration)
    decompress, null = library.lib.lzo1x_decompress_safe, library.ffi.NULL
    return _foreign(library, lambda packed, buffer, length: decompress(packed, len(packed), buffer, length, null) == 0)


def _snappy() -> Unpack:
    library = load(("libsnappy.so.1",), "int snappy_uncompress(const char *, size_t, char *, size_t *);")
    uncompress = library.lib.snappy_uncompress
    return _foreign(library, lambda packed, buffer, length: uncompress(packed, len(packed), buffer, length) == 0)


def _zstd() -> Unpack:
    library = load(("libzstd.so.1",), "size_t ZSTD_decompress(void *, size_t, const void *, size_t);")
    decompress = library.lib.ZSTD_decompress
    return _foreign(library, lambda packed, buffer, length: _zstd_fits(decompress, packed, buffer, length[0]))


def _zstd_fits(decompress: Callable[..., int], packed: bytes, buffer: Any, size: int) -> bool:
    """Whether ``ZSTD_decompress`` worked: it returns the size, or an error code that is larger than any size."""
    return decompress(buffer, size, packed, len(packed)) == size


CODECS: Mapping[int, tuple[str, Callable[[], Unpack]]] = {
    0x1: ("zlib", _zlib),
    0x2: ("lzo", _lzo),
    0x4: ("snappy", _snappy),
    0x20: ("zstd", _zstd),
}
"""By the flag of a page: the name, and what makes the function; that raises ``DriverUnavailableError``."""
