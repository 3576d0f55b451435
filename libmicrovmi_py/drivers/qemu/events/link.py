# SPDX-License-Identifier: Apache-2.0
"""A connection to QEMU's stub for debuggers whose machine runs at times.

Any byte stops a machine that runs, and is lost. So it is sent an interrupt and nothing else; questions are for one that
stands.
"""

from __future__ import annotations

import socket
from binascii import Error, unhexlify

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import IoError, TimeoutExpiredError
from libmicrovmi_py.transport.packets import Plan, StubPackets, sent
from libmicrovmi_py.transport.rsp import framed, read_file
from libmicrovmi_py.transport.shape import shown

_INTERRUPT = b"\x03"


class Stand(NamedTuple):
    """A stop of the machine: the packet that tells it, and what the plan asked for, nothing if it is no trap."""

    packet: str
    answers: list[str]


class Link:
    """Owns the socket. Every call raises ``DriverUnavailableError`` if QEMU, or who has the stub now, hung up."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        """``timeout``: seconds that an answer may take."""
        self._timeout = timeout
        self._packets = StubPackets(sock, timeout)
        self.close = self._packets.close
        self.wait = self._packets.wait
        self.wake = self._packets.wake

    @property
    def is_lost(self) -> bool:
        """Whether it was found out that the other end is gone."""
        return self._packets.is_lost

    def ask(self, *packets: str) -> list[str]:
        """Send packets in one go to a machine that stands; their answers."""
        return [answer.decode("latin-1") for answer in self._packets.ask(packets)]

    def question(self, packet: str) -> str:
        """As :meth:`ask`, of one."""
        (answer,) = self.ask(packet)
        return answer

    def read_file(self, name: str) -> str:
        """A description of the target."""
        return read_file(self.question, name)

    def order(self, *packets: str) -> None:
        """Send packets that have to be answered by ``OK``."""
        for packet, answer in zip(packets, self.ask(*packets), strict=True):
            if answer != "OK":
                raise IoError(f"the debugger's stub refused {packet}: {shown(answer)}")

    def go(self, packet: str) -> None:
        """Send a packet with which a machine that stands goes on: who stops it from now on comes behind that."""
        self._packets.go(packet)

    def interrupt(self) -> None:
        """Stop a machine that runs; one that stands does not notice."""
        self._packets.send(_INTERRUPT)

    def stand(self, plan: Plan, seconds: float) -> Stand | None:
        """Wait until a machine that runs has stopped, and ask it what the plan says; ``None``: it runs, as nothing came
        in time, or as it was :meth:`woken <wake>`."""
        told = self._packets.stand(plan, seconds)
        if told is None:
            return None
        packet, *answers = (each.decode("latin-1") for each in told)
        return Stand(packet, answers)

    def stop_told(self, seconds: float = 0.0) -> str | None:
        """The next packet of a stop, if one comes in that time."""
        told = self._packets.stop_told(seconds)
        return None if told is None else told.decode("latin-1")

    def await_stop(self) -> str:
        """The next packet of a stop. Raises ``TimeoutExpiredError``."""
        told = self.stop_told(self._timeout)
        if told is None:
            raise TimeoutExpiredError(f"no answer from the debugger's stub within {self._timeout:g} s")
        return told

    def human(self, command: str) -> str:
        """What the human monitor answers to a command; the machine stands."""
        self._packets.send(sent(f"qRcmd,{command.encode().hex()}"))
        text = b""
        while (answer := self._packets.answer()) != b"OK":
            text += raw(answer.removeprefix(b"O"))
        return text.decode(errors="replace").replace("\r\n", "\n")

    def stop(self) -> bool:
        """Stop a machine, and tell whether it ran until then: one that ran swallowed the first of two questions."""
        self._packets.send(framed("qC") + b"+" + framed("qAttached"))
        ran = True
        while self._packets.answer() != b"1":
            ran = False
        return ran

    def forget_stops(self) -> None:
        """Those that have come are of no interest."""
        while self._packets.stop_told() is not None:
            pass


def raw(answer: bytes | str) -> bytes:
    """The bytes that an answer has the digits of."""
    try:
        return unhexlify(answer)
    except (Error, ValueError):
        raise IoError(f"the debugger's stub tells no registers: {shown(str(answer[:80]))}") from None
