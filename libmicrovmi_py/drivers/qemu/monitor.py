# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor, shared with others: connected only during an operation, taken in turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from libmicrovmi_py.drivers.qemu.discovery import Qemu, held_by_another, is_libvirts, is_other_qemu
from libmicrovmi_py.drivers.qemu.late import leave_run
from libmicrovmi_py.errors import DriverUnavailableError, MicrovmiError, TimeoutExpiredError, VmGoneError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.qmp import QmpClient, QmpHangupError
from libmicrovmi_py.transport.unixsock import Endpoint, peer_pid

_ENDING = 1.0
"""Seconds that a QEMU may take to end after it closed its monitor."""


class Monitor:
    """The QMP monitors of one QEMU. QEMU serves one client a monitor at a time, so each operation connects anew."""

    def __init__(self, qemu: Qemu, endpoints: Sequence[Endpoint], timeout: float) -> None:
        """``timeout`` is how long an operation may take, in seconds, the wait for other clients included."""
        self._qemu = qemu
        self._process = qemu.process
        self._endpoints = tuple(endpoints)
        self._timeout = timeout
        self._lock = threading.Lock()

    @contextmanager
    def session(self) -> Iterator[QmpClient]:
        """A connection, ready for commands, for the length of a ``with`` block.

        Raises ``VmGoneError``, ``DriverUnavailableError`` (nobody answers, or another client holds every monitor) and
        ``TimeoutExpiredError``; commands within may raise ``QmpCommandError``.
        """
        deadline = Deadline(self._timeout)
        if not self._lock.acquire(timeout=deadline.seconds):
            raise TimeoutExpiredError(f"{self._qemu}: another thread used the monitor for {self._timeout:g} s")
        try:
            with self._client(deadline) as client:
                yield client
        except (DriverUnavailableError, TimeoutExpiredError) as err:
            raise self._explained(err, deadline) from err
        finally:
            self._lock.release()

    def leave_run(self) -> bool:
        """As :func:`libmicrovmi_py.drivers.qemu.late.leave_run`."""
        return leave_run(self._process, self._endpoints)

    def _client(self, deadline: Deadline) -> QmpClient:
        """The first monitor that greets, the free ones first; each gets its part of the time."""
        if not self._process.alive:
            raise DriverUnavailableError("it ended")
        while self._process.stopped:  # a connection given up would stay in its queue, which has room for two
            if deadline.expired:
                raise TimeoutExpiredError("it is stopped")
            time.sleep(0.01)
        places = sorted(self._endpoints, key=lambda place: held_by_another(self._process, place))
        errors: list[tuple[str, MicrovmiError]] = []
        for index, place in enumerate(places):
            try:
                return self._greeted(place, deadline, deadline.share(len(places) - index))
            except (DriverUnavailableError, TimeoutExpiredError) as err:
                errors.append((self._reason(place, err), err))
        hung_up = any(isinstance(err, QmpHangupError) for _, err in errors)
        reasons = "; ".join(reason for reason, _ in errors)
        kind = QmpHangupError if hung_up else DriverUnavailableError
        raise kind(f"{reasons} (another monitor can be named with qmp=PATH)")

    def _greeted(self, place: Endpoint, deadline: Deadline, turn: Deadline) -> QmpClient:
        sock = place.connect(turn)
        client = QmpClient(sock, deadline)
        try:
            if is_other_qemu(peer_pid(sock), self._process):
                raise DriverUnavailableError(f"{place}: another QEMU listens there")
            client.greet(turn)
        except BaseException:
            client.close()
            raise
        return client

    def _reason(self, place: Endpoint, err: MicrovmiError) -> str:
        if not isinstance(err, TimeoutExpiredError):
            return str(err)
        if is_libvirts(self._qemu, place):
            return "libvirt holds the monitor: give the domain a second one (<qemu:arg value='-qmp'/>, unix:...)"
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
