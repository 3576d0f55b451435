# SPDX-License-Identifier: Apache-2.0
"""What took long to find out about a dump, kept in a file beside it for the next opening; only if that was asked for.

``NAME.microvmi-index``: a head, what it is about, and content, of which the head has a checksum. One that is about
another state of the dump, that is damaged, or that somebody else may have written is passed over, and made anew. What
is in it is believed no more than the dump itself.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
import zlib
from collections.abc import Iterable

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.errors import IoError, logger
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ENDING = ".microvmi-index"
HEAD = struct.Struct("<8s2IQ")
"""A magic, the checksum of all behind the head, and the sizes in bytes of what it is about and of the content."""
MAGIC = b"MVINDEX1"

_PIECE = 4096
_LONGEST = 1 << 20
_MOST, _RATIO = 64 << 20, 8
"""An index has no more bytes than the first and so many times those of the dump."""

_log = logger(__name__)


class Kept:
    """The index of an image, which is named ``kind`` with a version of its content."""

    def __init__(self, image: Image, kind: str) -> None:
        self._image = image
        self._kind = kind
        self._path = image.path + ENDING
        self._about = _about(image, kind)
        self._most = _MOST + _RATIO * image.size

    def recalled(self) -> bytes | None:
        """The content; ``None`` without one that is of this state of the dump."""
        try:
            fd = OwnedFd.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW)
            return self._read(fd)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as err:
            _log.warning("%s is passed over: %s", self._path, getattr(err, "strerror", None) or err)
            return None

    def _read(self, fd: OwnedFd) -> bytes:
        """Raises ``ValueError`` with what is wrong."""
        status, dump = os.fstat(fd.number), self._status()
        if not stat.S_ISREG(status.st_mode) or HEAD.size > status.st_size or status.st_size > self._most:
            raise ValueError("it is no index")
        if status.st_uid not in (0, os.geteuid(), dump.st_uid) or status.st_mode & 0o022:
            raise ValueError("others may have written it")
        with StandardStreamsHeld(), os.fdopen(os.dup(fd.number), "rb") as file:
            magic, checksum, about, size = HEAD.unpack(file.read(HEAD.size))
            if magic != MAGIC or about > _LONGEST or HEAD.size + about + size != status.st_size:
                raise ValueError("it is no index")
            told, content = file.read(about), file.read(size)
        if told != self._about:
            raise ValueError("it is of another state of the dump")
        if zlib.crc32(content, zlib.crc32(told)) != checksum or len(content) != size:
            raise ValueError("it is damaged")
        return content

    def _status(self) -> os.stat_result:
        """That of the dump's file."""
        return os.fstat(self._image.opening.files[0].mapping.file().number)

    def keep(self, pieces: Iterable[ReadableBuffer]) -> None:
        """Write it; where that does not go the log says so. Nothing is kept of a dump that changed meanwhile."""
        part = f"{self._path}.{os.getpid()}"
        try:
            if not stat.S_ISREG(self._status().st_mode):
                raise ValueError("the dump is no file, and nothing tells when it was written to")
            if _about(self._image, self._kind) != self._about:
                raise ValueError("the dump changes")
            self._write(part, pieces)
            os.replace(part, self._path)
        except (OSError, ValueError, IoError) as err:
            with contextlib.suppress(OSError):
                os.unlink(part)
            _log.warning("%s cannot be kept: %s", self._path, getattr(err, "strerror", None) or err)

    def _write(self, part: str, pieces: Iterable[ReadableBuffer]) -> None:
        """Whoever may read the dump may read its index; nobody but us may write it."""
        fd = OwnedFd.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
        os.fchmod(fd.number, self._status().st_mode & 0o444 | 0o200)
        checksum, size = zlib.crc32(self._about), 0
        with StandardStreamsHeld(), os.fdopen(os.dup(fd.number), "wb") as file:
            file.write(bytes(HEAD.size) + self._about)
            for piece in pieces:
                checksum, size = zlib.crc32(piece, checksum), size + memoryview(piece).nbytes
                file.write(piece)
            file.seek(0)
            file.write(HEAD.pack(MAGIC, checksum, len(self._about), size))


def _about(image: Image, kind: str) -> bytes:
    """What no other state of the dump has, but for one that somebody takes pains to make: sizes, times, both ends."""
    rows = [kind, sys.byteorder, " ".join(image.opening.wrappers), str(image.size)]
    if image.flat:
        rows.append(str(next(image.places(0, 1)).offset))
    for file in image.opening.files:
        if not file.made:
            status = os.fstat(file.mapping.file().number)
            rows.append(f"{status.st_size} {status.st_mtime_ns}")
    ends = image.start + image.read(max(image.size - _PIECE, 0), min(_PIECE, image.size), "its end")
    return "\n".join([*rows, f"{zlib.crc32(ends):x}"]).encode()
