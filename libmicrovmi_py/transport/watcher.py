# SPDX-License-Identifier: Apache-2.0
"""The one process that this library starts: a program that undoes what we cannot undo any more if we are killed.

It is started for the length of a snapshot in the background only, and ends with it. Whatever ends this process ends the
connection between the two; the program then waits for QEMU, and takes back what was changed there. What it does is in
``_native/watcher.c``, and why the host does not notice it in ``_native/watching.c``.
"""

from __future__ import annotations

import contextlib
import os
import socket

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.native import native

if TYPE_CHECKING:
    from libmicrovmi_py.transport.processes import Process
    from libmicrovmi_py.transport.unixsock import UnixEndpoint

PROGRAM = os.path.abspath(f"{os.path.dirname(os.path.dirname(__file__))}/microvmi-watcher")
"""Beside the package's modules, wherever those are."""

_OURS = "/proc/self/fd/1"
"""Where the program finds the monitor's socket, whose name may be too long for an address, and may change."""


class Watcher:
    """That of one snapshot, from :meth:`start` until :meth:`end`; if this object goes without that, it takes over."""

    def __init__(self) -> None:
        self._word: socket.socket | None = None
        self._child = 0

    def start(self, place: UnixEndpoint, process: Process) -> None:
        """Start it for the QEMU of that process, with a monitor at ``place``. Raises ``IoError`` with nothing left."""
        try:
            with StandardStreamsHeld():
                heard, self._word = socket.socketpair()
                with heard:
                    self._begin(place, process, heard.fileno())
        except OSError as err:
            self._forget()
            raise IoError(f"{PROGRAM}, which undoes it if we are killed, cannot be started: {err.strerror}") from err

    def _begin(self, place: UnixEndpoint, process: Process, heard: int) -> None:
        ffi, lib = native()
        abstract = place.path.startswith("\0")
        door = None if abstract else OwnedFd.open(place.path, os.O_PATH)
        address = os.fsencode(f"@{place.path[1:]}" if abstract else _OURS)
        words = os.fsencode(PROGRAM), b"%d" % process.pid, address
        child = ffi.new("int32_t *")
        failed = lib.mvi_watcher_start(*words, heard, -1 if door is None else door.number, child)
        if failed:
            raise OSError(failed, os.strerror(failed))
        self._child = child[0]

    def end(self) -> None:
        """Nothing is left to undo: it ends, and touches nothing."""
        if self._word is not None:
            with contextlib.suppress(OSError):  # somebody has killed it
                self._word.send(b".", socket.MSG_NOSIGNAL)
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
