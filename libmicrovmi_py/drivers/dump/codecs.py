# SPDX-License-Identifier: Apache-2.0
"""How pages and files are compressed: zlib is Python's own, the others are libraries of the system."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from libmicrovmi_py.declare import Any, NamedTuple
from libmicrovmi_py.transport.foreign import Foreign, addresses, load
from libmicrovmi_py.transport.packing import PageCodec

_AT_ONCE = 1 << 20
"""So many bytes of a stream are unpacked at once."""

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


def lzo() -> Unpack:
    """What unpacks one block of LZO1X."""
    declaration = "int lzo1x_decompress_safe(const char *, size_t, char *, size_t *, void *);"
    library = load(("liblzo2.so.2",), declaration)
    decompress, null = library.lib.lzo1x_decompress_safe, library.ffi.NULL
    return _foreign(library, lambda packed, buffer, length: decompress(packed, len(packed), buffer, length, null) == 0)


def snappy() -> Unpack:
    """What unpacks one block."""
    library = load(("libsnappy.so.1",), "int snappy_uncompress(const char *, size_t, char *, size_t *);")
    uncompress = library.lib.snappy_uncompress
    return _foreign(library, lambda packed, buffer, length: uncompress(packed, len(packed), buffer, length) == 0)


def zstd() -> Unpack:
    """What unpacks one frame."""
    library = load(("libzstd.so.1",), "size_t ZSTD_decompress(void *, size_t, const void *, size_t);")
    decompress = library.lib.ZSTD_decompress
    return _foreign(library, lambda packed, buffer, length: _zstd_fits(decompress, packed, buffer, length[0]))


def _zstd_fits(decompress: Callable[..., int], packed: bytes, buffer: Any, size: int) -> bool:
    """Whether ``ZSTD_decompress`` worked: it returns the size, or an error code that is larger than any size."""
    return decompress(buffer, size, packed, len(packed)) == size


class Codec(NamedTuple):
    """A way to pack pages: its name, what makes Python's function, and where C finds its own.

    ``call`` is a number of ``packed.h``; ``needed`` is whether nothing else than that library unpacks such a page.
    """

    name: str
    make: Callable[[], Unpack]
    call: int
    library: str
    functions: Sequence[str]
    needed: bool = True

    def native(self, flag: int) -> PageCodec:
        """What C unpacks pages of that flag with. Raises ``DriverUnavailableError``."""
        return PageCodec(flag, self.call, *addresses((self.library,), self.functions))


ZLIB = 0x1
CODECS: Mapping[int, Codec] = {
    ZLIB: Codec("zlib", _zlib, 0, "libz.so.1", ("uncompress",), needed=False),
    0x2: Codec("lzo", lzo, 1, "liblzo2.so.2", ("lzo1x_decompress_safe",)),
    0x4: Codec("snappy", snappy, 2, "libsnappy.so.1", ("snappy_uncompress",)),
    0x20: Codec("zstd", zstd, 3, "libzstd.so.1", ("ZSTD_decompressDCtx", "ZSTD_createDCtx", "ZSTD_freeDCtx")),
}
"""By the flag of a page of a kdump file."""


def zstd_stream(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """What frames of zstd hold, one after the other. Raises ``ValueError``, ``DriverUnavailableError``."""
    ffi, lib = load(
        ("libzstd.so.1",),
        """
        typedef struct { const void *src; size_t size; size_t pos; } ZSTD_inBuffer;
        typedef struct { void *dst; size_t size; size_t pos; } ZSTD_outBuffer;
        void *ZSTD_createDStream(void);
        size_t ZSTD_freeDStream(void *);
        size_t ZSTD_decompressStream(void *, ZSTD_outBuffer *, ZSTD_inBuffer *);
        unsigned ZSTD_isError(size_t);
        const char *ZSTD_getErrorName(size_t);
        """,
    )
    stream = ffi.gc(lib.ZSTD_createDStream(), lib.ZSTD_freeDStream)
    room, left = ffi.new("char[]", _AT_ONCE), 0
    for block in blocks:
        source = ffi.from_buffer(block)
        taken = ffi.new("ZSTD_inBuffer *", (source, len(block), 0))
        full = False
        while taken.pos < len(block) or full:
            made = ffi.new("ZSTD_outBuffer *", (room, _AT_ONCE, 0))
            left = lib.ZSTD_decompressStream(stream, made, taken)
            if lib.ZSTD_isError(left):
                raise ValueError(ffi.string(lib.ZSTD_getErrorName(left)).decode())
            full = made.pos == _AT_ONCE
            if made.pos:
                yield bytes(ffi.buffer(room, made.pos))
    if left:
        raise ValueError("it ends in the middle of a frame")


def lz4_stream(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """What frames of lz4 hold, one after the other. Raises ``ValueError``, ``DriverUnavailableError``."""
    ffi, lib = load(
        ("liblz4.so.1",),
        """
        size_t LZ4F_createDecompressionContext(void **, unsigned);
        size_t LZ4F_freeDecompressionContext(void *);
        size_t LZ4F_decompress(void *, void *, size_t *, const void *, size_t *, const void *);
        unsigned LZ4F_isError(size_t);
        const char *LZ4F_getErrorName(size_t);
        """,
    )
    handle = ffi.new("void **")
    if lib.LZ4F_isError(lib.LZ4F_createDecompressionContext(handle, 100)):
        raise ValueError("no memory for a decompressor")
    stream = ffi.gc(handle[0], lib.LZ4F_freeDecompressionContext)
    room, left = ffi.new("char[]", _AT_ONCE), 0
    made, taken = ffi.new("size_t *"), ffi.new("size_t *")
    for block in blocks:
        place = 0
        full = False
        while place < len(block) or full:
            made[0], taken[0] = _AT_ONCE, len(block) - place
            left = lib.LZ4F_decompress(stream, room, made, ffi.from_buffer(block) + place, taken, ffi.NULL)
            if lib.LZ4F_isError(left):
                raise ValueError(ffi.string(lib.LZ4F_getErrorName(left)).decode())
            place += taken[0]
            full = made[0] == _AT_ONCE
            if made[0]:
                yield bytes(ffi.buffer(room, made[0]))
            elif not taken[0]:
                break
    if left:
        raise ValueError("it ends in the middle of a frame")


def lz4_block(packed: bytes, most: int) -> bytes:
    """A block of lz4 that becomes ``most`` bytes at the most. Raises ``ValueError``, ``DriverUnavailableError``."""
    library = load(("liblz4.so.1",), "int LZ4_decompress_safe(const char *, char *, int, int);")
    buffer = library.ffi.new("char[]", most)
    size = library.lib.LZ4_decompress_safe(packed, buffer, len(packed), most)
    if size < 0:
        raise ValueError("a block of lz4 is damaged")
    return bytes(library.ffi.buffer(buffer, size))


def crc32c() -> Callable[[bytes], int]:
    """What makes the checksum CRC-32C, which Python does not have. Raises ``DriverUnavailableError``."""
    library = load(("libext2fs.so.2",), "uint32_t ext2fs_crc32c_le(uint32_t, const char *, size_t);")
    checksum, ones = library.lib.ext2fs_crc32c_le, 0xFFFFFFFF
    return lambda content: checksum(ones, content, len(content)) ^ ones
