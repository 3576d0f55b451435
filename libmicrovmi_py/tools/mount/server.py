# SPDX-License-Identifier: Apache-2.0
"""Answers what the kernel asks of a file system: some threads read requests, and each answers what it has read."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from libmicrovmi_py.declare import Protocol
from libmicrovmi_py.errors import MicrovmiError, VmGoneError
from libmicrovmi_py.tools.mount import wire
from libmicrovmi_py.tools.mount.wire import Op, Request

THREADS = 2
"""More than one, so that the next request is read while the kernel copies the last answer."""
_MOST_VIEWS = 512
_FOREVER = 86400
_FOLDER, _FILE = stat.S_IFDIR | 0o500, stat.S_IFREG | 0o400


class File(Protocol):
    """An open file. ``fixed``: its bytes and its size are always the same, so the kernel may keep them."""

    @property
    def fixed(self) -> bool: ...

    def read(self, offset: int, size: int, room: memoryview) -> Sequence[memoryview | bytes]:
        """Up to ``size`` bytes, one behind the other; ``room`` is for those that have to be read, and large enough."""

    def seek(self, offset: int, whence: int) -> int:
        """The first byte that is data, or in a hole. Raises ``OSError``: ENXIO if there is none."""


class Tree(Protocol):
    """Files and folders by number, of which ``wire.ROOT`` is the uppermost folder. What is not there is ``KeyError``.

    ``fixed``: no name comes, goes, or changes its size.
    """

    @property
    def fixed(self) -> bool: ...

    def child(self, folder: int, name: str) -> int:
        """The number of a name in a folder."""

    def names(self, folder: int) -> Iterable[tuple[int, str]]:
        """What is in a folder: numbers and names."""

    def is_folder(self, node: int) -> bool:
        """Whether it is one."""

    def size(self, node: int) -> int:
        """The bytes of a file; 0 where nobody knows before it is read."""

    def open(self, node: int) -> File:
        """Open a file."""


class Server:
    """Serves a tree over an open ``/dev/fuse``, which it reads without waiting, from ``start`` to ``stop``.

    ``done`` is a descriptor that can be read when it has ended by itself, as it was unmounted or the machine is gone.
    """

    def __init__(self, device: int, tree: Tree) -> None:
        self._device, self._tree = device, tree
        self._made = time.time_ns()
        self._valid = _FOREVER if tree.fixed else 0
        self._open: dict[int, File] = {}
        self._listed: dict[int, list[tuple[int, str, bool]]] = {}
        self._handles = itertools.count(1)
        self._stop, self._stopping = os.pipe2(os.O_CLOEXEC)
        self.done, self._ended = os.pipe2(os.O_CLOEXEC)
        self.gone = ""
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(THREADS)]
        self._answers: dict[int, Callable[[Request], bytes]] = {
            Op.LOOKUP: self._lookup,
            Op.GETATTR: self._attributes_of,
            Op.OPEN: self._open_file,
            Op.STATFS: lambda request: wire.statistics(),
            Op.RELEASE: self._release,
            Op.INIT: self._begin,
            Op.OPENDIR: self._open_folder,
            Op.READDIR: self._list,
            Op.RELEASEDIR: self._release,
            Op.ACCESS: lambda request: b"",
            Op.DESTROY: lambda request: b"",
            Op.LSEEK: self._seek,
        }

    def start(self) -> None:
        """Begin to answer."""
        os.set_blocking(self._device, False)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Answer nothing any more, and return when no thread does. Who waits for an answer is told when the device is
        closed."""
        os.close(self._stopping)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        for number in (self._stop, self.done, self._ended):
            os.close(number)

    # ------------------------------------------------------------------------------------------------ requests ----

    def _serve(self) -> None:
        message, room = memoryview(bytearray(wire.REQUEST_ROOM)), memoryview(bytearray(wire.MAX_READ))
        poll = select.poll()
        poll.register(self._device, select.POLLIN)
        poll.register(self._stop, 0)
        try:
            while not any(number == self._stop for number, _ in poll.poll()):
                while (size := self._next(message)) is not None:
                    self._answer(wire.request(message[:size]), room)
        except OSError as err:
            if err.errno != errno.ENODEV:  # it was unmounted
                self.gone = f"/dev/fuse: {err.strerror}"
        with contextlib.suppress(OSError):
            os.write(self._ended, b"e")

    def _next(self, message: memoryview) -> int | None:
        """Read a request, and return its length; ``None`` if there is none."""
        try:
            size = os.readv(self._device, [message])
        except BlockingIOError:
            return None
        except OSError as err:
            if err.errno == errno.ENOENT:  # the request was taken back meanwhile
                return None
            raise
        if not size:
            raise OSError(errno.ENODEV, "")
        return size

    def _answer(self, request: Request | None, room: memoryview) -> None:
        if request is None or request.op in wire.UNANSWERED:
            return
        try:
            parts = self._read(request, room) if request.op == Op.READ else [self._result(request)]
            size = sum(map(len, parts))
            self._send([wire.reply_head(request.number, size), *parts])
        except KeyError:
            self._send([wire.failure(request.number, errno.ENOENT)])
        except MicrovmiError as err:
            if isinstance(err, VmGoneError):
                self._end(str(err))
            self._send([wire.failure(request.number, errno.EIO)])
        except OSError as err:
            self._send([wire.failure(request.number, err.errno or errno.EIO)])
        except Exception:  # a defect is the end of a read, not of the file system
            self._send([wire.failure(request.number, errno.EIO)])

    def _result(self, request: Request) -> bytes:
        answer = self._answers.get(request.op)
        if answer is None:
            raise OSError(errno.ENOSYS, "")
        return answer(request)

    def _send(self, parts: Sequence[memoryview | bytes]) -> None:
        if len(parts) > _MOST_VIEWS:
            parts = [b"".join(parts)]
        try:
            os.writev(self._device, parts)
        except OSError as err:
            if err.errno != errno.ENOENT:  # nobody waits for it any more
                raise

    def _end(self, reason: str) -> None:
        self.gone = self.gone or reason
        os.write(self._ended, b"e")

    # ------------------------------------------------------------------------------------------------- answers ----

    def _begin(self, request: Request) -> bytes:
        answer = wire.handshake(request.body)
        if answer is None:
            self._end("this kernel's FUSE is older than that of Linux 4.20")
            raise OSError(errno.EPROTO, "")
        return answer

    def _attributes(self, node: int) -> wire.Attributes:
        folder = self._tree.is_folder(node)
        size = 0 if folder else self._tree.size(node)
        return wire.Attributes(node, size, _FOLDER if folder else _FILE, os.getuid(), os.getgid(), self._made)

    def _lookup(self, request: Request) -> bytes:
        name = bytes(request.body).partition(b"\0")[0].decode("utf-8", "surrogateescape")
        return wire.entry(self._attributes(self._tree.child(request.node, name)), self._valid)

    def _attributes_of(self, request: Request) -> bytes:
        return wire.valid_attributes(self._attributes(request.node), self._valid)

    def _open_file(self, request: Request) -> bytes:
        file = self._tree.open(request.node)
        handle = next(self._handles)
        self._open[handle] = file
        return wire.opened(handle, wire.NO_FLUSH | (wire.KEEP_CACHE if file.fixed else wire.DIRECT_IO))

    def _open_folder(self, request: Request) -> bytes:
        found = [(node, name, self._tree.is_folder(node)) for node, name in self._tree.names(request.node)]
        handle = next(self._handles)
        self._listed[handle] = [(request.node, ".", True), (wire.ROOT, "..", True), *found]
        return wire.opened(handle, 0)

    def _list(self, request: Request) -> bytes:
        handle, first, room = wire.read_asked(request.body)
        return wire.listing(self._listed[handle], first, room)

    def _release(self, request: Request) -> bytes:
        handle = wire.handle_asked(request.body)
        self._open.pop(handle, None)
        self._listed.pop(handle, None)
        return b""

    def _read(self, request: Request, room: memoryview) -> Sequence[memoryview | bytes]:
        handle, offset, size = wire.read_asked(request.body)
        return self._open[handle].read(offset, min(size, wire.MAX_READ), room)

    def _seek(self, request: Request) -> bytes:
        handle, offset, whence = wire.seek_asked(request.body)
        return wire.sought(self._open[handle].seek(offset, whence))
