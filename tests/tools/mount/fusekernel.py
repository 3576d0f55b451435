# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of FUSE, over a socket: asks a server as the kernel does, and takes its answers apart."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from libmicrovmi_py.tools.mount.server import Server, Tree
from libmicrovmi_py.tools.mount.wire import Op

ROOT = 1
SECONDS = 10.0
MINOR = 38


class Opened(NamedTuple):
    """An open file: its number, and how it was opened."""

    handle: int
    flags: int


class Kernel:
    """One side of a socket whose other side is a server's device."""

    def __init__(self, connection: socket.socket, server: Server) -> None:
        self.connection, self.server = connection, server
        self._numbers = itertools.count(2, 2)

    def ask(self, op: int, node: int = ROOT, body: bytes = b"") -> bytes:
        """The answer without its header. Raises ``OSError`` for one that is an error."""
        number = next(self._numbers)
        self.send(struct.pack("=2I2Q4I", 40 + len(body), op, number, node, 0, 0, 0, 0) + body)
        answer = self.connection.recv(2 << 20)
        length, error, told = struct.unpack_from("=IiQ", answer)
        assert (length, told) == (len(answer), number)
        if error:
            raise OSError(-error, os.strerror(-error))
        return answer[16:]

    def send(self, message: bytes) -> None:
        """Send whatever it is."""
        self.connection.sendall(message)

    def begin(self, major: int = 7, minor: int = MINOR, flags: int = 0xFFFFFFFF) -> tuple[int, ...]:
        """Greet it: version, readahead, flags, limits, the most bytes of a write, and the most pages."""
        return struct.unpack("=4I2H2I2HI28x", self.ask(Op.INIT, 0, struct.pack("=4I", major, minor, 131072, flags)))

    def lookup(self, name: str, folder: int = ROOT) -> tuple[int, int, int]:
        """Number, size and mode of a name."""
        answer = self.ask(Op.LOOKUP, folder, name.encode("utf-8", "surrogateescape") + b"\0")
        node, *_ = struct.unpack_from("=4Q2I", answer)
        again, size = struct.unpack_from("=2Q", answer, 40)
        assert again == node
        return node, size, struct.unpack_from("=I", answer, 40 + 60)[0]

    def path(self, path: str) -> int:
        """The number of a path below the root."""
        node = ROOT
        for name in path.split("/"):
            node = self.lookup(name, node)[0]
        return node

    def size(self, node: int) -> int:
        """What its attributes say."""
        answer = self.ask(Op.GETATTR, node, bytes(16))
        return int(struct.unpack_from("=2Q", answer, 16)[1])

    def open(self, node: int, op: int = Op.OPEN) -> Opened:
        """Open a file, or a folder by its ``op``."""
        handle, flags, _ = struct.unpack("=Q2I", self.ask(op, node, bytes(8)))
        return Opened(handle, flags)

    def read(self, handle: int, offset: int, size: int, node: int = ROOT, op: int = Op.READ) -> bytes:
        """Read of an open file, or folder."""
        return self.ask(op, node, struct.pack("=2Q2IQ2I", handle, offset, size, 0, 0, 0, 0))

    def seek(self, handle: int, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE."""
        return int(struct.unpack("=Q", self.ask(Op.LSEEK, ROOT, struct.pack("=2Q2I", handle, offset, whence, 0)))[0])

    def content(self, path: str) -> bytes:
        """All of a file, as ``cat`` reads it."""
        handle = self.open(self.path(path)).handle
        found = b""
        while piece := self.read(handle, len(found), 65536):
            found += piece
        self.release(handle)
        return found

    def release(self, handle: int, op: int = Op.RELEASE) -> None:
        """Close it."""
        self.ask(op, ROOT, struct.pack("=Q16x", handle))

    def names(self, node: int, room: int = 4096) -> list[str]:
        """All names of a folder, asked for with so much room at a time."""
        handle, found, offset = self.open(node, Op.OPENDIR).handle, [], 0
        while rows := self.read(handle, offset, room, node, Op.READDIR):
            assert len(rows) <= room
            while rows:
                _, offset, length, _ = struct.unpack_from("=2Q2I", rows)
                found.append(rows[24 : 24 + length].decode())
                rows = rows[24 + -(-length // 8) * 8 :]
        self.release(handle, Op.RELEASEDIR)
        return found

    def has_ended(self) -> bool:
        """Whether the server says so, within some seconds."""
        return bool(select.select([self.server.done], [], [], SECONDS)[0])


@contextlib.contextmanager
def talking(tree: Tree) -> Iterator[Kernel]:
    """A server of a tree, and the kernel that asks it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(SECONDS)
    with ours, theirs:
        server = Server(theirs.fileno(), tree)
        server.start()
        try:
            yield Kernel(ours, server)
        finally:
            server.stop()


def failing(call: Callable[[], object]) -> str:
    """The name of the error that a call ends with; "" if it works."""
    try:
        call()
    except OSError as err:
        return errno.errorcode[err.errno or 0]
    return ""
