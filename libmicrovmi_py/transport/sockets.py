# SPDX-License-Identifier: Apache-2.0
"""The kernel's tables of sockets: which a process has, and which one is at the other end of a connection.

``/proc/PID/net/unix`` is text that every user can write into: a name may hold a newline, and with it a whole row. What
is read there is a guess, never a proof. The kernel's answer to a question about one socket (``sock_diag``) is exact.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator

from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.processes import Process

_UNIX_ROW = rb"[0-9a-fA-F]+: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8}) [0-9A-F]{4} ([0-9A-F]{2}) +([0-9]{1,10}) (.+)"
_TCP_ROW = (
    r" *[0-9]+: ([0-9A-F]{8}(?:[0-9A-F]{24})?):([0-9A-F]{4}) ([0-9A-F]{8}(?:[0-9A-F]{24})?):([0-9A-F]{4}) ([0-9A-F]{2})"
    r" \S+ \S+ \S+ +[0-9]+ +[0-9]+ ([0-9]{1,20})\b.*"
)
_LISTENING, _CONNECTED = 0x0A, 0x01
_MAPPED = "::ffff:"

_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1
_SHOW_NAME, _SHOW_PEER = 1, 4
_NAME, _PEER = 0, 2
_NO_COOKIE = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBHIIIII")
_ANSWER = struct.Struct("=BBBBI8x")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class UnixRow:
    """A UNIX socket; a connection that nobody accepted yet has no row or inode 0. ``path`` starts with ``@`` for an
    abstract name."""

    inode: int
    listening: bool
    connected: bool
    path: str


@dataclass(frozen=True, slots=True)
class TcpRow:
    """A TCP socket: the addresses and ports of both ends as text and numbers; IPv4 within IPv6 is told as IPv4."""

    local: tuple[str, int]
    remote: tuple[str, int]
    listening: bool
    connected: bool
    inode: int


def unix_sockets(pid: int | str = "self") -> Iterator[UnixRow]:
    """The named UNIX sockets in the network namespace of a process, as far as the text can be read: guesses."""
    try:
        with StandardStreamsHeld(), open(f"/proc/{pid}/net/unix", "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return
    row = re.compile(_UNIX_ROW)  # it takes a while, and most never need it
    for line in lines:
        if match := row.fullmatch(line):
            flags, state = int(match[1], 16), int(match[2], 16)
            yield UnixRow(int(match[3]), bool(flags & 0x10000), state == 3, os.fsdecode(match[4]))


def unix_sockets_of(process: Process) -> list[UnixRow]:
    """The named UNIX sockets that a process has; none if the system does not tell."""
    inodes = process.socket_inodes() or set()
    with _Diagnosis() as kernel:
        rows = [row for inode in inodes if (row := kernel.unix_row(inode))]
    if rows and same_namespace(process, "net"):
        return [row for row in rows if row.path]
    known = {row.inode for row in rows}
    return rows + [row for row in unix_sockets(process.pid) if row.inode in inodes - known]


def peer_inode(sock: socket.socket) -> int:
    """The inode of the socket at the other end of a UNIX connection; 0 if nobody accepted it, or that is not told."""
    with _Diagnosis() as kernel:
        return kernel.peer(os.fstat(sock.fileno()).st_ino)


def was_left(inode: int) -> bool:
    """Whether whoever was connected to that UNIX socket has hung up; ``False`` if that is not told."""
    with _Diagnosis() as kernel:
        return kernel.was_left(inode)


def same_namespace(process: Process, kind: str) -> bool:
    """Whether a process is in our namespace of that kind (``net``, ``mnt``); ``True`` if the system does not tell."""
    own = Process.find(os.getpid())
    theirs = process.link(f"ns/{kind}")
    return own is None or theirs in ("", own.link(f"ns/{kind}"))


def tcp_sockets(pid: int | str = "self") -> Iterator[TcpRow]:
    """The TCP sockets in the network namespace of a process."""
    row = re.compile(_TCP_ROW)
    for table in ("tcp", "tcp6"):
        try:
            with StandardStreamsHeld(), open(f"/proc/{pid}/net/{table}", encoding="ascii", errors="replace") as file:
                lines = file.read().split("\n")
        except OSError:
            continue
        for line in lines:
            if match := row.fullmatch(line):
                state = int(match[5], 16)
                local, remote = (_address(match[1]), int(match[2], 16)), (_address(match[3]), int(match[4], 16))
                yield TcpRow(local, remote, state == _LISTENING, state == _CONNECTED, int(match[6]))


def plain_address(text: str) -> str:
    """An address without what IPv6 adds to it: the prefix of IPv4 within it, and the name of an interface."""
    return text.partition("%")[0].removeprefix(_MAPPED)


def _address(digits: str) -> str:
    """The kernel's form of an address: words of 32 bits in the order of this machine's bytes."""
    words = [int(digits[index : index + 8], 16) for index in range(0, len(digits), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    return plain_address(socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, raw))


class _Diagnosis:
    """Questions to the kernel about single UNIX sockets of our network namespace and their peers."""

    def __init__(self) -> None:
        try:
            with StandardStreamsHeld():
                self._sock: socket.socket | None = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG)
            self._sock.settimeout(1)
        except OSError:
            self._sock = None

    def __enter__(self) -> _Diagnosis:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sock is not None:
            self._sock.close()

    def peer(self, inode: int) -> int:
        """The inode of the socket that the one with ``inode`` is connected to, 0 if there is none."""
        peer = self._attributes(inode, _SHOW_PEER)[1].get(_PEER, b"")
        return int.from_bytes(peer, "little" if struct.pack("=H", 1)[0] else "big") if len(peer) == 4 else 0

    def was_left(self, inode: int) -> bool:
        """Whether it is connected to a socket that has been closed: the kernel tells inode 0 of such a one."""
        state, attributes = self._attributes(inode, _SHOW_PEER)
        return state == _CONNECTED and not any(attributes.get(_PEER, b""))

    def unix_row(self, inode: int) -> UnixRow | None:
        """That socket, its name ``""`` if it has none; ``None`` if it is none of ours, or no UNIX socket."""
        state, attributes = self._attributes(inode, _SHOW_NAME)
        name = attributes.get(_NAME, b"")
        path = b"@" + name[1:] if name.startswith(b"\0") else name.partition(b"\0")[0]
        return UnixRow(inode, state == _LISTENING, state == _CONNECTED, os.fsdecode(path)) if state else None

    def _attributes(self, inode: int, show: int) -> tuple[int, dict[int, bytes]]:
        """State and attributes of a socket; state 0 if the kernel does not answer."""
        question = _QUESTION.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, show, _NO_COOKIE, _NO_COOKIE)
        header = _HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST, 1, 0)
        if self._sock is None or inode > 0xFFFFFFFF:
            return 0, {}
        try:
            self._sock.sendto(header + question, (0, 0))
            answer = self._sock.recv(4096)
        except OSError:
            return 0, {}
        length, kind, *_ = _HEADER.unpack_from(answer)
        if kind != _BY_FAMILY:
            return 0, {}
        _, _, state, _, told = _ANSWER.unpack_from(answer, _HEADER.size)
        return (state, _parsed(answer[_HEADER.size + _ANSWER.size : length])) if told == inode else (0, {})


def _parsed(data: bytes) -> dict[int, bytes]:
    """Attributes of netlink: length, kind, value, each aligned to 4 bytes."""
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return found
