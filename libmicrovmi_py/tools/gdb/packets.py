# SPDX-License-Identifier: Apache-2.0
"""The frames of gdb's remote protocol on a connection: checksums, acknowledgements, escapes, and limits.

Whoever is at the other end may send anything: what is no frame is passed over, and what is larger than any packet ends
the connection. So does what begins as requests of HTTP do: pages that a browser shows can send some to ports of this
host, with packets inside.
"""

from __future__ import annotations

import select
import socket

PACKET_SIZE = 0x8000
"""Bytes of a packet's content at the most, in both directions; the client is told."""

LARGEST_READ = (PACKET_SIZE - 64) // 2
"""Bytes that one answer has, each of which may take two."""

NO_MEMORY, MALFORMED = b"E14", b"E16"
"""Answers to what is about memory that is not there, and to what makes no sense."""

INTERRUPT = b"\x03"
"""In place of a packet: the client wants the machine stopped."""

_SENDING = 5.0
"""Seconds that a client may take to read what it is sent."""

_ESCAPE = 0x7D
_ESCAPED = frozenset(b"#$*}")


class ConnectionEnded(Exception):
    """The client is gone, or speaks something else."""


class Wire:
    """One client's connection, which it owns."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_SENDING)
        self._connection = connection
        self._received = bytearray()
        self._last = b""
        self._begun = False
        self.acknowledged = True
        """Whether packets are acknowledged, in both directions."""

    def fileno(self) -> int:
        """For ``select``: it may have content before that says so."""
        return self._connection.fileno()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def receive(self, seconds: float) -> bytes | None:
        """The content of the next packet, or ``INTERRUPT``; ``None`` if none is complete within ``seconds``.

        Raises ``ConnectionEnded``.
        """
        packet = self._next()
        while packet is None:
            if not select.select([self._connection], [], [], seconds)[0]:
                return None
            self._read()
            packet = self._next()
        return packet

    def _read(self) -> None:
        try:
            found = self._connection.recv(PACKET_SIZE)
        except OSError as err:
            raise ConnectionEnded(str(err)) from err
        if not found:
            raise ConnectionEnded("the client hung up")
        if not self._begun and found[:1].isalpha():
            raise ConnectionEnded("the client does not speak gdb's protocol")
        self._begun = True
        self._received += found
        if len(self._received) > 4 * PACKET_SIZE:
            raise ConnectionEnded("the client sent more than a packet has")

    def _next(self) -> bytes | None:
        """Take the first packet out of what was received."""
        while self._received:
            first = self._received[0]
            if first == ord("$"):
                end = self._received.find(b"#")
                if end < 0 or len(self._received) < end + 3:
                    return None
                packet = self._taken(end)
                if packet is not None:
                    return packet
                continue
            del self._received[0]
            if first == INTERRUPT[0]:
                return INTERRUPT
            if first == ord("-") and self.acknowledged and self._last:
                self._write(self._last)
        return None

    def _taken(self, end: int) -> bytes | None:
        """The packet whose ``#`` is at ``end``, if its checksum is right."""
        content, told = bytes(self._received[1:end]), bytes(self._received[end + 1 : end + 3])
        del self._received[: end + 3]
        right = told.lower() == _checksum(content)
        if self.acknowledged:
            self._write(b"+" if right else b"-")
        elif not right:
            raise ConnectionEnded("a checksum was wrong though the client wanted none acknowledged")
        return content if right else None

    def send(self, content: bytes) -> None:
        """Send a packet; what has a meaning in a frame was escaped. Raises ``ConnectionEnded``."""
        self._last = b"$" + content + b"#" + _checksum(content)
        self._write(self._last)

    def _write(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as err:
            raise ConnectionEnded(str(err)) from err


def _checksum(content: bytes) -> bytes:
    return b"%02x" % (sum(content) & 0xFF)


def escaped(data: bytes) -> bytes:
    """Bytes as the content of a packet, without those that have a meaning there."""
    return b"".join(bytes((_ESCAPE, byte ^ 0x20)) if byte in _ESCAPED else bytes((byte,)) for byte in data)


def unescaped(content: bytes) -> bytes:
    """The bytes that a client escaped."""
    pieces = content.split(bytes((_ESCAPE,)))
    rest = (bytes((piece[0] ^ 0x20,)) + piece[1:] if piece else b"" for piece in pieces[1:])
    return pieces[0] + b"".join(rest)


def natural(text: bytes) -> int:
    """A number in hexadecimal, without a sign, of 64 bits. Raises ``ValueError``."""
    if not text or not all(byte in b"0123456789abcdefABCDEF" for byte in text):
        raise ValueError(f"{text!r} is no number")
    number = int(text, 16)
    if number >> 64:
        raise ValueError("a number has 64 bits")
    return number
