# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor, shared with others: connected only during an operation, taken in turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from libmicrovmi_py.drivers.qemu.commandline import debuggers, takes_memory
from libmicrovmi_py.drivers.qemu.greeting import wait_for_greeting
from libmicrovmi_py.drivers.qemu.late import leave_run
from libmicrovmi_py.drivers.qemu.machines import Qemu, find_qemu
from libmicrovmi_py.drivers.qemu.places import held_by_another, is_libvirts, is_of_libvirt
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    MicrovmiError,
    PermissionDeniedError,
    TimeoutExpiredError,
    VmGoneError,
    logger,
)
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.messages import QmpProtocolError
from libmicrovmi_py.transport.peers import PeerError, check_peer
from libmicrovmi_py.transport.qmp import QmpClient, QmpHangupError, SocketClient
from libmicrovmi_py.transport.unixsock import Endpoint

_log = logger(__name__)

_ENDING = 1.0
"""Seconds that a QEMU may take to end after it closed its monitor."""

_SECOND = "<qemu:arg value='-qmp'/>, unix:..."


class _Call(threading.local):
    """What a thread does at present: whether it is within :meth:`Monitor.call`, and its connection if it has one."""

    depth = 0
    client: QmpClient | None = None


class Monitor:
    """The QMP monitors of one QEMU. QEMU serves one client a monitor at a time, so each call connects anew."""

    def __init__(self, qemu: Qemu, endpoints: Sequence[Endpoint], timeout: float, libvirtd: str = "") -> None:
        """``timeout`` is how long an operation may take, in seconds, the wait for other clients included.

        ``libvirtd`` is where libvirtd listens, ``""`` for where it does usually.
        """
        self._qemu = qemu
        self._process = qemu.process
        self._endpoints = tuple(endpoints)
        self._timeout = timeout
        self._libvirtd = libvirtd
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
                if isinstance(err, QmpHangupError):
                    self._wait_for_end(min(_ENDING, max(deadline.remaining, 0.05)))
                raise self.explained(err) from err
            except BaseException:
                self.hang_up()
                raise

    def _connected(self, deadline: Deadline) -> QmpClient:
        """This thread's connection, which it has or makes; the lock is its own."""
        client = self._mine.client
        if client is None:
            try:
                client = self._mine.client = self._client(deadline)
                client.process = self._process
            except BaseException:
                self._lock.release()
                raise
        client.begin(deadline)
        return client

    def debuggers(self) -> set[str]:
        """As :func:`libmicrovmi_py.drivers.qemu.commandline.debuggers`."""
        return debuggers(self._qemu.argv)

    def takes_memory(self) -> bool:
        """As :func:`libmicrovmi_py.drivers.qemu.commandline.takes_memory`."""
        return takes_memory(self._qemu.argv)

    def leave_run(self) -> bool:
        """As :func:`libmicrovmi_py.drivers.qemu.late.leave_run`."""
        left = leave_run(self._process, self._endpoints)
        if not left and is_of_libvirt(self._qemu):
            _log.warning("%s stands, and no order can be left for it: virsh resume %s", self._qemu, self._qemu.name)
        return left

    def _client(self, deadline: Deadline) -> QmpClient:
        """The first monitor that greets, the free ones first; each gets its part of the time."""
        while stopped := self._process.standing:  # a connection given up would stay in its queue: it has room for two
            if deadline.expired:
                raise TimeoutExpiredError("it is stopped")
            time.sleep(0.01)
        if stopped is None:
            raise DriverUnavailableError("it ended")
        places = [place for place in self._endpoints if not self._is_kept(place)]
        if len(places) > 1:
            places.sort(key=lambda place: held_by_another(self._process, place))
        kept = len(self._endpoints) - len(places)
        errors: list[tuple[Endpoint, MicrovmiError]] = []
        for index, place in enumerate(places):
            try:
                return self._greeted(place, deadline, deadline.share(len(places) + kept - index))
            except (DriverUnavailableError, TimeoutExpiredError) as err:
                errors.append((place, err))
        if kept or is_of_libvirt(self._qemu):
            return self._carried(errors, deadline)
        raise self.nobody(errors)

    def _is_kept(self, place: Endpoint) -> bool:
        """Whether libvirt holds that monitor, which it never lets go of."""
        if place not in self._libvirts:
            self._libvirts[place] = is_libvirts(self._qemu, place)
        return self._libvirts[place] and held_by_another(self._process, place)

    def _carried(self, errors: Sequence[tuple[Endpoint, MicrovmiError]], deadline: Deadline) -> QmpClient:
        """The monitor that libvirt holds, by libvirt; ``errors`` are those of other monitors."""
        with StandardStreamsHeld():
            from libmicrovmi_py.drivers.qemu import libvirt  # most machines are none of libvirt's
        try:
            return libvirt.connect(self._qemu, self._libvirtd, deadline)
        except (DriverUnavailableError, PermissionDeniedError, TimeoutExpiredError) as err:
            raise self.uncarried(errors, err) from err

    def is_carried(self) -> bool:
        """Whether libvirt is asked if no monitor answers that it does not hold."""
        return is_of_libvirt(self._qemu) or any(map(self._is_kept, self._endpoints))

    def uncarried(self, errors: Sequence[tuple[Endpoint, MicrovmiError]], err: MicrovmiError) -> MicrovmiError:
        """The error of a QEMU that libvirt cannot be asked about, with ``err``; ``errors`` are of other monitors."""
        errors = [(place, error) for place, error in errors if not self._is_kept(place)]
        failed = [place for place, _ in errors]
        reasons = [self._reason(place, error) for place, error in errors]
        kept = [f"libvirt holds the monitor {place}" for place in self._endpoints if place not in failed]
        told = "; ".join([*reasons, *(kept or ["libvirt, which made it, cannot be asked"])])
        return type(err)(f"{told}: {err}; or give the domain a second one ({_SECOND})")

    def nobody(self, errors: Sequence[tuple[Endpoint, MicrovmiError]]) -> DriverUnavailableError:
        """The error of a QEMU of which no monitor answers, by the error of each."""
        hung_up = any(isinstance(err, QmpHangupError) for _, err in errors)
        reasons = "; ".join(self._reason(place, err) for place, err in errors)
        kind = QmpHangupError if hung_up else DriverUnavailableError
        return kind(f"{reasons} (another monitor can be named with qmp=PATH)")

    def _greeted(self, place: Endpoint, deadline: Deadline, turn: Deadline) -> QmpClient:
        """A connection that is proven to lead to this QEMU before anything is said on it."""
        sock = place.connect(turn)
        client = SocketClient(sock, deadline)
        client.place = place
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
        if held_by_another(self._process, place):
            return f"another client holds the monitor {place}: close it, or start QEMU with a second -qmp"
        return f"{place}: no greeting in time, another client may hold this monitor"

    def explained(self, err: MicrovmiError) -> MicrovmiError:
        """The same trouble with its real cause: the process ended, or does not run at present."""
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
