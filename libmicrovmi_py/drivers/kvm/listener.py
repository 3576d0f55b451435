# SPDX-License-Identifier: Apache-2.0
"""Waiting for QEMU: libkvmi listens on a socket, QEMU connects to it.

libkvmi removes what is at the path, and accepts on a thread of its own until it is told to end, which waits for that
thread. Here it is told so as soon as the first machine is there, or the time is up.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.kvm import abi
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    MicrovmiError,
    PermissionDeniedError,
    TimeoutExpiredError,
)
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.foreign import Foreign
from libmicrovmi_py.transport.processes import names_in

connections: set[int] = set()
"""The descriptors of machines that are open, which the end of a wait for another one must leave alone."""


class _Arrival:
    """The first machine that connects; libkvmi tells of it on its own thread, through ``callback``."""

    def __init__(self, foreign: Foreign) -> None:
        self._lib = foreign.lib
        self.guest: Any = None
        self.happened = threading.Event()
        self.callback = foreign.ffi.callback("new_guest", self._accept, error=-1)

    def _accept(self, guest: Any, _uuid: Any, _context: Any) -> int:
        if self.guest is not None:
            return -1
        self.guest = guest
        connections.add(self._lib.kvmi_connection_fd(guest))
        self.happened.set()
        return 0

    def dismiss(self) -> None:
        """Hang up again."""
        if self.guest is not None:
            connections.discard(self._lib.kvmi_connection_fd(self.guest))
            self._lib.kvmi_domain_close(self.guest, True)


def wait_for_guest(foreign: Foreign, path: str, timeout: float) -> Any:
    """Listen at ``path`` until a machine connects, ``timeout`` seconds at the most; libkvmi's handle of the machine.

    Its descriptor is then one of ``connections``. Raises ``TimeoutExpiredError``, ``InvalidArgumentError`` for a path
    that cannot be one of a socket, ``DriverUnavailableError``.
    """
    check_path(path)
    arrival = _Arrival(foreign)
    try:
        with _listening(foreign, path, arrival):
            arrival.happened.wait(timeout)
    except BaseException:
        arrival.dismiss()
        raise
    if arrival.guest is None:
        raise TimeoutExpiredError(
            f"no QEMU connected to {path} within {timeout:.3g} s: start it with -chardev socket,path={path},... and "
            "-object introspection,..., or give it more time (timeout)"
        )
    return arrival.guest


@contextmanager
def _listening(foreign: Foreign, path: str, arrival: _Arrival) -> Iterator[None]:
    null = foreign.ffi.NULL
    listener = foreign.lib.kvmi_init_unix_socket(os.fsencode(path), arrival.callback, null, null)
    if listener == null:
        raise _cannot_listen(path, foreign.ffi.errno)
    ours = _identity(path)
    try:
        yield
    finally:
        _stop_listening(foreign, listener, path)
        _remove(path, ours)


def check_path(path: str) -> None:
    """Raise unless libkvmi may remove what is at ``path``, and listen there."""
    if not path.isprintable():
        raise InvalidArgumentError(f"kvm_unix_socket={path!a}: not a printable path")
    if len(os.fsencode(path)) > abi.PATH_LIMIT:
        raise InvalidArgumentError(f"kvm_unix_socket={path}: longer than the {abi.PATH_LIMIT} bytes of a socket's path")
    try:
        kind = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(kind):
        raise InvalidArgumentError(f"kvm_unix_socket={path}: there is something that is not a socket")
    if _is_listened_to(path):
        raise DriverUnavailableError(f"another introspector listens at {path}: end it, or use another path")


def _is_listened_to(path: str) -> bool:
    """Whether a socket is bound to ``path``; asked with another type, so that its owner does not notice."""
    with StandardStreamsHeld(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT, errno.EACCES)


def _cannot_listen(path: str, error: int) -> MicrovmiError:
    if error in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError(f"cannot listen at {path}: {os.strerror(error)}")
    return DriverUnavailableError(f"cannot listen at {path}: {os.strerror(error or errno.EIO)}")


def _stop_listening(foreign: Foreign, listener: Any, path: str) -> None:
    """End libkvmi's thread, also if it is in a handshake with a peer that says nothing.

    It would wait 15 s for each of that peer's words. So first nobody new is let in, then who is in is put out.
    """
    for listening in (True, False):
        for number, sock in _sockets_at(path, listening):
            if number not in connections:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
    foreign.lib.kvmi_uninit(listener)


def _sockets_at(path: str, listening: bool) -> Iterator[tuple[int, socket.socket]]:
    """This process's sockets bound to ``path``, those that listen or the others: number, and a duplicate."""
    for number in map(int, names_in("/proc/self/fd")):
        sock = _duplicate(number)
        if sock is None:
            continue
        with sock:
            accepts = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            if sock.family == socket.AF_UNIX and sock.getsockname() == path and accepts == listening:
                yield number, sock


def _duplicate(number: int) -> socket.socket | None:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return None
        with StandardStreamsHeld():
            return socket.socket(fileno=os.dup(number))
    except OSError:
        return None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _remove(path: str, ours: tuple[int, int] | None) -> None:
    """Remove the socket that libkvmi bound, unless somebody else has put another one there."""
    if ours is not None and _identity(path) == ours:
        os.unlink(path)
