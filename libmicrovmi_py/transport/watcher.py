# SPDX-License-Identifier: Apache-2.0
"""The one program that this library starts: it undoes what we cannot undo any more if we are killed.

It is started for as long as something is changed in QEMU that outlives us: a snapshot in the background, events, a
pause of which the caller wants it. Whatever ends this process ends the connection between the two; the program then
takes back what was changed. What it does is in ``_native/watcher*.c``, and why the host does not notice it in
``_native/watching.c``.
"""

from __future__ import annotations

import contextlib
import enum
import os
import socket

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.native import native

if TYPE_CHECKING:
    from libmicrovmi_py.transport.deadline import Deadline
    from libmicrovmi_py.transport.processes import Process
    from libmicrovmi_py.transport.unixsock import UnixEndpoint

PROGRAM = os.path.abspath(f"{os.path.dirname(os.path.dirname(__file__))}/microvmi-watcher")
"""Beside the package's modules, wherever those are."""

_OURS = "/proc/self/fd/1"
"""Where the program finds the monitor's socket, whose name may be too long for an address, and may change."""


class Job(enum.Enum):
    """What is undone."""

    SNAPSHOT = b"snapshot"
    EVENTS = b"events"
    PAUSE = b"pause"
    OBSERVE = b"observe"


class Word(enum.Enum):
    """What is said to it, as ``watcher.c`` knows it: the last one of a kind counts."""

    DONE = b"."
    TAKE_OVER = b"!"
    """It undoes what there is as if we had ended."""
    RUNS, STANDS = b"R", b"r"
    """Whether the machine is to run when we have ended."""
    INTERRUPTED, GOES = b"I", b"i"
    """Whether a machine that is paused may be so by us, for a moment. Both are so until it is told otherwise."""


class Watcher:
    """One, from :meth:`start` until :meth:`end`; if this object goes without that, it takes over."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._word: socket.socket | None = None
        self._child = 0

    def start(self, place: UnixEndpoint | None, process: Process, other: int = -1) -> None:
        """Start it for the QEMU of that process, with a monitor at ``place``. Raises ``IoError`` with nothing left.

        ``other`` is a descriptor that the job needs, of which it has a duplicate.
        """
        try:
            with StandardStreamsHeld():
                heard, self._word = socket.socketpair()
                with heard:
                    self._begin(place, process, heard.fileno(), other)
        except OSError as err:
            self._forget()
            raise IoError(f"{PROGRAM}, which undoes it if we are killed, cannot be started: {err.strerror}") from err

    def _begin(self, place: UnixEndpoint | None, process: Process, heard: int, other: int) -> None:
        ffi, lib = native()
        path = place.path if place else ""
        door = OwnedFd.open(path, os.O_PATH) if path and not path.startswith("\0") else None
        address = _OURS if door else path.replace("\0", "@", 1)
        words = os.fsencode(PROGRAM), self._job.value, b"%d" % process.pid, os.fsencode(address)
        child = ffi.new("int32_t *")
        failed = lib.mvi_watcher_start(*words, heard, -1 if door is None else door.number, other, child)
        if failed:
            raise OSError(failed, os.strerror(failed))
        self._child = child[0]

    @property
    def connection(self) -> socket.socket:
        """What its job says comes here; what is said on it before the first word is its job's. It is this object's."""
        assert self._word is not None
        return self._word

    @property
    def started(self) -> bool:
        """Whether there is one."""
        return self._word is not None

    def say(self, word: Word) -> None:
        """Tell it, before what it is about is done. Raises ``IoError`` if somebody has ended it, or stopped it."""
        if self._word is None:
            return
        try:
            self._word.send(word.value, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError as err:
            text = f"{PROGRAM}, which undoes it if we are killed, does not listen any more: {err.strerror}"
            raise IoError(text) from err

    def wait(self, deadline: Deadline) -> bool:
        """Whether it has ended by itself by then."""
        if self._word is None:
            return True
        self._word.settimeout(max(deadline.remaining, 0.001))
        try:
            return not self._word.recv(1)
        except TimeoutError:
            return False

    def end(self) -> None:
        """Nothing is left to undo: it ends, and touches nothing."""
        with contextlib.suppress(IoError):  # somebody has killed it
            self.say(Word.DONE)
        self._forget()
        if self._child:
            native().lib.mvi_watcher_reap(self._child)
            self._child = 0

    def __del__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        word, self._word = self._word, None
        if word is not None:
            word.close()
