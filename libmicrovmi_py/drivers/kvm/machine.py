# SPDX-License-Identifier: Apache-2.0
"""Machines that are connected, each shared by all who open it.

A machine has one introspector, so whoever opens it a second time in this process uses the connection that is there. It
ends with its last user.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.drivers.kvm.arming import Accesses, Switches
from libmicrovmi_py.drivers.kvm.library import Domain
from libmicrovmi_py.drivers.kvm.listener import connections, wait_for_guest
from libmicrovmi_py.drivers.kvm.stops import Stops
from libmicrovmi_py.errors import DriverUnavailableError, IoError, MicrovmiError, TimeoutExpiredError, logger
from libmicrovmi_py.events import Intercept
from libmicrovmi_py.model import PAGE_SHIFT, PHYSICAL_BITS
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.foreign import Foreign

_log = logger(__name__)

_changed = threading.Condition()
_machines: dict[str, Machine] = {}
_awaited: set[str] = set()
"""Paths at which somebody waits for a machine."""


class Machine:
    """A connected machine. ``frames`` is how many guest frames there can be, as of its connecting."""

    def __init__(self, domain: Domain, timeout: float) -> None:
        """Raises ``IoError`` for a machine without a believable size."""
        self.users = 1
        self.domain = domain
        self.name = domain.name
        self.stops = Stops(domain, timeout)
        self.switches = Switches(domain)
        self.accesses = Accesses(domain)
        self.frames = _frames(domain)
        self._listener: object = None

    def listened_by(self, user: object) -> bool:
        """Whether this user listens. Raises ``DriverUnavailableError`` if another user of this machine does."""
        if self._listener not in (None, user):
            raise DriverUnavailableError("another context of this process listens to the machine")
        return self._listener is user

    def arm(self, intercept: Intercept, vcpus: frozenset[int], user: object) -> None:
        """As ``SupportsEvents.arm``; who arms is the one who listens."""
        with _changed:
            listens = self.listened_by(user) if vcpus else self._listener is user
            self._listener = user if vcpus else self._listener
        if listens or vcpus:
            self.switches.arm(intercept, vcpus)

    def end_events(self, user: object) -> None:
        """Give pages back, and let others listen."""
        self.accesses.release(user)
        if self._listener is user:
            self._listener = None

    def lives(self) -> bool:
        """Whether it answers."""
        try:
            self.stops.count()
        except MicrovmiError as err:
            _log.debug("a machine that is open does not answer: %s", err)
            return False
        return True


def acquire(foreign: Foreign, path: str, name: str | None, timeout: float) -> Machine:
    """The machine of a path: the one that is there, or one that connects within ``timeout`` seconds.

    Raises what :func:`wait_for_guest` does.
    """
    deadline = Deadline(timeout)
    with _alone(path, deadline):
        machine = _machines.get(path)
        if machine is None or not machine.lives():
            machine = _connect(foreign, path, deadline)
        else:
            machine.users += 1
        with _changed:
            _machines[path] = machine
    if name and machine.name and name != machine.name:
        _log.warning("the machine that connected is called %s, not %s", machine.name, name)
    return machine


def release(machine: Machine) -> None:
    """Be one user less; the last one hangs up."""
    with _changed:
        machine.users -= 1
        if machine.users:
            return
        for path in [path for path, known in _machines.items() if known is machine]:
            del _machines[path]
    _disconnect(machine.domain)


@contextmanager
def _alone(path: str, deadline: Deadline) -> Iterator[None]:
    """Be the only one in this process who waits at ``path``."""
    with _changed:
        if not _changed.wait_for(lambda: path not in _awaited, deadline.remaining):
            raise TimeoutExpiredError(f"another thread still waits for a QEMU at {path}")
        _awaited.add(path)
    try:
        yield
    finally:
        with _changed:
            _awaited.discard(path)
            _changed.notify_all()


def _connect(foreign: Foreign, path: str, deadline: Deadline) -> Machine:
    domain = Domain(foreign, wait_for_guest(foreign, path, deadline.remaining))
    try:
        return Machine(domain, deadline.seconds)
    except BaseException:
        _disconnect(domain)
        raise


def _frames(domain: Domain) -> int:
    highest = domain.ffi.new("unsigned long long *")
    domain.call("kvmi_get_maximum_gfn", highest)
    if highest[0] >= 1 << (PHYSICAL_BITS - PAGE_SHIFT):
        raise IoError(f"the hypervisor tells of a frame {highest[0]:#x}, more than there can be")
    return int(highest[0]) + 1


def _disconnect(domain: Domain) -> None:
    connections.discard(domain.connection)
    domain.close()
