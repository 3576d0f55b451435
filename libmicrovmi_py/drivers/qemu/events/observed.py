# SPDX-License-Identifier: Apache-2.0
"""Writes to control registers that QEMU tells of without stopping: those that its log has, in their order."""

from __future__ import annotations

import select
import struct
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import DriverUnavailableError, NotSupportedError
from libmicrovmi_py.events import UNKNOWN_VCPU, EventAbilities, EventKind, Intercept, InterceptFlag, ReplyAction, Stop
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    import socket

    from libmicrovmi_py.drivers.qemu.events.logpipe import LogPipe
    from libmicrovmi_py.transport.processes import Process
    from libmicrovmi_py.transport.qmp import QmpClient

ABILITIES = EventAbilities(
    {EventKind.CR: frozenset((ReplyAction.CONTINUE,))}, flags={EventKind.CR: InterceptFlag.OBSERVE}
)
"""What of the driver's is done by this."""

_RECORD = struct.Struct("=QII")
"""A value, the number of the register, and how many were lost before it."""

_CHUNK = 1 << 16
_NUMBERS = (0, 3)
"""The registers that the log has."""


class Observed:
    """Those of one machine. QEMU's log is ours from the first intercept until the last."""

    def __init__(self, client: Callable[[], AbstractContextManager[QmpClient]], process: Process) -> None:
        self._client = client
        self._process = process
        self._wanted: dict[int, Intercept] = {}  # by number
        self._log: LogPipe | None = None
        self._connection: socket.socket | None = None
        self._records: deque[tuple[int, int, int]] = deque()
        self._part = b""
        self._lost = 0

    @property
    def is_on(self) -> bool:
        """Whether anything is observed."""
        return self._connection is not None

    def wait(self, seconds: float) -> None:
        """Until something has come, at the most so long."""
        if self._connection is not None:
            select.select([self._connection], [], [], seconds)

    def arm(self, intercept: Intercept, *, wanted: bool) -> None:
        """As ``SupportsEvents.arm``, on all vCPUs or on none."""
        if wanted and intercept.number not in _NUMBERS:
            raise NotSupportedError(f"observing: QEMU tells of CR0 and CR3, not of CR{intercept.number}")
        if wanted and self._log is None:
            self._begin()
        if wanted:
            self._wanted[intercept.number] = intercept
        else:
            self._wanted.pop(intercept.number, None)
        if not self._wanted:
            self.end()

    def _begin(self) -> None:
        with StandardStreamsHeld():
            from libmicrovmi_py.drivers.qemu.events.logpipe import LogPipe  # asking for abilities needs none of it
        log = LogPipe(self._process)
        with self._client() as client:
            connection = log.begin(client)
        connection.setblocking(False)
        self._log, self._connection = log, connection

    def end(self) -> None:
        """QEMU's log is as it was; what was not asked for yet is gone."""
        log = self._log
        if log is None:
            return
        with self._client() as client:
            log.end(client)
        log.close()
        self._log = self._connection = None
        self._wanted.clear()
        self._records.clear()
        self._part, self._lost = b"", 0

    def take(self) -> Stop | None:
        """The next one that has come. Raises ``DriverUnavailableError`` once the log is not ours any more."""
        while self._records or self._receive():
            value, number, lost = self._records.popleft()
            self._lost += lost
            intercept = self._wanted.get(number)
            if intercept is not None:
                lost, self._lost = self._lost, 0
                return Stop(EventKind.CR, UNKNOWN_VCPU, number, 0, value, waits=False, lost=lost, told_by=intercept)
        return None

    def _receive(self) -> bool:
        if self._connection is None:
            return False
        try:
            data = self._connection.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError as err:
            raise _broken(err.strerror or str(err)) from err
        if not data:
            raise _broken("it was closed")
        data = self._part + data
        whole = len(data) - len(data) % _RECORD.size
        self._records.extend(_RECORD.iter_unpack(data[:whole]))
        self._part = data[whole:]
        return bool(self._records)


def _broken(why: str) -> DriverUnavailableError:
    return DriverUnavailableError(f"QEMU's log is somebody else's now, or who read it was killed: {why}")
