# SPDX-License-Identifier: Apache-2.0
"""The kernel's FUSE protocol, as far as a file system that is only read needs it: numbers and structures.

Each message begins with a header that has its length; integers are the machine's own. What the numbers mean is in
linux/fuse.h and https://docs.kernel.org/filesystems/fuse.html.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable

from libmicrovmi_py.declare import NamedTuple

MAJOR, MINOR, OLDEST_MINOR = 7, 31, 28
"""The version that is spoken; the kernel's own is at least the oldest, that of Linux 4.20."""

MAX_READ = 1 << 20
"""The most bytes of one read."""
REQUEST_ROOM = 1 << 16
"""More bytes than any request to a file system that cannot be written."""

ROOT = 1
"""The number of the uppermost folder."""
DIRECT_IO, KEEP_CACHE, NO_FLUSH = 1 << 0, 1 << 1, 1 << 5
"""How a file is opened: each read is ours, and nothing is kept; what the kernel has of it is still good; nobody is
asked when it is closed, which then cannot fail either."""


class Op(enum.IntEnum):
    """What is asked for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    ACCESS = 34
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    LSEEK = 46


UNANSWERED = frozenset({Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT})

_ASYNC_READ, _ASYNC_DIO, _PARALLEL_DIROPS, _MAX_PAGES = 1 << 0, 1 << 15, 1 << 18, 1 << 22
_WANTED = _ASYNC_READ | _ASYNC_DIO | _PARALLEL_DIROPS | _MAX_PAGES
_PAGE = 4096
_BACKGROUND = 64
"""How many reads may be under way that the kernel makes on its own account."""
_READAHEAD = 1 << 20

REQUEST = struct.Struct("=2I2Q4I")
"""Length, what is asked for, number of the request, of the file, user, group, process, room for later."""
_REPLY = struct.Struct("=IiQ")
_ATTRIBUTES = struct.Struct("=6Q10I")
_ENTRY = struct.Struct("=4Q2I")
_VALID = struct.Struct("=Q2I")
_INIT_ASKED = struct.Struct("=4I")
_INIT = struct.Struct("=4I2H2I2HI28x")
_READ = struct.Struct("=2QI")
_HANDLE = struct.Struct("=Q")
_OPENED = struct.Struct("=Q2I")
_SEEK = struct.Struct("=2QI")
_STATFS = struct.Struct("=5Q4I24x")
_DIRENT = struct.Struct("=2Q2I")
_FOLDER, _FILE = 4, 8
_NANO = 1_000_000_000


class Request(NamedTuple):
    """One that came: ``node`` is the number of the file or folder that it is about."""

    op: int
    number: int
    node: int
    body: memoryview


class Attributes(NamedTuple):
    """What a file is: its number, bytes, mode, and when it was made, in nanoseconds since 1970."""

    node: int
    size: int
    mode: int
    user: int
    group: int
    made: int

    def packed(self) -> bytes:
        """As the kernel takes them. It takes no room on any disk, so programs that copy ask where holes are."""
        seconds, rest = divmod(self.made, _NANO)
        links = 2 if self.mode >> 12 == _FOLDER else 1
        owner = (self.mode, links, self.user, self.group)
        return _ATTRIBUTES.pack(self.node, self.size, 0, *[seconds] * 3, *[rest] * 3, *owner, 0, _PAGE, 0)


def request(message: memoryview) -> Request | None:
    """What a message asks for; ``None`` for one that is not as long as it says."""
    if len(message) < REQUEST.size:
        return None
    length, op, number, node, *_ = REQUEST.unpack_from(message)
    return Request(op, number, node, message[REQUEST.size :]) if length == len(message) else None


def reply_head(number: int, size: int) -> bytes:
    """What stands before ``size`` bytes of an answer."""
    return _REPLY.pack(_REPLY.size + size, 0, number)


def failure(number: int, error: int) -> bytes:
    """The whole answer where something failed; ``error`` is an errno."""
    return _REPLY.pack(_REPLY.size, -error, number)


def handshake(body: memoryview) -> bytes | None:
    """The answer to the first request; ``None`` if the kernel speaks another protocol or an older one."""
    major, minor, readahead, flags = _INIT_ASKED.unpack_from(body)
    if major != MAJOR or minor < OLDEST_MINOR:
        return None
    readahead = max(readahead, _READAHEAD)
    limits = (_BACKGROUND, _BACKGROUND * 3 // 4, _PAGE, 1)
    return _INIT.pack(MAJOR, MINOR, readahead, flags & _WANTED, *limits, MAX_READ // _PAGE, 0, 0)


def entry(attributes: Attributes, seconds: int) -> bytes:
    """A name that was found; it and its attributes are good for so many seconds."""
    return _ENTRY.pack(attributes.node, 0, seconds, seconds, 0, 0) + attributes.packed()


def valid_attributes(attributes: Attributes, seconds: int) -> bytes:
    """Attributes alone."""
    return _VALID.pack(seconds, 0, 0) + attributes.packed()


def opened(handle: int, flags: int) -> bytes:
    """The number of an open file, which its reads name."""
    return _OPENED.pack(handle, flags, 0)


def read_asked(body: memoryview) -> tuple[int, int, int]:
    """The open file, the first byte, and how many."""
    handle, offset, size = _READ.unpack_from(body)
    return handle, offset, size


def handle_asked(body: memoryview) -> int:
    """The open file of a request that begins with it."""
    return int(_HANDLE.unpack_from(body)[0])


def seek_asked(body: memoryview) -> tuple[int, int, int]:
    """The open file, the offset, and what is looked for as ``os.SEEK_DATA`` has it."""
    handle, offset, whence = _SEEK.unpack_from(body)
    return handle, offset, whence


def sought(offset: int) -> bytes:
    """Where it was found."""
    return _HANDLE.pack(offset)


def statistics() -> bytes:
    """Of a file system that is full."""
    return _STATFS.pack(0, 0, 0, 0, 0, _PAGE, 255, _PAGE, 0)


def listing(names: Iterable[tuple[int, str, bool]], first: int, room: int) -> bytes:
    """Entries of a folder (number, name, whether it is one) from the ``first`` on, as many as there is room for."""
    found = bytearray()
    for at, (node, name, folder) in enumerate(names):
        if at < first:
            continue
        text = name.encode()
        row = _DIRENT.pack(node, at + 1, len(text), _FOLDER if folder else _FILE) + text
        row += bytes(-len(row) % 8)
        if len(found) + len(row) > room:
            break
        found += row
    return bytes(found)
