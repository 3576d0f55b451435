# SPDX-License-Identifier: Apache-2.0
"""A client of the QEMU Machine Protocol: JSON objects over a stream socket, a time limit on everything."""

from __future__ import annotations

import contextlib
import json
import socket
from types import TracebackType

from libmicrovmi_py.declare import Any
from libmicrovmi_py.errors import DriverUnavailableError, IoError, TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.shape import record, records, shown, text

LARGEST_MESSAGE = 4 << 20
"""Bytes; a longer message is taken for garbage. The largest answer is that of ``info mtree -f``, some 100 KiB. Python's
objects take up to thirty times as many bytes as their text."""

DEEPEST_MESSAGE = 64
"""Objects and lists within each other. Python's parser takes stack for each, which a host's thread may not have."""

_CHUNK = 1 << 16
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_ALIKE = bytes.maketrans(b"[]", b"{}")


class QmpProtocolError(DriverUnavailableError):
    """The other end does not speak QMP."""


class QmpHangupError(DriverUnavailableError):
    """The other end closed the connection."""


class QmpCommandError(IoError):
    """QEMU answered with an error: ``kind`` is its class, ``description`` its text."""

    def __init__(self, command: str, kind: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description}")
        self.kind = kind
        self.description = description


class QmpClient:
    """One connection, for one operation that has to be done before ``deadline``.

    Every call raises ``QmpHangupError``, ``QmpProtocolError`` or ``TimeoutExpiredError``; the connection is of no use
    afterwards. Owns the socket.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._received = bytearray()
        self._last_id = 0

    def __enter__(self) -> QmpClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def greet(self, deadline: Deadline) -> None:
        """Wait until ``deadline`` for the greeting, then leave negotiation mode."""
        message = self._message(deadline)
        if "QMP" not in message:
            raise QmpProtocolError(f"not a QMP server: it greets with {shown(message)}")
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a command and return its result; ``_`` in an argument's name stands for ``-``.

        Events and replies to nobody are skipped. Raises also ``QmpCommandError``.
        """
        self._last_id += 1
        request = {"execute": command, "id": self._last_id}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._send(json.dumps(request).encode() + b"\n")
        while True:
            reply = self._message(self._deadline)
            if "event" not in reply and reply.get("id", self._last_id) == self._last_id:
                return _result(command, reply)

    def record(self, command: str, **arguments: object) -> dict[str, Any]:
        """As :meth:`execute`, of a command that answers with an object; ``IoError`` for another answer."""
        return record(self.execute(command, **arguments), f"QEMU's answer to {command}")

    def records(self, command: str, **arguments: object) -> list[dict[str, Any]]:
        """As :meth:`execute`, of a command that answers with a list of objects; ``IoError`` for another answer."""
        return records(self.execute(command, **arguments), f"QEMU's answer to {command}")

    def human(self, command: str, **arguments: object) -> str:
        """Run a command of the human monitor and return its text. Raises as :meth:`record`."""
        answer = self.execute("human-monitor-command", command_line=command, **arguments)
        return text(answer, f"QEMU's answer to {command}").replace("\r\n", "\n")

    def _send(self, data: bytes) -> None:
        try:
            self._sock.settimeout(self._time_left(self._deadline))
            self._sock.sendall(data, socket.MSG_NOSIGNAL)
        except TimeoutError as err:
            raise _late(self._deadline) from err
        except OSError as err:
            raise QmpHangupError(f"the connection broke: {err.strerror or err}") from err

    def _message(self, deadline: Deadline) -> dict[str, Any]:
        """The next JSON object. It is one line, or, from a QMP monitor with ``pretty=on``, several indented ones."""
        lines = bytearray()
        while True:
            line = self._line(deadline, len(lines))
            if not lines and not line.strip():
                continue
            if (not lines and not line.startswith(b"{")) or (lines and line.startswith(b"{")):
                raise QmpProtocolError(f"not a QMP server: it sent {bytes(line[:60])!r}")
            complete = line.startswith(b"}") or (not lines and line.rstrip().endswith(b"}"))
            lines += line
            if complete:
                return _parsed(bytes(lines))

    def _line(self, deadline: Deadline, before: int) -> bytes:
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if before + searched > LARGEST_MESSAGE:
                raise QmpProtocolError(f"not a QMP server: a message of more than {LARGEST_MESSAGE >> 20} MiB")
            self._receive(deadline)
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        return line

    def _receive(self, deadline: Deadline) -> None:
        try:
            self._sock.settimeout(self._time_left(deadline))
            data = self._sock.recv(_CHUNK)
        except TimeoutError as err:
            raise _late(deadline) from err
        except OSError as err:
            raise QmpHangupError(f"the connection broke: {err.strerror or err}") from err
        if not data:
            raise QmpHangupError("QEMU closed the connection")
        self._received += data

    def _time_left(self, deadline: Deadline) -> float:
        left = min(deadline.remaining, self._deadline.remaining)
        if left == 0.0:
            raise _late(deadline)
        return left


def _late(deadline: Deadline) -> TimeoutExpiredError:
    return TimeoutExpiredError(f"no answer from QEMU within {deadline.seconds:g} s")


def _parsed(line: bytes) -> dict[str, Any]:
    message = None
    if not _too_deep(line):
        with contextlib.suppress(ValueError, RecursionError):
            message = json.loads(line)
    if not isinstance(message, dict):
        raise QmpProtocolError(f"not a QMP server: it sent {line[:60]!r}")
    return message


def _too_deep(line: bytes) -> bool:
    """Whether objects and lists are nested deeper than ``DEEPEST_MESSAGE``, or one of them has no end."""
    outside = b"".join(line.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside.translate(_ALIKE, _NO_BRACKETS)
    for _ in range(DEEPEST_MESSAGE):
        if not brackets:
            return False
        brackets = brackets.replace(b"{}", b"")
    return bool(brackets)


def _result(command: str, reply: dict[str, Any]) -> Any:
    if "return" in reply:
        return reply["return"]
    error = reply.get("error")
    if not isinstance(error, dict):
        raise QmpProtocolError(f"{command}: an answer without a result: {shown(reply)}")
    kind, description = (text(error.get(name, ""), f"an error's {name}") for name in ("class", "desc"))
    raise QmpCommandError(command, kind, description)
