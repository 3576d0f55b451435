# SPDX-License-Identifier: Apache-2.0
"""QEMU's stub for debuggers, opened for one operation on a machine that stands, through a descriptor of ours."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from libmicrovmi_py.declare import NamedTuple, Protocol
from libmicrovmi_py.drivers.control import Phase
from libmicrovmi_py.drivers.qemu import stops
from libmicrovmi_py.drivers.qemu.late import EVENTS, heal_events
from libmicrovmi_py.errors import DriverUnavailableError, IoError, MicrovmiError
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.qmp import QmpClient, Question
from libmicrovmi_py.transport.rsp import RspClient
from libmicrovmi_py.transport.shape import decimal, shown, text

_NAME = "microvmi-stub"
"""Of the character device, and of the descriptor that it is made of."""

_PARTS = 2
"""What is said to the stub may take one of so many equal parts of the time, so that it can be ended within the rest."""

_INCLUDE = re.compile(r'<xi:include href="([\w.-]+)"')
_REGISTER = re.compile(r"<reg\s([^<>]*)>")
_ATTRIBUTE = re.compile(r'\b(\w+)="([^"]*)"')
_MOST_BITS = 4096
_HIGHEST_NUMBER = 0xFFFF


class StubRegister(NamedTuple):
    """The number of a register, its size in bytes."""

    number: int
    size: int


class Described(Protocol):
    """A stub's connection."""

    def read_file(self, name: str) -> str:
        """A description of the target."""


class _Watch:
    """Whether the machine stands, by the events of its monitor and by its state; events come before a reply."""

    def __init__(self, client: QmpClient) -> None:
        self._client = client

    def fileno(self) -> int:
        return self._client.fileno()

    def look(self) -> None:
        """Raises ``DriverUnavailableError`` for a machine that runs, or ran since the stub was opened."""
        if runs(self._client.ask("query-status")) or self._client.run_event:
            raise _ran()


@contextmanager
def opened(client: QmpClient, others: Collection[str]) -> Iterator[RspClient]:
    """The stub for the length of a ``with`` block. It must not be told to run the machine, nor to stop it anywhere.

    ``others`` are names that the character devices of other stubs may have. Raises ``DriverUnavailableError`` if
    somebody else has the stub, and for a machine that somebody let run meanwhile: at once if an answer is waited for,
    else at the end. If the connection breaks, a character device stays with QEMU that stops nothing; the next use of
    the stub removes it.
    """
    make_room(client, others)
    client.run_event = ""
    with contextlib.ExitStack() as stack:
        with StandardStreamsHeld():
            ours, theirs = socket.socketpair()
        rsp = RspClient(ours, client.share(_PARTS), _Watch(client))
        stack.callback(_check_stood, client, rsp)
        stack.callback(rsp.close)
        with theirs:
            client.hand_over(theirs.fileno(), "getfd", fdname=_NAME).result()
        add(client, _NAME)
        stack.callback(_detach, client)
        _attach(client, rsp)
        rsp.ask("qSupported:multiprocess-")
        yield rsp


def check_free(client: QmpClient, others: Collection[str], wanted: str = "registers are written") -> None:
    """Raise ``DriverUnavailableError`` if somebody else has the stub; ``wanted`` is what it is wanted for."""
    for item in client.records("query-chardev"):
        label = text(item.get("label"), "the name of a character device")
        place = text(item.get("filename", ""), "the place of a character device")
        if label in others:
            raise DriverUnavailableError(
                f"{wanted} by QEMU's debugger's stub, which is somebody else's ({label}: {place}): "
                f"'gdbserver none' in the human monitor ends it"
            )
        if label == EVENTS and not place.startswith("disconnected:"):
            raise DriverUnavailableError("a program listens to events of this machine by its debugger's stub")
        if label == _NAME and not place.startswith("disconnected:"):
            raise DriverUnavailableError("another program writes registers of this machine at this moment")


def make_room(client: QmpClient, others: Collection[str], wanted: str = "registers are written") -> None:
    """Undo what a program of ours left that was killed while it had the stub. Arguments: as :func:`check_free`."""
    check_free(client, others, wanted)
    heal_events(client, client.ask("query-chardev"))
    for name in (_NAME, EVENTS):
        remove(client, name)


def remove(client: QmpClient, name: str) -> None:
    """Remove the character device if it is there: somebody who opens the stub for himself has it removed."""
    for item in client.records("query-chardev"):
        if item.get("label") == name and item.get("frontend-open"):
            client.human("gdbserver none")
        elif item.get("label") == name:
            client.execute("chardev-remove", id=name)


def add(client: QmpClient, name: str) -> None:
    """Make a character device of the descriptor of that name, which was handed over."""
    backend = {"addr": {"type": "fd", "data": {"str": name}}, "server": False}
    try:
        client.execute("chardev-add", id=name, backend={"type": "socket", "data": backend})
    except IoError:
        client.execute("closefd", fdname=name)
        raise


def _attach(client: QmpClient, rsp: RspClient) -> None:
    """Have QEMU connect, which stops a machine that runs. Raises ``DriverUnavailableError`` for one that ran.

    QEMU takes at most one command of another client between two of ours, so that a machine that stood before ours and
    stopped since was let run by others and stopped by us.
    """
    status, order = client.ask("query-status"), client.ask_human(f"gdbserver chardev:{_NAME}")
    ran, earlier = runs(status), client.run_event
    client.run_event = ""
    answer = order.human()
    if not answer.startswith("Waiting"):
        raise IoError(f"QEMU opens no debugger's stub: {shown(answer.strip())}")
    rsp.swallowed = ran or bool(client.run_event)
    if rsp.swallowed or earlier:
        raise _ran()


def _detach(client: QmpClient) -> None:
    with contextlib.suppress(MicrovmiError):  # the connection broke, and that is being told
        remove(client, _NAME)


def _check_stood(client: QmpClient, rsp: RspClient) -> None:
    """Let a machine run that ran, and that the stub stopped; one that somebody else stopped after that stands."""
    if rsp.swallowed and stops.word(client.ask("query-status")) == "paused":
        client.execute("cont")
    if rsp.swallowed or client.run_event:
        raise _ran()


def runs(status: Question) -> bool:
    """Whether the machine runs, or will in a moment, by the answer to ``query-status``."""
    return stops.run_state(stops.word(status)).phase in (Phase.RUNS, Phase.PASSING)


def _ran() -> DriverUnavailableError:
    return DriverUnavailableError("somebody else let the machine run while its registers were written: pause it")


def registers(stub: Described) -> dict[str, StubRegister]:
    """The core registers, by the stub's names for them: those of the first description that ``target.xml`` includes."""
    included = _INCLUDE.findall(_without_comments(stub.read_file("target.xml")))
    if not included:
        raise IoError("the debugger's stub describes no registers")
    found: dict[str, StubRegister] = {}
    number = 0
    for item in _REGISTER.findall(_without_comments(stub.read_file(included[0]))):
        values = dict(_ATTRIBUTE.findall(item))
        bits = decimal(values.get("bitsize", ""), _MOST_BITS)
        told = decimal(values.get("regnum", str(number)), _HIGHEST_NUMBER)
        if not bits or bits % 8 or told is None:
            raise IoError("the debugger's stub describes a register without a size or a number")
        found[values.get("name", "")] = StubRegister(told, bits // 8)
        number = told + 1
    return found


def _without_comments(text: str) -> str:
    """In one pass, whatever the text is."""
    first, *others = text.split("<!--")
    return first + "".join(part.partition("-->")[2] for part in others)
