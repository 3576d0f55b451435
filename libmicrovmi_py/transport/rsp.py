# SPDX-License-Identifier: Apache-2.0
"""A client of the remote serial protocol, which debuggers speak: packets with checksums, a time limit on everything."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from libmicrovmi_py.declare import Protocol
from libmicrovmi_py.errors import IoError, MicrovmiError, TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.shape import shown

LARGEST_PACKET = 1 << 16
"""Bytes; a longer one is taken for garbage. QEMU sends 4 KiB at the most."""

_LARGEST_FILE = 1 << 20
"""Bytes of a description; QEMU's have some 10 KiB."""

_CHUNK = 4096
_PIECE = 0xFFB
"""Bytes of a description that are asked for at a time: what fits into a packet with its framing."""

_LOOK = 20
"""Milliseconds that an answer is waited for before the watch looks; one takes less than one."""

_ARRIVES = 0.02
"""Seconds within which an answer comes that comes at all."""

_ACKNOWLEDGED = b"+"
_ESCAPE, _ESCAPED = b"}", 0x20


def framed(packet: str) -> bytes:
    """A packet as it is sent."""
    data = packet.encode()
    return b"$%b#%02x" % (data, _checksum(data))


class Packets:
    """The packets in what arrives, each as soon as it is whole. Raises ``IoError`` for what is none."""

    def __init__(self) -> None:
        self._received = bytearray()

    def add(self, data: bytes) -> None:
        """What has arrived."""
        self._received += data

    def next(self) -> str | None:
        """What stands between ``$`` and ``#``, if the checksum behind it is right; ``None``: it is not whole yet."""
        end = self._received.find(b"#")
        if end >= 0 and len(self._received) >= end + 3:
            return self._taken(end)
        if len(self._received) > LARGEST_PACKET:
            raise IoError(f"not a debugger's stub: a packet of more than {LARGEST_PACKET} bytes")
        return None

    def _taken(self, end: int) -> str:
        before, _, data = bytes(self._received[:end]).partition(b"$")
        told = bytes(self._received[end + 1 : end + 3])
        del self._received[: end + 3]
        if before.strip(_ACKNOWLEDGED) or told != b"%02x" % _checksum(data):
            raise IoError(f"not a debugger's stub: it sent {shown(before + b'$' + data)}")
        plain, *escaped = data.split(_ESCAPE)
        return (plain + b"".join(bytes([each[0] ^ _ESCAPED]) + each[1:] for each in escaped if each)).decode("latin-1")


def read_file(ask: Callable[[str], str], name: str) -> str:
    """A description of the target, ``target.xml`` for example, by a way to ask the stub."""
    text = ""
    while True:
        answer = ask(f"qXfer:features:read:{name}:{len(text):x},{_PIECE:x}")
        if answer[:1] not in ("l", "m") or (answer[0] == "m" and len(answer) == 1):
            raise IoError(f"the debugger's stub has no {name}: {shown(answer)}")
        text += answer[1:]
        if answer[0] == "l":
            return text
        if len(text) > _LARGEST_FILE:
            raise IoError(f"the debugger's stub tells a {name} without an end")


class Watch(Protocol):
    """Who tells whether the machine still stands."""

    def fileno(self) -> int:
        """What becomes readable when there may be something to tell; -1 for nothing."""

    def look(self) -> None:
        """Raise a ``MicrovmiError`` if the machine ran meanwhile."""


class RspClient:
    """One connection to a stub whose machine stands. Every call raises ``IoError`` for an answer that is none, and for
    a peer that hangs up, ``TimeoutExpiredError`` after ``deadline``. Owns the socket.

    A machine that runs is stopped by what it is sent, and swallows it. ``watch`` is asked while an answer is waited
    for; with its error the connection is over, so that nothing more stops the machine.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline, watch: Watch | None = None) -> None:
        self._sock = sock
        self._deadline = deadline
        self._watch = watch
        self._packets = Packets()
        self.swallowed = False
        """Whether the machine ran, and what was sent to it stopped it."""

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def ask(self, packet: str) -> str:
        """Send a packet and take the answer. A stop that is told before it, unasked, is skipped.

        The last answer is not acknowledged, which who begins a packet need not do: a machine that runs would swallow
        that, and answer the packet.
        """
        self._send(framed(packet))
        return self._answer()

    def order(self, packet: str) -> None:
        """Send a packet that has to be answered by ``OK``."""
        answer = self.ask(packet)
        if answer != "OK":
            raise IoError(f"the debugger's stub refused {packet}: {shown(answer)}")

    def read_file(self, name: str) -> str:
        """As :func:`read_file`."""
        return read_file(self.ask, name)

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

    def _answer(self) -> str:
        while (answer := self._packet())[:1] in ("T", "S"):
            pass
        return answer

    def _packet(self) -> str:
        while (packet := self._packets.next()) is None:
            self._receive()
        return packet

    def _wait(self, watch: Watch) -> None:
        """Wait for something to receive, as long as the machine stands."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if watch.fileno() >= 0:
            poll.register(watch.fileno(), select.POLLIN)
        while self._sock.fileno() not in dict(poll.poll(min(_LOOK, 1000 * self._time_left()))):
            try:
                watch.look()
            except MicrovmiError:
                self._leave()
                raise

    def _leave(self) -> None:
        """Hang up, having waited for what becomes of the packet that was sent last."""
        self._deadline, self._watch = Deadline(_ARRIVES), None
        try:
            self._answer()
        except TimeoutExpiredError:
            self.swallowed = True
        except IoError:
            pass  # the stub is gone: it stops nothing
        finally:
            self.close()

    def _receive(self) -> None:
        if self._watch:
            self._wait(self._watch)
        try:
            self._sock.settimeout(self._time_left())
            data = self._sock.recv(_CHUNK)
        except TimeoutError as err:
            raise self._late() from err
        except OSError as err:
            raise IoError(f"the debugger's stub: the connection broke: {err.strerror or err}") from err
        if not data:
            raise IoError("the debugger's stub hung up")
        self._packets.add(data)

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
