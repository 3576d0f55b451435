# SPDX-License-Identifier: Apache-2.0
"""Whether a connection leads to a certain process: proven by the sockets that the process has, not by names."""

from __future__ import annotations

import socket
import struct

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.sockets import peer_inode, plain_address, same_namespace, tcp_sockets

_CREDENTIALS = struct.Struct("3i")
_RIGHTS = "run as the user of that process or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"


class PeerError(DriverUnavailableError):
    """Somebody else is at the other end, or it cannot be proven. ``pid`` is who listens, 0 if that is not known."""

    def __init__(self, text: str, pid: int = 0) -> None:
        super().__init__(text)
        self.pid = pid


class Credentials(NamedTuple):
    """The process that called ``listen()`` at the other end of a UNIX socket; ``pid`` is 0 if we cannot see it."""

    pid: int
    uid: int


def credentials(sock: socket.socket) -> Credentials:
    """Who listens at the other end; pid 0 and uid -1 if the system does not tell, as of TCP."""
    if sock.family != socket.AF_UNIX:
        return Credentials(0, -1)
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Credentials(pid, uid)


def check_peer(sock: socket.socket, process: Process) -> None:
    """Make sure that a connection that was accepted leads to ``process``. Raises ``PeerError``.

    Its socket at the other end has to be among the open files of the process. Where those cannot be read, or the
    kernel does not tell that socket, a UNIX socket on which the process itself began to listen will do; TCP then
    proves nothing.
    """
    if sock.family == socket.AF_UNIX:
        _check_unix(sock, process)
    else:
        _check_tcp(sock, process, process.socket_inodes())


def _check_unix(sock: socket.socket, process: Process) -> None:
    listener, inode = credentials(sock), peer_inode(sock)
    has = process.has_socket(inode)
    if _leads_to(process, inode, has, listener):
        return
    if has is None:
        raise PeerError(f"it cannot be told whether process {process.pid} serves it: {_RIGHTS}", listener.pid)
    raise PeerError(_other(listener.pid, process), listener.pid)


def _leads_to(process: Process, inode: int, has: bool | None, listener: Credentials) -> bool:
    if inode and has is not None:
        return has
    return listener.pid == process.pid


def _check_tcp(sock: socket.socket, process: Process, inodes: set[int] | None) -> None:
    if inodes is None:
        raise PeerError(f"it cannot be told whether process {process.pid} serves it: {_RIGHTS}, or use a UNIX socket")
    ours, theirs = (_end(address) for address in (sock.getsockname(), sock.getpeername()))
    tables = ["self"]
    if not theirs[0].startswith("127.") and theirs[0] != "::1" and not same_namespace(process, "net"):
        tables.append(str(process.pid))
    for table in tables:
        for row in tcp_sockets(table):
            if (row.local, row.remote) == (theirs, ours) and row.inode in inodes:
                return
    raise PeerError(_other(0, process))


def _end(address: tuple[str, int]) -> tuple[str, int]:
    return plain_address(address[0]), address[1]


def _other(pid: int, process: Process) -> str:
    listener = Process.find(pid) if pid else None
    told = f"process {pid} ({listener.executable()})" if listener else "another process"
    return f"{told} listens there, not process {process.pid}"
