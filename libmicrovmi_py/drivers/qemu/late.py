# SPDX-License-Identifier: Apache-2.0
"""What is done late: an order left with a QEMU that is stopped, and the healing of what a killed process left."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Sequence

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.qemu import stops
from libmicrovmi_py.drivers.qemu.places import held_by_another
from libmicrovmi_py.errors import IoError, MicrovmiError, logger
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.peers import credentials
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.qmp import QmpClient, Question
from libmicrovmi_py.transport.shape import text
from libmicrovmi_py.transport.unixsock import Endpoint, UnixEndpoint

_log = logger(__name__)

EVENTS = "microvmi-events"
"""The name of the character device, and of the descriptor that it is made of, of the stub of who listens to events."""

_CONNECT = 0.2
"""Seconds; there is room in the queue of a server, or there is none."""


def leave_run(process: Process, endpoints: Sequence[Endpoint]) -> bool:
    """Leave ``cont`` with a stopped process, at a monitor that nobody else holds; whether that was done.

    Nothing is left with a process that runs: it may be busy with the end of a migration, and must not run afterwards.
    Nor is it left at a monitor that another client holds: QEMU would carry it out when that client leaves, perhaps
    days later.
    """
    if not process.stopped:
        return False
    return any(
        _leave(process, place)
        for place in endpoints
        if isinstance(place, UnixEndpoint) and not held_by_another(process, place)
    )


def _leave(process: Process, place: UnixEndpoint) -> bool:
    try:
        with place.connect(Deadline(_CONNECT)) as sock:
            if credentials(sock).pid != process.pid:
                return False
            _send(sock, f"microvmi-{os.getpid()}")
            return True
    except (MicrovmiError, OSError):
        return False


def _send(sock: socket.socket, name: str) -> None:
    """QEMU drops what it has not carried out yet when its client hangs up, and our socket closes with this process.

    So the socket itself is sent to QEMU, behind the order: it stays open, in the queue, until QEMU has read so far, and
    is closed by the command after that.
    """
    sock.sendall(_line("qmp_capabilities") + _line("cont"), socket.MSG_NOSIGNAL)
    message = _line("getfd", fdname=name) + _line("closefd", fdname=name)
    socket.send_fds(sock, [message], [sock.fileno()], socket.MSG_NOSIGNAL)


def _line(command: str, **arguments: str) -> bytes:
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"


class Left(NamedTuple):
    """What is asked to see what a process of ours left that was killed."""

    able: Question
    devices: Question


def ask_left(client: QmpClient) -> Left:
    """Ask it."""
    return Left(client.ask("query-migrate-capabilities"), client.ask("query-chardev"))


def heal(client: QmpClient, process: Process, left: Left) -> None:
    """Undo what it left."""
    _heal_snapshot(client, process, left.able)
    heal_events(client, left.devices)


def _heal_snapshot(client: QmpClient, process: Process, able: Question) -> None:
    """Of one that ended while it took a snapshot: a capability that is on."""
    with contextlib.suppress(IoError):
        if stops.capabilities(able).get("background-snapshot"):
            with StandardStreamsHeld():
                from libmicrovmi_py.drivers.qemu.orders import heal
            heal(client, process)


def heal_events(client: QmpClient, devices: Question) -> None:
    """Of one that listened to events, and whose watcher was killed, too: what is placed. It stays if that fails."""
    try:
        if is_left(devices):
            with StandardStreamsHeld():
                from libmicrovmi_py.drivers.qemu.events.healing import heal
            heal(client)
    except MicrovmiError as err:
        _log.warning("what a program left in the machine that listened to events stays there: %s", err)


def is_left(devices: Question) -> bool:
    """Whether a stub of who listened to events is there, and nobody at its end, by the answer to ``query-chardev``."""
    return any(
        item.get("label") == EVENTS and text(item.get("filename", ""), "its place").startswith("disconnected:")
        for item in devices.records()
    )
