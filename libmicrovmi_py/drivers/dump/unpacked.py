# SPDX-License-Identifier: Apache-2.0
"""What cannot be read at random is unpacked once, into memory or, with ``unpack=DIR``, into a file without a name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from libmicrovmi_py.declare import Any, Protocol
from libmicrovmi_py.drivers.dump.image import File, Image
from libmicrovmi_py.drivers.dump.packed import packed_data
from libmicrovmi_py.errors import InvalidArgumentError, IoError
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.native import give_way

_IN, _OUT = 256 << 10, 1 << 20
_BLOCK = 64 << 10
"""A block of zeros is left out as a hole."""

_ALWAYS, _RATIO = 256 << 20, 10_000
"""What is larger than the first, unpacked, may be so many times as large as it is packed: more is no memory of anybody,
but a file that was made to fill this machine."""


class Unpacker(Protocol):
    """What ``bz2`` and ``lzma`` have: one stream."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def whole(image: Image, chunks: Iterator[bytes], what: str) -> Image:
    """Everything that ``chunks`` yields, as an image that lies flat. ``what`` is what the file is packed with.

    ``chunks`` raises ``ValueError`` where the file is damaged. Raises ``IoError`` for that, but with ``partial``, and
    where there is no room, or where what comes out is out of all proportion.
    """
    folder = image.opening.options.unpack
    fd = _made(folder)
    size = _written(fd, image, chunks, _room(fd, folder))
    if size == 0:
        raise image.damaged("there is nothing in it")
    os.ftruncate(fd.number, size)
    place = f"in {folder}" if folder else "in memory"
    image.opening.say(f"{image.path} is packed ({what}) without entry points: unpacked {place}, {size >> 20} MiB")
    mapping = HostMapping.of_file(fd, mapped=image.opening.options.mapped, image=True)
    return File(image.path, mapping, image.opening, made=True)


def blocks(image: Image) -> Iterator[bytes]:
    """All of the image, a block after the other."""
    for position in range(0, image.size, _IN):
        yield packed_data(image, position, _IN)


def streams(image: Image, make: Callable[[], Unpacker], error: type[Exception]) -> Iterator[bytes]:
    """What one stream after the other holds. Raises ``ValueError`` where one is cut or damaged."""
    position, unpacker, data = 0, make(), b""
    while True:
        if unpacker.needs_input and not data:
            data = packed_data(image, position, _IN)
            position += len(data)
            if not data:
                raise ValueError("it ends in the middle of a stream")
        try:
            content = unpacker.decompress(data, _OUT)
        except error as err:
            raise ValueError(str(err)) from None
        data = b""
        if content:
            yield content
        if unpacker.eof:
            position -= len(unpacker.unused_data)
            position = behind_zeros(image, position)
            if position == image.size:
                return
            unpacker = make()


def behind_zeros(image: Image, position: int) -> int:
    """Where the next byte other than 0 is, or the end."""
    size = 64  # mostly there are none
    while position < image.size:
        content = image.read(position, min(size, image.size - position), "packed data")
        rest = content.lstrip(b"\0")
        if rest:
            return position + len(content) - len(rest)
        position, size = max(position + len(content), image.next_data(position + len(content))), _IN
    return image.size


def check_proportion(image: Image, size: int) -> None:
    """Raise ``IoError`` if so many bytes, unpacked, are out of all proportion."""
    limit = max(_ALWAYS, _RATIO * image.size)
    if size > limit:
        raise image.damaged(f"{image.size} bytes become more than {limit}: that is no image of memory")


def _made(folder: str | None) -> OwnedFd:
    """A file without a name."""
    try:
        if folder is None:
            with StandardStreamsHeld():
                return OwnedFd(os.memfd_create("microvmi"))
        return OwnedFd.open(folder, os.O_TMPFILE | os.O_RDWR)
    except OSError as err:
        raise InvalidArgumentError(f"unpack={folder}: no file can be made there: {err.strerror}") from err


def _room(fd: OwnedFd, folder: str | None) -> int:
    """How many bytes there is room for: half of the memory that is free, or nine tenths of what the folder has free."""
    if folder is not None:
        status = os.fstatvfs(fd.number)
        return status.f_bavail * status.f_frsize * 9 // 10
    with StandardStreamsHeld(), open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024 // 2
    return 1 << 30


def _written(fd: OwnedFd, image: Image, chunks: Iterator[bytes], room: int) -> int:
    """Write all, but for blocks of zeros; how many bytes that is."""
    size = used = 0
    source: Any = iter(chunks)
    while True:
        try:
            chunk = next(source, b"")
        except ValueError as err:
            image.amiss(f"{err}, after {size} bytes unpacked")
            return size
        if not chunk:
            return size
        used += _write(fd, chunk, size, image)
        size += len(chunk)
        if used > room:
            raise IoError(f"{image.path} is too large to be unpacked here: name a folder with more room, unpack=DIR")
        check_proportion(image, size)
        give_way()


def _write(fd: OwnedFd, chunk: bytes, offset: int, image: Image) -> int:
    """How many bytes of the chunk take room."""
    used = 0
    for begin in range(0, len(chunk), _BLOCK):
        block = chunk[begin : begin + _BLOCK]
        if block.count(0) == len(block):
            continue
        try:
            used += os.pwrite(fd.number, block, offset + begin)
        except OSError as err:
            raise IoError(f"{image.path} cannot be unpacked: {err.strerror}") from err
    return used
