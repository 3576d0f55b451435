# SPDX-License-Identifier: Apache-2.0
"""QEMU's log, read by us through a pipe: having QEMU write it there, and leaving it as it was.

A program of ours reads the pipe, see ``_native/watcher_observe.c``: one that nobody reads would have the guest wait. It
has the only end that can be read, so that QEMU writes on, to nobody, if it is killed. What is changed in QEMU is in
these books before it is ordered, and QEMU has a mark of it: a character device of nothing, which names the pipe. Who
comes after somebody who was killed knows by that whose log it was, and by the pipe whether somebody reads it still.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import stat

from libmicrovmi_py.drivers.qemu.commandline import log_options
from libmicrovmi_py.drivers.qemu.loglevel import logs
from libmicrovmi_py.errors import DriverUnavailableError, IoError, NotSupportedError
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.qmp import QmpClient, QmpCommandError
from libmicrovmi_py.transport.shape import integer, shown, text
from libmicrovmi_py.transport.unixsock import UnixEndpoint
from libmicrovmi_py.transport.watcher import Job, Watcher

_MARK = "microvmi-log-"
"""How the character device's name begins; the number of the pipe follows."""

_PIPE = 1 << 20
"""Bytes that QEMU may be ahead of who reads, if the system allows it."""

_HIGHEST, _LARGEST_SET = (1 << 31) - 1, (1 << 63) - 1
_OURS, _NOTHING = "/proc/self/fd/2", "/dev/null"


class LogPipe:
    """That of one QEMU, from :meth:`begin` until :meth:`end`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._watcher = Watcher(Job.OBSERVE)
        self._mark = ""  # that QEMU may have
        self._back = _NOTHING  # where the log goes afterwards
        self._logs = False  # QEMU may write into the pipe

    def begin(self, client: QmpClient) -> socket.socket:
        """Have QEMU log what becomes of address spaces, and read that: where ``watcher_observe.c`` hands it on.

        Raises ``NotSupportedError`` for a machine that QEMU does not emulate, ``DriverUnavailableError`` for one whose
        log is somebody else's, ``IoError``; with nothing left.
        """
        self._check(client)
        self._back = _stderr(self._process)
        try:
            return self._begin(client)
        except BaseException:
            with contextlib.suppress(DriverUnavailableError, IoError):
                self.end(client)
            raise

    def _check(self, client: QmpClient) -> None:
        if client.record("query-kvm").get("enabled"):
            raise NotSupportedError("observing: QEMU tells of what it emulates, and KVM runs this machine")
        if options := log_options(self._process.argv()):
            raise DriverUnavailableError(f"observing takes QEMU's log, which somebody uses ({' '.join(options)})")
        _take_over(client, self._process)
        if logs(self._process):
            raise DriverUnavailableError(
                "observing takes QEMU's log, which somebody uses: 'log none' in its monitor ends it"
            )

    def _begin(self, client: QmpClient) -> socket.socket:
        with StandardStreamsHeld():
            read, write = map(OwnedFd, os.pipe2(os.O_CLOEXEC))
        with contextlib.suppress(OSError):
            fcntl.fcntl(write.number, fcntl.F_SETPIPE_SZ, _PIPE)
        with contextlib.suppress(OSError):  # as that user QEMU opens it again
            os.fchown(write.number, self._process.user, -1)
        self._mark = f"{_MARK}{os.fstat(write.number).st_ino}"
        place = client.place if isinstance(client.place, UnixEndpoint) else None
        self._watcher.start(place, self._process, read.number)
        del read
        self._watcher.connection.sendall(f"{self._mark} {self._back}\n".encode())
        client.execute("chardev-add", id=self._mark, backend={"type": "null", "data": {}})
        self._log_into(client, write.number)
        return self._watcher.connection

    def _log_into(self, client: QmpClient, descriptor: int) -> None:
        """QEMU opens the pipe for itself, and needs what it is handed no more."""
        answer = client.hand_over(descriptor, "add-fd").record()
        number = integer(answer.get("fd"), "QEMU's descriptor", 0, _HIGHEST)
        self._logs = True
        try:
            _say(client, f"logfile /proc/self/fd/{number}")
            _say(client, "log mmu")
        finally:
            client.execute("remove-fd", fdset_id=integer(answer.get("fdset-id"), "QEMU's set", 0, _LARGEST_SET))

    def end(self, client: QmpClient) -> None:
        """QEMU logs as before; what it logged until then can still be read. Raises ``IoError``."""
        if self._logs:
            _end(client, self._back)
            self._logs = False
        if self._mark:
            with contextlib.suppress(QmpCommandError):  # if it never had it
                client.execute("chardev-remove", id=self._mark)
            self._mark = ""

    def close(self) -> None:
        """Nothing is to be read any more."""
        self._watcher.end()


def _say(client: QmpClient, line: str) -> None:
    """A command that has nothing to tell if it was carried out."""
    if answer := client.human(line).strip():
        raise IoError(f"QEMU refused '{line}': {shown(answer)}")


def _end(client: QmpClient, back: str) -> None:
    """First what is logged, as the rest of it would go to the other place."""
    _say(client, "log none")
    _say(client, f"logfile {back}")


def _stderr(process: Process) -> str:
    """Where QEMU logs if nobody says where, its standard error; where opening that would empty a file, nowhere.

    A QEMU that runs in the background has none but for a log.
    """
    path = process.path("fd/2")
    try:
        mode, link = os.stat(path).st_mode, os.readlink(path)
    except OSError:
        return _NOTHING
    reopened = stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
    return _OURS if reopened and link != _NOTHING else _NOTHING


def _take_over(client: QmpClient, process: Process) -> None:
    """End the log of a process that was killed, and whose program could not end it.

    Raises ``DriverUnavailableError`` for one of a process that lives.
    """
    for item in client.records("query-chardev"):
        name = text(item.get("label"), "the name of a character device")
        if not name.startswith(_MARK):
            continue
        descriptors = [path for path, link in process.descriptors() if link == f"pipe:[{name[len(_MARK) :]}]"]
        if any(_is_read(path) for path in descriptors):
            raise DriverUnavailableError("observing takes QEMU's log, which another program of this library uses")
        if descriptors:
            _end(client, _stderr(process))
        client.execute("chardev-remove", id=name)


def _is_read(path: str) -> bool:
    """Whether somebody reads what is written to a pipe of QEMU's."""
    try:
        end = OwnedFd.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as err:
        return isinstance(err, PermissionError)
    poll = select.poll()
    poll.register(end.number, select.POLLOUT)
    return not any(events & select.POLLERR for _, events in poll.poll(0))
