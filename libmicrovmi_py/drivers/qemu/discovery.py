# SPDX-License-Identifier: Apache-2.0
"""Finding the QEMU process that a text means, and the sockets of its QMP monitors."""

from __future__ import annotations

import os
import time

from libmicrovmi_py.drivers.qemu.commandline import HIGHEST_PORT
from libmicrovmi_py.drivers.qemu.greeting import wait_for_greeting
from libmicrovmi_py.drivers.qemu.machines import (
    Qemu,
    find_all,
    find_any,
    find_renamed,
    in_order,
    listing,
    nearest,
    process_as_qemu,
)
from libmicrovmi_py.drivers.qemu.places import bound_name, endpoints
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError, TimeoutExpiredError, about_a_machine
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.peers import credentials
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.shape import decimal
from libmicrovmi_py.transport.sockets import peer_inode
from libmicrovmi_py.transport.unixsock import Endpoint, TcpEndpoint, UnixEndpoint

_RETRY = 0.01
_HIGHEST_PID = 1 << 22
_UUID_LENGTH = 36


def resolve(text: str, monitor: Endpoint | None, deadline: Deadline) -> tuple[Qemu, list[Endpoint]]:
    """The QEMU that ``text`` means, as :func:`find` does, and its monitors, none if it has none.

    ``monitor`` takes the place of those on the command line.

    Raises as :func:`find`, and ``DriverUnavailableError`` when it has monitors and none can be reached. An error about
    a machine that was found says so (``machine_found``).
    """
    qemu, place = find(text, deadline)
    if monitor or place:
        return qemu, [item for item in (monitor or place,) if item]
    with about_a_machine():
        return qemu, endpoints(qemu)


def find(text: str, deadline: Deadline) -> tuple[Qemu, Endpoint | None]:
    """The QEMU that ``text`` means: a machine's name, its UUID, a process id or a QMP socket's path, which is told too.

    What comes first counts.

    Raises ``InvalidArgumentError`` for several or no matches, ``DriverUnavailableError`` for a socket of nobody's.
    """
    matches, running = _matches(text)
    while _in_the_middle_of_a_fork(matches) and not deadline.expired:
        time.sleep(_RETRY)
        matches, running = _matches(text)
    if not matches and "/" in text:
        return _behind_socket(text, running, deadline)
    if not matches:
        raise InvalidArgumentError(_no_match(text, running))
    with about_a_machine():
        return _only(text, matches), None


def resolve_process(text: str, started: int, monitor: Endpoint | None = None) -> tuple[Qemu, list[Endpoint]]:
    """As :func:`resolve`, the QEMU that :func:`find_process` tells."""
    qemu = find_process(text, started)
    with about_a_machine():
        return qemu, [monitor] if monitor else endpoints(qemu)


def find_process(text: str, started: int) -> Qemu:
    """The QEMU in the process of that id which began ``started`` clock ticks after boot.

    Nothing else has both, so it is that machine, or an ``InvalidArgumentError``.
    """
    pid = decimal(text, _HIGHEST_PID)
    qemu = find_any(pid) if pid is not None else None
    if qemu is None or qemu.process.start_time != started:
        raise InvalidArgumentError(f"the machine of process {text}, started={started}, ended: list them anew")
    return qemu


def _matches(text: str) -> tuple[list[Qemu], list[Qemu]]:
    """The QEMUs that a name, a UUID or a process id means, and all that run.

    Of those with the name only the ones of the nearest user: ourselves, else the system's, else anybody's. A name comes
    before a process id, unless the process is of a nearer user: anybody may call a machine of his by another's id.
    """
    running = find_all()
    named = _called(running, text)
    if not named and "/" not in text:
        renamed = find_renamed()
        named = [qemu for qemu in renamed if qemu.name == text]
        running += renamed
    pid = decimal(text, _HIGHEST_PID)
    by_id = find_any(pid) if pid is not None else None
    near = nearest([*named, by_id] if by_id else named)
    return [qemu for qemu in near if qemu is not by_id] or near, running


def _called(running: list[Qemu], text: str) -> list[Qemu]:
    """Those with that name, or that UUID if none has the name, of the nearest user who has one of either.

    Anybody may give a machine of his the UUID of another's for a name.
    """
    named = [qemu for qemu in running if qemu.name == text]
    near = nearest(named + [qemu for qemu in _of_uuid(running, text) if qemu not in named])
    return [qemu for qemu in near if qemu.name == text] or near


def _of_uuid(running: list[Qemu], text: str) -> list[Qemu]:
    if len(text) != _UUID_LENGTH:
        return []
    with StandardStreamsHeld():
        from libmicrovmi_py.drivers.qemu.sizes import machine_uuid, uuid_of  # of whom has a name, nobody needs it
    uuid = uuid_of(text)
    return [qemu for qemu in running if uuid and machine_uuid(qemu.argv) == uuid]


def _in_the_middle_of_a_fork(matches: list[Qemu]) -> bool:
    """Whether one of two is the other's child: QEMU is forking, to become a daemon or to run a helper.

    One of the two ends soon, so it is worth looking again.
    """
    pids = {qemu.process.pid for qemu in matches}
    return len(pids) > 1 and any(qemu.process.parent in pids for qemu in matches)


def _only(text: str, matches: list[Qemu]) -> Qemu:
    """The one machine that was found. Raises ``InvalidArgumentError`` for several."""
    if len(matches) == 1:
        return matches[0]
    count = f"{len(matches)} QEMU machines are named {text!r}"
    raise InvalidArgumentError(f"{count}: give a process id instead; running: {in_order(matches)}")


def _no_match(text: str, running: list[Qemu]) -> str:
    pid = decimal(text, _HIGHEST_PID)
    process = Process.find(pid) if pid is not None else None
    if process:
        what = f"process {pid} ({process.executable() or 'no program'}) is no QEMU that serves QMP"
        return f"{what}, and no QEMU machine has that name; running: {listing(running, text)}"
    return f"no QEMU machine has the name, process id or QMP socket {text!r}; running: {listing(running, text)}"


def _behind_socket(path: str, running: list[Qemu], deadline: Deadline) -> tuple[Qemu, Endpoint]:
    """The QEMU that serves ``path``, whatever its program is called and whoever made the socket."""
    with UnixEndpoint(path, path).connect(deadline) as sock:
        listener = credentials(sock)
        qemu = find_any(listener.pid) if listener.pid else None
        if qemu is None:
            try:
                wait_for_greeting(sock, deadline.share(4))
            except (DriverUnavailableError, TimeoutExpiredError) as err:
                raise DriverUnavailableError(f"{path}: {_nobody(listener.pid, running)}; {err}") from err
            qemu = _owner(peer_inode(sock), running)
    if qemu is None:
        raise DriverUnavailableError(f"{path}: {_nobody(listener.pid, running)}")
    return qemu, UnixEndpoint(path, bound_name(qemu, path))


def _owner(inode: int, running: list[Qemu]) -> Qemu | None:
    """The process that has that socket: one of the QEMUs, else any."""
    if not inode:
        return None
    for qemu in running:
        if inode in (qemu.process.socket_inodes() or ()):
            return qemu
    for process in Process.all():
        if inode in (process.socket_inodes() or ()):
            return process_as_qemu(process.pid)
    return None


def _nobody(pid: int, running: list[Qemu]) -> str:
    if not pid:
        return (
            "who listens there is in another PID namespace, or /proc is not mounted: its memory cannot be reached "
            "from here, only from a namespace that sees the process (docker run --pid=host, nsenter -p)"
        )
    process = Process.find(pid)
    who = f"process {pid} ({process.executable()})" if process else f"process {pid}, which ended,"
    return f"no QEMU of this machine listens there but {who}; running: {listing(running)}"


def parse_endpoint(text: str) -> Endpoint:
    """A QMP socket as a user names it: a path, or ``HOST:PORT``. Raises ``InvalidArgumentError``."""
    if "/" in text:
        return UnixEndpoint(text, os.path.abspath(text))
    host, _, digits = text.rpartition(":")
    port = decimal(digits, HIGHEST_PORT)
    if not host or not port:
        raise InvalidArgumentError(f"qmp={text}: neither the path of a socket nor HOST:PORT")
    return TcpEndpoint(host.strip("[]"), port)
