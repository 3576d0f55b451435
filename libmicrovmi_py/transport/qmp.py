# SPDX-License-Identifier: Apache-2.0
"""A client of the QEMU Machine Protocol, as by a stream socket: JSON objects, a time limit on everything."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from types import TracebackType

from libmicrovmi_py.declare import TYPE_CHECKING, Any, NamedTuple, dataclass, replace
from libmicrovmi_py.errors import DriverUnavailableError, IoError, TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.messages import Messages, QmpProtocolError, check_before_greeting
from libmicrovmi_py.transport.shape import record, records, shown, text

if TYPE_CHECKING:
    from libmicrovmi_py.transport.processes import Process
    from libmicrovmi_py.transport.unixsock import Endpoint

RUN_EVENTS = ("STOP", "RESUME")
"""What QEMU tells everybody when the machine stops, and when it runs."""

MAP_EVENTS = ("DEVICE_DELETED", "ACPI_DEVICE_OST", "MEMORY_DEVICE_SIZE_CHANGE", "RESET")
"""What QEMU tells everybody when something was taken out, a guest took something in, or the machine begins anew."""

_CHUNK = 1 << 16
_encoded = json.JSONEncoder(separators=(",", ":")).encode


class QmpHangupError(DriverUnavailableError):
    """The other end closed the connection."""


class QmpCommandError(IoError):
    """QEMU answered with an error: ``kind`` is its class, ``description`` its text."""

    def __init__(self, command: str, kind: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description}")
        self.kind = kind
        self.description = description


class Request(NamedTuple):
    """A command to be sent: its number among those of its client, its name, and the message without a number."""

    number: int
    command: str
    message: dict[str, object]


@dataclass(frozen=True, slots=True)
class Question:
    """A command whose answer has yet to be taken; every way to take it raises as :meth:`QmpClient.execute`.

    ``line`` is what the human monitor is asked, if it is.
    """

    client: QmpClient
    command: str
    number: int
    line: str = ""

    def result(self) -> Any:
        """The answer, whatever it is."""
        return self.client.answer(self)

    def record(self) -> dict[str, Any]:
        """The answer, an object; ``IoError`` for another."""
        return record(self.result(), f"QEMU's answer to {self.command}")

    def records(self) -> list[dict[str, Any]]:
        """The answer, a list of objects; ``IoError`` for another."""
        return records(self.result(), f"QEMU's answer to {self.command}")

    def human(self) -> str:
        """The answer, a text of the human monitor; ``IoError`` for another."""
        return self.unchanged().replace("\r\n", "\n")

    def unchanged(self) -> str:
        """As :meth:`human`, with the line ends that came."""
        return text(self.result(), f"QEMU's answer to {self.line}")


class QmpClient:
    """What a monitor is asked, and what it answers, whatever carries the messages: see the classes made of it.

    For operations one after the other, each with its own deadline. Commands that are asked go out together, before the
    first answer is awaited: QEMU takes them in their order, and a trip to it costs more than most commands. Every call
    raises ``DriverUnavailableError`` or ``TimeoutExpiredError``; the client is of no use afterwards.
    """

    run_event = ""
    """The last of ``RUN_EVENTS`` that came: it comes before the reply to the command that it is about."""
    map_changed = False
    """Whether one of ``MAP_EVENTS`` came."""
    place: Endpoint | None = None
    """Where it is connected to; ``None`` if something else is between."""
    process: Process
    """The QEMU."""

    def __init__(self, deadline: Deadline, last_id: int = 0) -> None:
        self._deadline = deadline
        self._asked: list[Request] = []
        self._last_id = last_id
        self._early: dict[int, dict[str, Any]] = {}
        self._descriptor: int | None = None

    def close(self) -> None:
        """Hang up."""
        raise NotImplementedError

    def fileno(self) -> int:
        """A descriptor that is readable when an event came, or anything else; -1: there is none, and no events come."""
        return -1

    def begin(self, deadline: Deadline) -> None:
        """The next operation, which has to be done before ``deadline``."""
        self._deadline = deadline

    def ask(self, command: str, **arguments: object) -> Question:
        """Have a command run, together with the next that is waited for; ``_`` in an argument's name stands for ``-``.

        The answers may be taken in any order, or left.
        """
        self._last_id += 1
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._asked.append(Request(self._last_id, command, request))
        return Question(self, command, self._last_id)

    def ask_human(self, line: str, **arguments: object) -> Question:
        """As :meth:`ask`, a command of the human monitor."""
        return replace(self.ask("human-monitor-command", command_line=line, **arguments), line=line)

    def hand_over(self, descriptor: int, command: str, **arguments: object) -> Question:
        """As :meth:`ask`, of a command that takes a descriptor; ours stays open, until it is sent at least.

        Raises ``DriverUnavailableError`` where no descriptors can be handed over.
        """
        self._check_takes_descriptors()
        self._send_asked()
        self._descriptor = descriptor
        return self.ask(command, **arguments)

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a command and return its result. Raises also ``QmpCommandError``."""
        return self.ask(command, **arguments).result()

    def record(self, command: str, **arguments: object) -> dict[str, Any]:
        """As :meth:`execute`, of a command that answers with an object; ``IoError`` for another answer."""
        return self.ask(command, **arguments).record()

    def records(self, command: str, **arguments: object) -> list[dict[str, Any]]:
        """As :meth:`execute`, of a command that answers with a list of objects; ``IoError`` for another answer."""
        return self.ask(command, **arguments).records()

    def human(self, line: str, **arguments: object) -> str:
        """Run a command of the human monitor and return its text. Raises as :meth:`record`."""
        return self.ask_human(line, **arguments).human()

    def answer(self, question: Question) -> Any:
        """The result of a question, taken once. Raises also ``QmpCommandError``."""
        self._send_asked()
        return _result(question.command, self._reply(question.number))

    def _send_asked(self) -> None:
        if self._asked:
            asked, self._asked = self._asked, []
            descriptor, self._descriptor = self._descriptor, None
            self._deliver(asked, descriptor)

    def share(self, parts: int) -> Deadline:
        """A part of the time that this operation has left."""
        return self._deadline.share(parts)

    def _check_takes_descriptors(self) -> None:
        """Raise ``DriverUnavailableError`` if none can be handed over."""

    def _deliver(self, asked: Sequence[Request], descriptor: int | None) -> None:
        """Send commands, with the first of them a descriptor."""
        raise NotImplementedError

    def _reply(self, number: int) -> dict[str, Any]:
        """The reply to the command of that number, which was delivered."""
        raise NotImplementedError


class SocketClient(QmpClient):
    """A connection to the monitor itself, whose socket it owns.

    Raises ``QmpHangupError`` and ``QmpProtocolError`` besides.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline, last_id: int | None = None) -> None:
        """``last_id``: behind it the numbers of commands begin; at :func:`some_number` if it is not said."""
        super().__init__(deadline, some_number() if last_id is None else last_id)
        self._sock = sock
        self._messages = Messages()
        self._open: set[int] = set()
        self._negotiation: Question | None = None

    def fileno(self) -> int:
        """That of the socket."""
        return self._sock.fileno()

    def __enter__(self) -> SocketClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def greet(self, deadline: Deadline) -> None:
        """Wait until ``deadline`` for the greeting, and ask to leave negotiation mode; the answer is taken later.

        What comes before it is passed over: events, and answers to the client before this one, which hung up meanwhile.
        """
        while "QMP" not in (message := self._message(deadline)):
            check_before_greeting(message)
        self._negotiation = self.ask("qmp_capabilities")
        self._send_asked()

    def _check_takes_descriptors(self) -> None:
        if self._sock.family != socket.AF_UNIX:
            raise DriverUnavailableError("a monitor by TCP takes no descriptors, one by a UNIX socket does")

    def _deliver(self, asked: Sequence[Request], descriptor: int | None) -> None:
        self._open.update(request.number for request in asked)
        lines = (_encoded({**request.message, "id": request.number}) for request in asked)
        self._send("".join(f"{line}\n" for line in lines).encode(), descriptor)

    def _reply(self, number: int) -> dict[str, Any]:
        """The reply of that number; those to earlier questions, which come before it, are kept for who takes them.

        Other events, and replies to nobody, are skipped.
        """
        negotiation, self._negotiation = self._negotiation, None
        if negotiation is not None:
            self._be_in_command_mode(negotiation)
        self._open.discard(number)
        while number not in self._early:
            reply = self._message(self._deadline)
            told = reply.get("id")
            if "event" in reply:
                self._hear(reply["event"])
            elif told == number or (isinstance(told, int) and told < number and told in self._open):
                self._early[told] = reply
        return self._early.pop(number)

    def _be_in_command_mode(self, negotiation: Question) -> None:
        """QEMU may have taken the wish of the client before, who hung up, for this one's: it then refuses ours."""
        try:
            self.answer(negotiation)
        except QmpCommandError as err:
            if err.kind != "CommandNotFound":
                raise

    def _hear(self, event: object) -> None:
        if event in RUN_EVENTS:
            self.run_event = str(event)
        self.map_changed = self.map_changed or event in MAP_EVENTS

    def _send(self, data: bytes, descriptor: int | None) -> None:
        """Send all of it; a descriptor that is handed over goes with the first byte."""
        try:
            self._sock.settimeout(self._time_left(self._deadline))
            if descriptor is not None:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))
                data = data[self._sock.sendmsg([data], [rights], socket.MSG_NOSIGNAL) :]
            self._sock.sendall(data, socket.MSG_NOSIGNAL)
        except TimeoutError as err:
            raise late(self._deadline) from err
        except OSError as err:
            raise QmpHangupError(f"the connection broke: {err.strerror or err}") from err

    def _message(self, deadline: Deadline) -> dict[str, Any]:
        while (message := self._messages.next()) is None:
            self._receive(deadline)
        return message

    def _receive(self, deadline: Deadline) -> None:
        try:
            self._sock.settimeout(self._time_left(deadline))
            data = self._sock.recv(_CHUNK)
        except TimeoutError as err:
            raise late(deadline) from err
        except OSError as err:
            raise QmpHangupError(f"the connection broke: {err.strerror or err}") from err
        if not data:
            raise QmpHangupError("QEMU closed the connection")
        self._messages.add(data)

    def _time_left(self, deadline: Deadline) -> float:
        left = min(deadline.remaining, self._deadline.remaining)
        if left == 0.0:
            raise late(deadline)
        return left


def late(deadline: Deadline) -> TimeoutExpiredError:
    """The error for an answer that did not come."""
    return TimeoutExpiredError(f"no answer from QEMU within {deadline.seconds:g} s")


def some_number() -> int:
    """Where a connection's numbers of commands begin: QEMU may hand it what it answers to the client before, too."""
    return int.from_bytes(os.urandom(5), "little")


def _result(command: str, reply: dict[str, Any]) -> Any:
    if "return" in reply:
        return reply["return"]
    error = reply.get("error")
    if not isinstance(error, dict):
        raise QmpProtocolError(f"{command}: an answer without a result: {shown(reply)}")
    kind, description = (text(error.get(name, ""), f"an error's {name}") for name in ("class", "desc"))
    raise QmpCommandError(command, kind, description)
