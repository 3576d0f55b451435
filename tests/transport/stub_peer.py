# SPDX-License-Identifier: Apache-2.0
"""A peer that plays a debugger's stub: a socket's end, what it has said already, and what it was sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.transport.packets import StubPackets

STOP = b"T05thread:01;watch:ffff888000001000;"
OTHER = b"T05thread:02;watch:ffff888000002000;"


def packet(text: bytes) -> bytes:
    """As a stub sends it."""
    return b"$%b#%02x" % (text, sum(text) & 0xFF)


def number(value: int) -> bytes:
    """A register, as a stub tells it."""
    return value.to_bytes(8, "little").hex().encode()


@contextmanager
def peer(*packets: bytes, seconds: float = 5.0) -> Iterator[tuple[StubPackets, socket.socket]]:
    """A client, and its peer, which has sent these packets."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    far.setblocking(False)
    client = StubPackets(near, seconds)
    far.sendall(b"".join(map(packet, packets)))
    try:
        yield client, far
    finally:
        client.close()
        far.close()
