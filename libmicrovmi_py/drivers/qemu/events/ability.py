# SPDX-License-Identifier: Apache-2.0
"""What the driver has for events; see ``listener.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.events import EventAbilities, Intercept, InterceptFlag, ReplyAction, Stop
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.guestmemory import GuestMemory
    from libmicrovmi_py.drivers.qemu.events.listener import Listener
    from libmicrovmi_py.drivers.qemu.events.observed import Observed
    from libmicrovmi_py.transport.processes import Process
    from libmicrovmi_py.transport.qmp import QmpClient

_SLICE = 0.01
"""Seconds after which it is looked at what is observed, of a machine that is stopped at other things as well."""

_OTHERS = EventAbilities({}, why_not="events of this architecture are not known here")


class StubEvents:
    """The events of a driver; ``_listening`` makes the listener when it is needed."""

    architecture: Architecture = Architecture.X86
    _abilities: EventAbilities | None = None  # of x86, once they were asked for
    _guest: GuestMemory | None = None
    _listener: Listener | None = None
    _listening: Callable[[], Listener]
    _observed: Observed | None = None
    _process: Process
    _session: Callable[[], AbstractContextManager[QmpClient]]

    @property
    def event_abilities(self) -> EventAbilities:
        """What there are mechanisms for, of x86."""
        if self.architecture is not Architecture.X86:
            return _OTHERS
        if self._abilities is None:
            with StandardStreamsHeld():
                from libmicrovmi_py.drivers.qemu.events.finding import abilities  # who asks for no events needs none
            self._abilities = abilities()
        return self._abilities

    def take_memory(self, memory: GuestMemory) -> None:
        """For what has to be found in the guest's code."""
        self._guest = memory

    def _hold(self) -> None:
        """The machine was paused."""
        if self._listener is not None:
            self._listener.hold()

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """By the stub, which the first one opens: the machine stands for that, some milliseconds. Or by QEMU's log."""
        if intercept.flags & InterceptFlag.OBSERVE:
            self._observe(intercept, wanted=bool(vcpus))
            return
        if self._listener is None and vcpus:
            self._listener = self._listening()
        if self._listener is not None:
            self._listener.arm(intercept, vcpus)

    def _observe(self, intercept: Intercept, *, wanted: bool) -> None:
        if self._observed is None and wanted:
            with StandardStreamsHeld():
                from libmicrovmi_py.drivers.qemu.events.observed import Observed
            self._observed = Observed(self._session, self._process)
        if self._observed is not None:
            self._observed.arm(intercept, wanted=wanted)

    def poll(self, timeout: float) -> Stop | None:
        """All vCPUs stand at a stop; none at what is observed."""
        observed = self._observed
        if observed is None or not observed.is_on:
            return self._listener.poll(timeout) if self._listener else None
        deadline = Deadline(timeout)
        while (stop := observed.take()) is None:
            left = deadline.remaining
            if self._listener is None:
                observed.wait(left)
            elif (stop := self._listener.poll(min(left, _SLICE))) is not None:
                return stop
            if not left:
                return None
        return stop

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """All vCPUs go on."""
        if self._listener is not None:
            self._listener.resume(stop, action, registers)

    def quiet(self) -> AbstractContextManager[None]:
        """The machine stands."""
        return self._listener.quiet() if self._listener else nullcontext()

    def end_events(self) -> bool:
        """The stub is ended, and the machine runs if it stood by it alone. QEMU's log is as it was."""
        if self._observed is not None:
            self._observed.end()
        return self._listener is None or self._listener.end()


def make_listener(
    client: Callable[[], AbstractContextManager[object]],
    debuggers: Callable[[], object],
    memory: GuestMemory | None,
) -> Listener:
    """Of whom intercepts nothing, nobody needs it."""
    with StandardStreamsHeld():
        from libmicrovmi_py.drivers.qemu.events.listener import Listener
    return Listener(client, debuggers, memory)  # type: ignore[arg-type]
