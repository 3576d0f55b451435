# SPDX-License-Identifier: Apache-2.0
"""The monitor of a machine of libvirt's, by libvirtd, who holds it: where libvirtd is, and the domain of a process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence

from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.qemu.machines import Qemu
from libmicrovmi_py.drivers.qemu.sizes import machine_uuid
from libmicrovmi_py.environment import variable
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    MicrovmiError,
    PermissionDeniedError,
    TimeoutExpiredError,
    listed,
)
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.libvirt import Domain, DomainState, RefusedError
from libmicrovmi_py.transport.messages import parsed
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.qmp import QmpClient, QmpHangupError, Request
from libmicrovmi_py.transport.shape import integer
from libmicrovmi_py.transport.unixsock import UnixEndpoint

_SOCKETS = ("virtqemud-sock", "libvirt-sock")
_SYSTEM = "/run/libvirt"
_RUNNING, _PAUSED = 1, 3
"""Numbers of ``virDomainState``."""

_MOST_THREADS = 1 << 22
_encoded = json.JSONEncoder(separators=(",", ":")).encode


class LibvirtClient(QmpClient):
    """The monitor of a domain, by ``virDomainQemuMonitorCommand``: each command is a trip to libvirtd.

    ``stop`` and ``cont`` are libvirt's own suspend and resume, so that its view of the domain stays right.
    """

    def __init__(self, process: Process, domain: Domain, deadline: Deadline) -> None:
        """Owns ``domain``."""
        super().__init__(deadline)
        self._process = process
        self._domain = domain
        self._stood: DomainState | None = None
        self._orders = {"stop": domain.suspend, "cont": domain.resume}

    @property
    def run_event(self) -> str:
        """What of ``RUN_EVENTS`` libvirt has heard since this was emptied: it remembers why a domain stands."""
        if self._stood is None:
            return ""
        state = self._domain.state(self._deadline)
        if state == self._stood:
            return ""
        return "RESUME" if state.state == _RUNNING else "STOP"

    @run_event.setter
    def run_event(self, _: str) -> None:
        self._stood = self._domain.state(self._deadline)

    def close(self) -> None:
        """Hang up."""
        self._domain.close()

    def check_process(self) -> None:
        """Make sure that the domain is the process, which has the threads that the monitor tells of the vCPUs.

        Raises ``DriverUnavailableError`` if not.
        """
        vcpus = self.records("query-cpus-fast")
        threads = {integer(vcpu.get("thread-id"), "a thread", 0, _MOST_THREADS) for vcpu in vcpus}
        if not threads or not threads <= self._process.threads():
            raise DriverUnavailableError(
                f"libvirt's domain of that uuid is another process than {self._process.pid}, or one that cannot be seen"
            )

    def _check_takes_descriptors(self) -> None:
        if not self._domain.takes_descriptors:
            raise DriverUnavailableError("this libvirt takes no descriptors for the monitor, 8.2 and later do")

    def _deliver(self, asked: Sequence[Request], descriptor: int | None) -> None:
        for request in asked:
            self._early[request.number] = self._carried_out(request, descriptor)
            descriptor = None

    def _reply(self, number: int) -> dict[str, Any]:
        if number not in self._early:
            raise DriverUnavailableError("libvirt was not asked any more, after a call of it that failed")
        return self._early.pop(number)

    def _carried_out(self, request: Request, descriptor: int | None) -> dict[str, Any]:
        """What the monitor answers, or libvirt in its place.

        To libvirt a domain that was started anew is the same one; nothing is said to that.
        """
        if not self._process.alive:
            raise QmpHangupError("the process ended")
        try:
            if order := self._orders.get(request.command):
                order(self._deadline)
                return {"return": {}}
            return parsed(self._domain.command(_encoded(request.message), descriptor, self._deadline))
        except RefusedError as err:
            return self._refused(request.command, err)

    def _refused(self, command: str, err: RefusedError) -> dict[str, Any]:
        """An answer for what libvirt did not do; it refuses to let a machine run that runs, which QEMU does not."""
        if not self._process.alive:
            raise QmpHangupError(str(err)) from err
        if command == "cont" and self._domain.state(self._deadline).state == _RUNNING:
            return {"return": {}}
        return {"error": {"class": "GenericError", "desc": str(err)}}


def connect(qemu: Qemu, given: str, deadline: Deadline) -> LibvirtClient:
    """A client for the monitor of a QEMU of libvirt's, proven to lead to this process.

    ``given`` is where libvirtd listens, ``""`` for where it does usually. Raises ``DriverUnavailableError``,
    ``PermissionDeniedError``, ``TimeoutExpiredError`` with why by none of them.
    """
    errors: list[MicrovmiError] = []
    there = listening(qemu.process, given)
    for index, path in enumerate(there):
        try:
            return _client(qemu, path, deadline.share(len(there) - index), deadline)
        except (DriverUnavailableError, PermissionDeniedError, TimeoutExpiredError) as err:
            errors.append(err)
    if len(errors) == 1:
        raise errors[0]
    raise DriverUnavailableError("; ".join(map(str, errors)))


def listening(process: Process, given: str = "") -> list[str]:
    """The sockets of the libvirtds that may have that process: ``given``, or those that there are.

    Raises ``DriverUnavailableError`` if there are none.
    """
    paths = [given] if given else list(_usual(process))
    if there := [path for path in paths if given or os.path.exists(path)]:
        return there
    raise DriverUnavailableError(_nobody(process, paths))


def _client(qemu: Qemu, path: str, turn: Deadline, deadline: Deadline) -> LibvirtClient:
    uuid = machine_uuid(qemu.argv)
    if not uuid:
        raise DriverUnavailableError("it has no -uuid, which all machines of libvirt have")
    domain = Domain(UnixEndpoint(path, path), uuid, turn, frozenset((qemu.process.user,)))
    client = LibvirtClient(qemu.process, domain, turn)
    try:
        client.check_process()
    except BaseException:
        client.close()
        raise
    client.begin(deadline)
    return client


def _usual(process: Process) -> Iterator[str]:
    """Where the system's libvirtd listens, and that of the user of a process."""
    for name in _SOCKETS:
        yield f"{_SYSTEM}/{name}"
    for folder in _session_folders(process.user):
        for name in _SOCKETS:
            yield f"{folder}/libvirt/{name}"


def _session_folders(user: int) -> Iterator[str]:
    if user == os.geteuid():
        if folder := variable("XDG_RUNTIME_DIR"):
            yield folder
        elif home := variable("XDG_CACHE_HOME") or (variable("HOME") and f"{variable('HOME')}/.cache"):
            yield home
    yield f"/run/user/{user}"


def _nobody(process: Process, paths: Sequence[str]) -> str:
    """What to do where no libvirtd is found."""
    session = process.user not in (0, os.geteuid()) and os.geteuid() != 0
    who = f" (if it is of the session of user {process.user}: as that user or as root)" if session else ""
    return f"no libvirtd is at {listed(paths)}{who}: start it, or name its socket with libvirt=PATH"
