# SPDX-License-Identifier: Apache-2.0
"""Who lets a machine run again that we have paused, if this process is killed: for whom asks for it (``watch=on``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.control import Phase, RunState
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.unixsock import UnixEndpoint

if TYPE_CHECKING:
    from libmicrovmi_py.transport.qmp import QmpClient
    from libmicrovmi_py.transport.watcher import Watcher


class PauseWatch:
    """From before the machine is told to stop until it runs, or stands for another reason."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._watcher: Watcher | None = None
        self._stood = False

    @contextmanager
    def order(self, client: QmpClient) -> Iterator[None]:
        """A block in which the machine is stopped. Raises ``NotSupportedError``, and ``IoError`` without a program.

        One that is not answered, and may still come, is watched over as well.
        """
        self._begin(client)
        yield
        self._stood = True

    def _begin(self, client: QmpClient) -> None:
        if not self._wanted or self._watcher:
            return
        if not isinstance(client.place, UnixEndpoint):
            raise NotSupportedError("watch=on: a monitor that libvirt holds, or by TCP, cannot be handed on")
        with StandardStreamsHeld():
            from libmicrovmi_py.transport.watcher import Job, Watcher
        watcher = Watcher(Job.PAUSE)
        watcher.start(client.place, client.process)
        self._watcher, self._stood = watcher, False

    def see(self, state: RunState) -> None:
        """Whether it stands by our order, by its run state: from then on it is not ours once it does not."""
        if self._stood and state.phase is not Phase.STOPPED:
            self.end()

    def end(self) -> None:
        """The machine was let run."""
        watcher, self._watcher, self._stood = self._watcher, None, False
        if watcher:
            watcher.end()
