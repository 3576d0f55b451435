# SPDX-License-Identifier: Apache-2.0
"""Opening the stub for as long as events are listened to, and ending it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.qemu import stops
from libmicrovmi_py.drivers.qemu.events.link import Link
from libmicrovmi_py.drivers.qemu.events.watched import Watched
from libmicrovmi_py.drivers.qemu.late import EVENTS
from libmicrovmi_py.drivers.qemu.stub import add, make_room, remove, runs
from libmicrovmi_py.errors import IoError, MicrovmiError
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.qmp import QmpClient
from libmicrovmi_py.transport.shape import shown

_OURS = ("paused", "debug")
"""What the machine does that stands by our interrupt, or at what we placed."""


_TRIES = 4
"""How often it is let run at the end."""


class Opened(NamedTuple):
    """The stub's connection, and whether the machine ran before it was stopped by that."""

    link: Link
    ran: bool


def open_stub(client: QmpClient, others: Collection[str], timeout: float, watched: Watched) -> Opened:
    """Have QEMU connect to us, which stops a machine that runs. Raises as ``stub.opened``, with nothing left of it."""
    make_room(client, others, "events are told")
    with contextlib.ExitStack() as stack:
        with StandardStreamsHeld():
            ours, theirs = socket.socketpair()
        link = Link(ours, timeout)
        stack.callback(link.close)
        watched.start(client, ours)
        stack.callback(watched.done)
        with theirs:
            client.hand_over(theirs.fileno(), "getfd", fdname=EVENTS).result()
        add(client, EVENTS)
        stack.callback(_remove, client)
        ran = runs(client.ask("query-status"))
        watched.ran(ran)
        answer = client.human(f"gdbserver chardev:{EVENTS}")
        if ran:
            stack.callback(run, client)
        if not answer.startswith("Waiting"):
            raise IoError(f"QEMU opens no debugger's stub: {shown(answer.strip())}")
        link.question("qSupported:multiprocess-")
        link.forget_stops()  # older ones tell of the stop by the connection
        stack.pop_all()
    return Opened(link, ran)


def close_stub(client: QmpClient, link: Link, watched: Watched, *, let_run: bool) -> None:
    """End the stub, at which nothing is placed any more. ``let_run``: the machine stands by it alone."""
    link.close()
    remove(client, EVENTS)
    if let_run:
        run(client)
    watched.done()


def run(client: QmpClient) -> None:
    """Let a machine run that stands by a stub.

    It may be called running with one vCPU alone let go, which is not what it is after it was told to stop.
    """
    client.execute("stop")
    ours: tuple[str, ...] = _OURS
    for _ in range(_TRIES):  # a vCPU may have something to stop for that belongs to what is not there any more
        if stops.word(client.ask("query-status")) not in ours:
            break
        client.execute("cont")
        ours = ("debug",)


def _remove(client: QmpClient) -> None:
    with contextlib.suppress(MicrovmiError):  # the connection broke, and that is being told
        remove(client, EVENTS)
