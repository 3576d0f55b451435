# SPDX-License-Identifier: Apache-2.0
"""Where debuggers connect: a UNIX socket or a port of loopback, one client after another, and never from elsewhere."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import InvalidArgumentError, IoError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.machine.release import release_all
from libmicrovmi_py.tools.gdb.packets import ConnectionEnded, Wire
from libmicrovmi_py.tools.gdb.session import Session

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel

_RELEASE = 10.0
"""Seconds in which a machine is left as it was found, when a client has gone."""

_BACKLOG = 4


@contextmanager
def listening(where: str) -> Iterator[socket.socket]:
    """A socket that listens at ``where``: a path, or ADDRESS:PORT of loopback; the file goes at the end of the block.

    Raises ``InvalidArgumentError`` for addresses that others can reach, ``IoError`` if the place is taken.
    """
    address = _loopback(where)
    try:
        listener = _at_path(where) if address is None else _at_port(*address)
    except OSError as err:
        raise IoError(f"cannot listen at {where}: {err.strerror or err}") from err
    try:
        yield listener
    finally:
        listener.close()
        if address is None:
            with suppress(OSError):
                os.unlink(where)


def _at_port(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _at_path(path: str) -> socket.socket:
    """The file is made with rights for its user only."""
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _loopback(where: str) -> tuple[str, int] | None:
    """Host and port; ``None`` for a path."""
    host, colon, port = where.rpartition(":")
    if not colon or not port.isdigit() or "/" in where:
        return None
    host = host.strip("[]")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback or int(port) > 0xFFFF:
        raise InvalidArgumentError(
            f"{where} is no address of loopback: whoever connects reads and writes the machine, "
            "so listen at 127.0.0.1:PORT or at a path, and let ssh carry it"
        )
    return host, int(port)


def target(listener: socket.socket) -> str:
    """What ``target remote`` connects to."""
    name = listener.getsockname()
    return str(name) if isinstance(name, str) else f"{f'[{name[0]}]' if ':' in name[0] else name[0]}:{name[1]}"


def serve(machine: Microvmi, listener: socket.socket, ends: int | None = None, kernel: Kernel | None = None) -> None:
    """Serve clients, one at a time, until the descriptor ``ends`` is readable, or for ever.

    A client has the machine stopped when it connects; when it is gone, whatever ended it, the machine is left as it was
    found. Raises ``VmGoneError`` when the machine has ended, and what pausing it raises.
    """
    while (connection := _accepted(listener, ends)) is not None:
        with connection:
            _serve_one(machine, connection, kernel)


def _accepted(listener: socket.socket, ends: int | None) -> socket.socket | None:
    waits: list[int | socket.socket] = [listener] if ends is None else [listener, ends]
    while ends not in (ready := select.select(waits, [], [])[0]) or listener in ready:
        with suppress(OSError):
            return listener.accept()[0]
    return None


def _serve_one(machine: Microvmi, connection: socket.socket, kernel: Kernel | None) -> None:
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        with suppress(ConnectionEnded):
            Session(machine, Wire(connection), kernel).serve()
    finally:
        release_all(_RELEASE)
