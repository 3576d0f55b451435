# SPDX-License-Identifier: Apache-2.0
"""Stream sockets of this machine: connecting within a time limit."""

from __future__ import annotations

import os
import socket
import time

from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.errors import DriverUnavailableError, TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld

LONGEST_NAME = 107
"""Bytes that fit into a UNIX socket's address."""

_RETRY = 0.005


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """A UNIX socket. ``path`` is where to connect; a leading NUL makes it an abstract name.

    ``bound`` is the name that the server gave, as the kernel's table shows it.
    """

    path: str
    bound: str

    def __str__(self) -> str:
        return self.bound

    def connect(self, deadline: Deadline) -> socket.socket:
        """Connect, waiting while the server's queue is full.

        Raises ``DriverUnavailableError`` or ``TimeoutExpiredError``.
        """
        try:
            address, _keep = _address(os.fsencode(self.path))
            return _connected(socket.AF_UNIX, address, deadline)
        except TimeoutError as err:
            raise TimeoutExpiredError(f"{self}: its queue was full for {deadline.seconds:g} s") from err
        except (OSError, ValueError) as err:
            place = self.path.replace("\0", "@", 1)
            raise DriverUnavailableError(f"{place}: {getattr(err, 'strerror', '') or err}") from err


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """A TCP server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def connect(self, deadline: Deadline) -> socket.socket:
        """Connect. Raises ``DriverUnavailableError``, ``TimeoutExpiredError``."""
        try:
            with StandardStreamsHeld():
                return socket.create_connection((self.host, self.port), timeout=max(deadline.remaining, 0.001))
        except TimeoutError as err:
            raise TimeoutExpiredError(f"{self}: no connection within {deadline.seconds:g} s") from err
        except (OSError, ValueError, OverflowError) as err:
            raise DriverUnavailableError(f"{self}: {getattr(err, 'strerror', '') or err}") from err


Endpoint = UnixEndpoint | TcpEndpoint


def _address(path: bytes) -> tuple[bytes, OwnedFd | None]:
    """An address that fits, and what has to stay open while it is used."""
    if len(path) <= LONGEST_NAME:
        return path, None
    fd = OwnedFd.open(os.fsdecode(path), os.O_PATH)
    return b"/proc/self/fd/%d" % fd.number, fd


def _connected(family: int, address: bytes, deadline: Deadline) -> socket.socket:
    with StandardStreamsHeld():
        sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while not _try_connect(sock, address):
            if deadline.expired:
                raise TimeoutError
            time.sleep(_RETRY)
    except BaseException:
        sock.close()
        raise
    return sock


def _try_connect(sock: socket.socket, address: bytes) -> bool:
    try:
        sock.connect(address)
    except BlockingIOError:
        return False
    return True
