# SPDX-License-Identifier: Apache-2.0
"""Who removes what is placed in the machine, and lets it run, if this process is killed: see ``watcher_events.c``.

It needs no list of what is placed, as QEMU removes all of it when it is asked to; it has a duplicate of our end of the
stub's connection, without which QEMU would see nothing of ours in it.
"""

from __future__ import annotations

import socket

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import IoError, logger
from libmicrovmi_py.transport.unixsock import UnixEndpoint
from libmicrovmi_py.transport.watcher import Job, Watcher, Word

if TYPE_CHECKING:
    from libmicrovmi_py.transport.qmp import QmpClient

_log = logger(__name__)


class Watched:
    """That of one stub, from before QEMU connects to it until it is ended."""

    def __init__(self) -> None:
        self._watcher = Watcher(Job.EVENTS)
        self._said: set[Word] = {Word.RUNS, Word.INTERRUPTED}

    def start(self, client: QmpClient, stub: socket.socket) -> None:
        """Raises ``IoError`` with nothing left: without it nothing is placed, as nobody would remove it.

        Of a monitor that libvirt holds it cannot use the connection: it heals the guest by the stub, and the character
        device stays, which stops nothing.
        """
        place = client.place if isinstance(client.place, UnixEndpoint) else None
        self._watcher.start(place, client.process, stub.fileno())

    def ran(self, runs: bool) -> None:
        """Whether the machine is to run when we have ended, which is said before it is stopped or let run."""
        self._say(Word.RUNS if runs else Word.STANDS, Word.STANDS if runs else Word.RUNS)

    def interrupted(self, by_us: bool) -> None:
        """Whether a machine that is paused is so by us: said before it is interrupted, and after it went on."""
        self._say(*(Word.INTERRUPTED, Word.GOES)[:: 1 if by_us else -1])

    def _say(self, word: Word, opposite: Word) -> None:
        if word in self._said:
            return
        self._said = self._said - {opposite} | {word}
        try:
            self._watcher.say(word)
        except IoError as err:
            _log.warning("%s", err)

    def done(self) -> None:
        """Nothing is placed, and the stub is ended."""
        self._watcher.end()
