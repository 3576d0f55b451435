# SPDX-License-Identifier: Apache-2.0
"""Leaving an order with a QEMU whose process is stopped, which it carries out when it goes on, also after our end."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence

from libmicrovmi_py.drivers.qemu.places import held_by_another
from libmicrovmi_py.errors import MicrovmiError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.peers import credentials
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.unixsock import Endpoint, UnixEndpoint

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
