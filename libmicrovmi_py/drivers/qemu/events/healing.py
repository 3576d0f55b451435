# SPDX-License-Identifier: Apache-2.0
"""Undoing what a process left that was killed while it listened to events, and whose watcher was killed as well."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection

from libmicrovmi_py.drivers.qemu import stops
from libmicrovmi_py.drivers.qemu.late import EVENTS
from libmicrovmi_py.drivers.qemu.stub import add, check_free, remove
from libmicrovmi_py.errors import DriverUnavailableError, TimeoutExpiredError, logger
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.qmp import QmpClient
from libmicrovmi_py.transport.watcher import Job, Watcher, Word

_log = logger(__name__)

_RAN = ("running", "debug")
"""What a machine does that ran when nobody listened: it stands by what is placed, or has yet to come to it."""

_SECONDS = 5.0
"""It takes a tenth of one, in which the machine stands."""


def heal(client: QmpClient) -> None:
    """Have the watcher do on a stub of its own what it had done if it had lived. Raises for what is left then.

    A machine that somebody has paused stays so, and runs on when he lets it.
    """
    status = stops.word(client.ask("query-status"))
    remove(client, EVENTS)
    with contextlib.ExitStack() as stack:
        with StandardStreamsHeld():
            ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        watcher = Watcher(Job.EVENTS)
        with theirs:
            watcher.start(None, client.process, ours.fileno())
            stack.callback(watcher.end)
            watcher.say(Word.RUNS if status in _RAN else Word.STANDS)
            client.hand_over(theirs.fileno(), "getfd", fdname=EVENTS).result()
        add(client, EVENTS)
        client.human(f"gdbserver chardev:{EVENTS}")
        watcher.say(Word.TAKE_OVER)
        if not watcher.wait(Deadline(_SECONDS)):
            raise TimeoutExpiredError(f"the watcher has not undone it within {_SECONDS:g} s")
        remove(client, EVENTS)
    if status in _RAN and stops.word(client.ask("query-status")) == "debug":
        client.execute("cont")
    _log.warning("QEMU still stopped the machine for events, for a process that had ended")


def taken_out(client: QmpClient, debuggers: Collection[str]) -> bool:
    """Have removed what was placed in a stub that was lost, which QEMU keeps; ``False`` if somebody has it still."""
    try:
        check_free(client, debuggers, "what was placed is removed")
    except DriverUnavailableError as err:
        _log.warning("QEMU may still stop the machine for events: %s", err)
        return False
    heal(client)
    return True
