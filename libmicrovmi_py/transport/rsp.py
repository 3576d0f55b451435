# SPDX-License-Identifier: Apache-2.0
"""A client of the remote serial protocol, which debuggers speak: packets with checksums, a time limit on everything."""

from __future__ import annotations

import socket

from libmicrovmi_py.errors import IoError, TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.shape import shown

LARGEST_PACKET = 1 << 16
"""Bytes; a longer one is taken for garbage. QEMU sends 4 KiB at the most."""

_LARGEST_FILE = 1 << 20
"""Bytes of a description; QEMU's have some 10 KiB."""

_CHUNK = 4096
_PIECE = 0xFFB
"""Bytes of a description that are asked for at a time: what fits into a packet with its framing."""

_ACKNOWLEDGED = b"+"
_ESCAPE, _ESCAPED = b"}", 0x20


class RspClient:
    """One connection to a stub whose machine stands. Every call raises ``IoError`` for an answer that is none, and for
    a peer that hangs up, ``TimeoutExpiredError`` after ``deadline``. Owns the socket.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._received = bytearray()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def ask(self, packet: str) -> str:
        """Send a packet and take the answer. A stop that is told before it, unasked, is skipped."""
        data = packet.encode()
        self._send(b"+$%b#%02x" % (data, _checksum(data)))
        while (answer := self._packet())[:1] in ("T", "S"):
            pass
        return answer

    def order(self, packet: str) -> None:
        """Send a packet that has to be answered by ``OK``."""
        answer = self.ask(packet)
        if answer != "OK":
            raise IoError(f"the debugger's stub refused {packet}: {shown(answer)}")

    def read_file(self, name: str) -> str:
        """A description of the target, ``target.xml`` for example."""
        text = ""
        while True:
            answer = self.ask(f"qXfer:features:read:{name}:{len(text):x},{_PIECE:x}")
            if answer[:1] not in ("l", "m") or (answer[0] == "m" and len(answer) == 1):
                raise IoError(f"the debugger's stub has no {name}: {shown(answer)}")
            text += answer[1:]
            if answer[0] == "l":
                return text
            if len(text) > _LARGEST_FILE:
                raise IoError(f"the debugger's stub tells a {name} without an end")

    def read_register(self, number: int, size: int) -> int:
        """A register of ``size`` bytes of the vCPU that was chosen by ``Hg``."""
        answer = self.ask(f"p{number:x}")
        try:
            value = bytes.fromhex(answer)
        except ValueError:
            value = b""
        if len(value) != size:
            raise IoError(f"the debugger's stub tells no register {number} of {size} bytes: {shown(answer)}")
        return int.from_bytes(value, "little")

    def write_register(self, number: int, value: int, size: int) -> None:
        """Make ``value`` that of a register; that the stub says so proves nothing."""
        self.order(f"P{number:x}={value.to_bytes(size, 'little').hex()}")

    def _packet(self) -> str:
        """The next packet: what stands between ``$`` and ``#``, if the checksum behind it is right."""
        while True:
            end = self._received.find(b"#")
            if end >= 0 and len(self._received) >= end + 3:
                return self._taken(end)
            if len(self._received) > LARGEST_PACKET:
                raise IoError(f"not a debugger's stub: a packet of more than {LARGEST_PACKET} bytes")
            self._receive()

    def _taken(self, end: int) -> str:
        before, _, data = bytes(self._received[:end]).partition(b"$")
        told = bytes(self._received[end + 1 : end + 3])
        del self._received[: end + 3]
        if before.strip(_ACKNOWLEDGED) or told != b"%02x" % _checksum(data):
            raise IoError(f"not a debugger's stub: it sent {shown(before + b'$' + data)}")
        plain, *escaped = data.split(_ESCAPE)
        return (plain + b"".join(bytes([each[0] ^ _ESCAPED]) + each[1:] for each in escaped if each)).decode("latin-1")

    def _receive(self) -> None:
        try:
            self._sock.settimeout(self._time_left())
            data = self._sock.recv(_CHUNK)
        except TimeoutError as err:
            raise self._late() from err
        except OSError as err:
            raise IoError(f"the debugger's stub: the connection broke: {err.strerror or err}") from err
        if not data:
            raise IoError("the debugger's stub hung up")
        self._received += data

    def _send(self, data: bytes) -> None:
        try:
            self._sock.settimeout(self._time_left())
            self._sock.sendall(data, socket.MSG_NOSIGNAL)
        except TimeoutError as err:
            raise self._late() from err
        except OSError as err:
            raise IoError(f"the debugger's stub: the connection broke: {err.strerror or err}") from err

    def _time_left(self) -> float:
        left = self._deadline.remaining
        if left == 0.0:
            raise self._late()
        return left

    def _late(self) -> TimeoutExpiredError:
        return TimeoutExpiredError(f"no answer from the debugger's stub within {self._deadline.seconds:g} s")


def _checksum(data: bytes) -> int:
    return sum(data) & 0xFF
