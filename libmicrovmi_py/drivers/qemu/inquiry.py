# SPDX-License-Identifier: Apache-2.0
"""Asking many monitors at once what their machines are, without waiting for one of them: one limit for all.

A monitor serves one client. So one that another client holds is left alone; a free one is asked everything in one
write, and left as soon as it has answered, or has taken too long.
"""

from __future__ import annotations

import json
import select
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.qemu.greeting import check_first, without_options
from libmicrovmi_py.drivers.qemu.machines import Qemu
from libmicrovmi_py.drivers.qemu.places import held_by_another
from libmicrovmi_py.errors import DriverUnavailableError, MicrovmiError, TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.messages import Messages, QmpProtocolError, check_before_greeting
from libmicrovmi_py.transport.peers import check_peer
from libmicrovmi_py.transport.qmp import QmpHangupError, some_number
from libmicrovmi_py.transport.unixsock import Endpoint

ALL = 1.0
"""Seconds that all monitors together are asked."""

_EACH = 0.25
"""Seconds that one may take where others wait for their turn, or the machine has another monitor."""

_AT_ONCE = 64
"""Connections: each takes a descriptor of the program's."""

COMMANDS = ("qmp_capabilities", "query-status", "query-memory-size-summary", "query-cpus-fast", "query-uuid")
_MOST = 1 << 20
"""Bytes of answers; those of 1024 vCPUs are the largest."""

_MOST_MESSAGES = 100
"""Answers, and events between them."""

_CHUNK = 1 << 16


class Inquiry:
    """What the monitors of one QEMU are asked, one after the other until one answers.

    ``places`` are all of them. ``answers`` are by command, of those that were not refused. ``errors`` are those of the
    monitors that did not answer; there are none if no monitor came to be asked.
    """

    def __init__(self, qemu: Qemu, places: Sequence[Endpoint]) -> None:
        self.qemu = qemu
        self.answers: dict[str, Any] = {}
        self.errors: list[tuple[Endpoint, MicrovmiError]] = []
        self.places = tuple(places)
        self._places = deque(places)
        self._sock: socket.socket | None = None

    def begin(self) -> int | None:
        """Connect to the next monitor that nobody holds: the number of its socket, ``None`` if there is none."""
        while self._places:
            self._place = place = self._places.popleft()
            try:
                if held_by_another(self.qemu.process, place):
                    raise TimeoutExpiredError("another client holds it")
                self._sock = place.connect(Deadline(0))
            except (DriverUnavailableError, TimeoutExpiredError) as err:
                self.errors.append((place, err))
                continue
            self._sock.setblocking(False)
            self._messages, self._options, self._size, self._count = Messages(), bytearray(), 0, 0
            self._begun = self._greeted = False
            self._first_id = some_number()
            self._end = Deadline(_EACH)
            return self._sock.fileno()
        return None

    def remaining(self, *, crowded: bool) -> float:
        """Seconds that the monitor which is asked has left; ``crowded`` is whether other machines await their turn."""
        return self._end.remaining if crowded or self._places else ALL

    def go_on(self) -> bool:
        """Take what has come; whether that is all, be it an error."""
        try:
            return self._take()
        except (DriverUnavailableError, TimeoutExpiredError) as err:
            self.errors.append((self._place, err))
        except OSError as err:
            self.errors.append((self._place, QmpHangupError(f"the connection broke: {err.strerror or err}")))
        return True

    def give_up(self) -> None:
        """The time is over."""
        self.errors.append((self._place, TimeoutExpiredError("no answer in time")))

    def hang_up(self) -> None:
        """Leave the monitor."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _take(self) -> bool:
        assert self._sock is not None
        data = self._sock.recv(_CHUNK)
        if not data:
            raise QmpHangupError("QEMU closed the connection")
        self._size += len(data)
        self._messages.add(data if self._greeted else self._first(data))
        while (message := self._messages.next()) is not None:
            self._count += 1
            if self._hear(message, self._sock):
                return True
        if self._size > _MOST or self._count > _MOST_MESSAGES:
            raise QmpProtocolError(f"not a QMP server: it answers with more than {_MOST >> 20} MiB")
        return False

    def _first(self, data: bytes) -> bytes:
        """What comes before a greeting is whole, without what is no part of it."""
        self._options += data
        if (text := without_options(self._options)) and not self._begun:
            check_first(text)
            self._begun = True
        return text

    def _hear(self, message: dict[str, Any], sock: socket.socket) -> bool:
        """Whether this was the last answer. Nothing is said before it is proven who is at the other end."""
        if "QMP" in message and not self._greeted:
            check_peer(sock, self.qemu.process)
            self._greeted = True
            if sock.send(request := _request(self._first_id), socket.MSG_NOSIGNAL) != len(request):
                raise QmpHangupError("the connection broke: it takes no requests")
            return False
        if "event" in message:
            return False
        if not self._greeted:
            check_before_greeting(message)
            return False
        told = message.get("id")
        number = told - self._first_id if isinstance(told, int) else -1
        if "return" in message and 0 < number < len(COMMANDS):
            self.answers[COMMANDS[number]] = message["return"]
        return number == len(COMMANDS) - 1


def _request(first_id: int) -> bytes:
    """All commands, numbered from there."""
    lines = (json.dumps({"execute": command, "id": first_id + at}) for at, command in enumerate(COMMANDS))
    return "".join(f"{line}\n" for line in lines).encode()


def ask_all(inquiries: Iterable[Inquiry]) -> Iterator[Inquiry]:
    """Ask the monitors of all; those whose turn does not come in ``ALL`` seconds are told, and were not asked.

    What has come is taken after each connection that is made: those take time as well.
    """
    deadline, waiting, poll = Deadline(ALL), deque(inquiries), select.poll()
    asked: dict[int, Inquiry] = {}
    try:
        while (waiting or asked) and not deadline.expired:
            if may_begin := bool(waiting) and len(asked) < _AT_ONCE:
                inquiry = waiting.popleft()
                if not _begun(inquiry, asked, poll):
                    yield inquiry
            most = 0.0 if may_begin and waiting else deadline.remaining
            yield from _round(asked, poll, most, crowded=bool(waiting))
        for inquiry in asked.values():
            inquiry.give_up()
            yield inquiry
    finally:
        for inquiry in asked.values():
            inquiry.hang_up()
    yield from waiting


def _begun(inquiry: Inquiry, asked: dict[int, Inquiry], poll: select.poll) -> bool:
    number = inquiry.begin()
    if number is None:
        return False
    asked[number] = inquiry
    poll.register(number, select.POLLIN)
    return True


def _round(asked: dict[int, Inquiry], poll: select.poll, most: float, *, crowded: bool) -> Iterator[Inquiry]:
    """Wait for what comes next, ``most`` seconds, and tell those that are done with all of their monitors."""
    wait = min((most, *(inquiry.remaining(crowded=crowded) for inquiry in asked.values())))
    come = {number for number, _ in poll.poll(1000 * wait)} if asked else set()
    for number, inquiry in list(asked.items()):
        done = inquiry.go_on() if number in come else False
        if not done and not inquiry.remaining(crowded=crowded):
            inquiry.give_up()
            done = True
        if done:
            poll.unregister(number)
            inquiry.hang_up()
            del asked[number]
            if inquiry.answers or not _begun(inquiry, asked, poll):
                yield inquiry
