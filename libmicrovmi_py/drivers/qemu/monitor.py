# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor, shared with others: connected only during an operation, taken in turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from libmicrovmi_py.drivers.qemu.commandline import debuggers
from libmicrovmi_py.drivers.qemu.greeting import wait_for_greeting
from libmicrovmi_py.drivers.qemu.late import leave_run
from libmicrovmi_py.drivers.qemu.machines import Qemu, find_qemu
from libmicrovmi_py.drivers.qemu.places import held_by_another, is_libvirts
from libmicrovmi_py.errors import DriverUnavailableError, MicrovmiError, TimeoutExpiredError, VmGoneError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.peers import PeerError, check_peer
from libmicrovmi_py.transport.qmp import QmpClient, QmpHangupError, QmpProtocolError
from libmicrovmi_py.transport.unixsock import Endpoint

_ENDING = 1.0
"""Seconds that a QEMU may take to end after it closed its monitor."""

_LIBVIRTS = 1.0
"""Seconds that a monitor may take to greet that libvirt seems to hold: it never lets go of it."""


class _Call(threading.local):
    """What a thread does at present: whether it is within :meth:`Monitor.call`, and its connection if it has one."""

    depth = 0
    client: QmpClient | None = None


class Monitor:
    """The QMP monitors of one QEMU. QEMU serves one client a monitor at a time, so each call connects anew."""

    def __init__(self, qemu: Qemu, endpoints: Sequence[Endpoint], timeout: float) -> None:
        """``timeout`` is how long an operation may take, in seconds, the wait for other clients included."""
        self._qemu = qemu
        self._process = qemu.process
        self._endpoints = tuple(endpoints)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._mine = _Call()
        self._libvirts: dict[Endpoint, bool] = {}

    @contextmanager
    def call(self) -> Iterator[None]:
        """A block in which this thread connects at its first :meth:`session`, and keeps the connection for the others.

        Other threads, and other programs, wait as long as it does.
        """
        mine = self._mine
        mine.depth += 1
        try:
            yield
        finally:
            mine.depth -= 1
            if not mine.depth:
                self.hang_up()

    def hang_up(self) -> None:
        """Let go of this thread's connection, if it has one."""
        client, self._mine.client = self._mine.client, None
        if client is not None:
            client.close()
            self._lock.release()

    @contextmanager
    def session(self) -> Iterator[QmpClient]:
        """A connection, ready for commands, for the length of a ``with`` block; it is of no use after an error.

        Raises ``VmGoneError``, ``DriverUnavailableError`` (nobody answers, or another client holds every monitor) and
        ``TimeoutExpiredError``; commands within may raise ``QmpCommandError``.
        """
        deadline = Deadline(self._timeout)
        with self.call():
            if self._mine.client is None and not self._lock.acquire(timeout=deadline.seconds):
                raise TimeoutExpiredError(f"{self._qemu}: another thread used the monitor for {self._timeout:g} s")
            try:
                yield self._connected(deadline)
            except (DriverUnavailableError, TimeoutExpiredError) as err:
                self.hang_up()
                raise self._explained(err, deadline) from err
            except BaseException:
                self.hang_up()
                raise

    def _connected(self, deadline: Deadline) -> QmpClient:
        """This thread's connection, which it has or makes; the lock is its own."""
        client = self._mine.client
        if client is None:
            try:
                client = self._mine.client = self._client(deadline)
            except BaseException:
                self._lock.release()
                raise
        client.begin(deadline)
        return client

    def debuggers(self) -> set[str]:
        """As :func:`libmicrovmi_py.drivers.qemu.commandline.debuggers`."""
        return debuggers(self._qemu.argv)

    def leave_run(self) -> bool:
        """As :func:`libmicrovmi_py.drivers.qemu.late.leave_run`."""
        return leave_run(self._process, self._endpoints)

    def _client(self, deadline: Deadline) -> QmpClient:
        """The first monitor that greets, the free ones first; each gets its part of the time."""
        while stopped := self._process.standing:  # a connection given up would stay in its queue: it has room for two
            if deadline.expired:
                raise TimeoutExpiredError("it is stopped")
            time.sleep(0.01)
        if stopped is None:
            raise DriverUnavailableError("it ended")
        places = list(self._endpoints)
        if len(places) > 1:
            places.sort(key=lambda place: held_by_another(self._process, place))
        errors: list[tuple[str, MicrovmiError]] = []
        for index, place in enumerate(places):
            try:
                return self._greeted(place, deadline, self._turn(place, deadline, len(places) - index))
            except (DriverUnavailableError, TimeoutExpiredError) as err:
                errors.append((self._reason(place, err), err))
        hung_up = any(isinstance(err, QmpHangupError) for _, err in errors)
        reasons = "; ".join(reason for reason, _ in errors)
        kind = QmpHangupError if hung_up else DriverUnavailableError
        raise kind(f"{reasons} (another monitor can be named with qmp=PATH)")

    def _turn(self, place: Endpoint, deadline: Deadline, places: int) -> Deadline:
        """How long to wait for a greeting there, with so many ``places`` left to try."""
        turn = deadline.share(places)
        if place not in self._libvirts:
            self._libvirts[place] = is_libvirts(self._qemu, place)
        if self._libvirts[place] and held_by_another(self._process, place):
            return Deadline(min(turn.seconds, _LIBVIRTS))
        return turn

    def _greeted(self, place: Endpoint, deadline: Deadline, turn: Deadline) -> QmpClient:
        """A connection that is proven to lead to this QEMU before anything is said on it."""
        sock = place.connect(turn)
        client = QmpClient(sock, deadline)
        try:
            wait_for_greeting(sock, turn)
            check_peer(sock, self._process)
            client.greet(turn)
        except BaseException:
            client.close()
            raise
        return client

    def _reason(self, place: Endpoint, err: MicrovmiError) -> str:
        if isinstance(err, PeerError):
            return f"{place}: {_told(err)}"
        if isinstance(err, QmpProtocolError):
            return f"{place}: {err}"
        if not isinstance(err, TimeoutExpiredError):
            return str(err)
        if is_libvirts(self._qemu, place):
            second = "give the domain a second one (<qemu:arg value='-qmp'/>, unix:...)"
            return f"libvirt holds the monitor {place} as long as the domain runs: {second}"
        if held_by_another(self._process, place):
            return f"another client holds the monitor {place}: close it, or start QEMU with a second -qmp"
        return f"{place}: no greeting in time, another client may hold this monitor"

    def _explained(self, err: MicrovmiError, deadline: Deadline) -> MicrovmiError:
        """The same trouble with its real cause: the process ended, or does not run at present."""
        if isinstance(err, QmpHangupError):
            self._wait_for_end(min(_ENDING, max(deadline.remaining, 0.05)))
        if not self._process.alive:
            return VmGoneError(f"{self._qemu} ended")
        if self._process.stopped:
            text = f"{self._qemu} is stopped by a signal or a debugger: let it go on (kill -CONT {self._process.pid})"
            return DriverUnavailableError(text)
        return type(err)(f"{self._qemu}: {err}")

    def _wait_for_end(self, seconds: float) -> None:
        deadline = Deadline(seconds)
        while self._process.alive and not deadline.expired:
            time.sleep(0.01)


def _told(err: PeerError) -> str:
    """Who listens there instead."""
    other = find_qemu(err.pid) if err.pid else None
    return f"another QEMU listens there: {other}" if other else str(err)
