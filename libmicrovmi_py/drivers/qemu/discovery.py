# SPDX-License-Identifier: Apache-2.0
"""Finding the QEMU process that a text means, and the sockets of its QMP monitors."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from libmicrovmi_py.drivers.qemu.commandline import HIGHEST_PORT, QmpSocket, guest_name, qmp_sockets
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.shape import decimal
from libmicrovmi_py.transport.unixsock import Endpoint, TcpEndpoint, UnixEndpoint, peer_pid, unix_sockets

_PROGRAM = re.compile(r"\.?(qemu-system-[\w.+-]+|qemu-kvm|kvm|qemu)")
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_RETRY = 0.01
_HIGHEST_PID = 1 << 22
_ADVICE = "start QEMU with -qmp unix:/path/qmp.sock,server=on,wait=off"


@dataclass(frozen=True, slots=True)
class Qemu:
    """A running QEMU: its process, the machine's name (``""`` without ``-name``) and its command line."""

    process: Process
    name: str
    argv: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name or '(no name)'} (pid {self.process.pid})"


def find_qemu(pid: int) -> Qemu | None:
    """The QEMU with that process id, ``None`` if there is no such process or it is something else."""
    process = Process.find(pid)
    return _as_qemu(process) if process else None


def find_all() -> list[Qemu]:
    """Every QEMU that runs on this machine."""
    return [qemu for process in Process.all() if (qemu := _as_qemu(process))]


def _as_qemu(process: Process) -> Qemu | None:
    if not _PROGRAM.fullmatch(process.executable()):
        return None
    argv = process.argv()
    return Qemu(process, guest_name(argv), tuple(argv)) if argv else None


def resolve(text: str, monitor: Endpoint | None, deadline: Deadline) -> tuple[Qemu, list[Endpoint]]:
    """The QEMU that ``text`` means, and its monitors: a machine's name, else a process id, else a QMP socket's path.

    ``monitor`` takes the place of those on the command line.

    Raises ``InvalidArgumentError`` for several or no matches, ``DriverUnavailableError`` when no monitor is served.
    """
    matches, running = _matches(text)
    while _in_the_middle_of_a_fork(matches) and not deadline.expired:
        time.sleep(_RETRY)
        matches, running = _matches(text)
    if not matches and "/" in text:
        qemu, place = _behind_socket(text, running, deadline)
        return qemu, [monitor or place]
    if len(matches) != 1:
        raise InvalidArgumentError(_no_single_match(text, matches, running))
    return matches[0], [monitor] if monitor else endpoints(matches[0])


def _matches(text: str) -> tuple[list[Qemu], list[Qemu]]:
    """The QEMUs that a name or a process id means, and all that run."""
    running = find_all()
    named = [qemu for qemu in running if qemu.name == text]
    pid = None if named else decimal(text, _HIGHEST_PID)
    return [qemu for qemu in running if qemu.process.pid == pid] or named, running


def _in_the_middle_of_a_fork(matches: list[Qemu]) -> bool:
    """Whether one is another's child: QEMU is about to become a daemon or to run a helper, and one of them goes."""
    pids = {qemu.process.pid for qemu in matches}
    return len(pids) > 1 and any(qemu.process.parent in pids for qemu in matches)


def _no_single_match(text: str, matches: list[Qemu], running: list[Qemu]) -> str:
    listing = ", ".join(map(str, running)) or "none"
    if matches:
        return f"{len(matches)} QEMU machines are named {text!r}: give a process id instead; running: {listing}"
    return f"no QEMU machine has the name, process id or QMP socket {text!r}; running: {listing}"


def endpoints(qemu: Qemu) -> list[Endpoint]:
    """Where the QMP monitors of a QEMU may be reached, likeliest first. Raises ``DriverUnavailableError`` for none."""
    found = [endpoint for item in qmp_sockets(qemu.argv) for endpoint in _places(qemu.process, item)]
    if not found:
        raise DriverUnavailableError(f"{qemu} serves no QMP monitor: {_ADVICE}")
    return list(dict.fromkeys(found))


def _places(process: Process, item: QmpSocket) -> Iterator[Endpoint]:
    if item.port:
        yield TcpEndpoint(item.host, item.port)
    elif item.abstract:
        yield UnixEndpoint("\0" + item.path, "@" + item.path)
    elif item.path:
        yield from _paths(process, item.path)
    elif match := _SOCKET.fullmatch(process.link(f"fd/{item.fd}")):
        for row in unix_sockets(process.pid):
            if row.inode == int(match[1]):
                yield from _paths(process, row.path)


def _paths(process: Process, path: str) -> Iterator[Endpoint]:
    """A path as the process sees it: in its root directory, from where it works or was started."""
    if path.startswith("@"):
        yield UnixEndpoint("\0" + path[1:], path)
        return
    if os.path.isabs(path):
        yield from (UnixEndpoint(prefix + path, path) for prefix in _roots(process))
        return
    yield UnixEndpoint(os.path.join(process.path("cwd"), path), path)
    if started := process.variable("PWD"):
        yield UnixEndpoint(os.path.join(started, path), path)


def _roots(process: Process) -> list[str]:
    """Prefixes of absolute paths: nothing, and first the process's own root directory if it has another one."""
    own = Process.find(os.getpid())
    same = own is None or process.link("ns/mnt") in ("", own.link("ns/mnt"))
    same = same and _same_file(process.path("root"), "/")
    return [""] if same else [process.path("root"), ""]


def _behind_socket(path: str, running: list[Qemu], deadline: Deadline) -> tuple[Qemu, Endpoint]:
    """The QEMU that listens at ``path``; where another process made the socket for it, the one that has it open."""
    absolute = os.path.abspath(path)
    with UnixEndpoint(path, path).connect(deadline) as sock:
        pid = peer_pid(sock)
    inodes = {row.inode for row in unix_sockets() if row.listening and row.path == absolute}
    for qemu in sorted(running, key=lambda qemu: qemu.process.pid != pid):
        if qemu.process.pid == pid or inodes & qemu.process.socket_inodes():
            return qemu, UnixEndpoint(path, _bound_name(qemu, path))
    listing = ", ".join(map(str, running)) or "none"
    raise DriverUnavailableError(f"{path}: no QEMU of this machine listens there; running: {listing}")


def _bound_name(qemu: Qemu, path: str) -> str:
    """The name that QEMU gave the socket at ``path``, as its command line has it."""
    for item in qmp_sockets(qemu.argv):
        for place in _places(qemu.process, item):
            if isinstance(place, UnixEndpoint) and _same_file(place.path, path):
                return place.bound
    return os.path.abspath(path)


def _same_file(first: str, second: str) -> bool:
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return False


def parse_endpoint(text: str) -> Endpoint:
    """A QMP socket as a user names it: a path, or ``HOST:PORT``. Raises ``InvalidArgumentError``."""
    if "/" in text:
        return UnixEndpoint(text, os.path.abspath(text))
    host, _, digits = text.rpartition(":")
    port = decimal(digits, HIGHEST_PORT)
    if not host or not port:
        raise InvalidArgumentError(f"qmp={text}: neither the path of a socket nor HOST:PORT")
    return TcpEndpoint(host.strip("[]"), port)


def is_other_qemu(pid: int, process: Process) -> bool:
    """Whether ``pid`` is a QEMU, but not this one."""
    return pid != process.pid and find_qemu(pid) is not None


def held_by_another(process: Process, endpoint: Endpoint) -> bool:
    """Whether somebody is connected to that monitor, as far as the system tells."""
    if not isinstance(endpoint, UnixEndpoint):
        return False
    rows = [row for row in unix_sockets(process.pid) if row.connected and row.inode and row.path == endpoint.bound]
    return bool(rows) and bool({row.inode for row in rows} & process.socket_inodes())


def is_libvirts(qemu: Qemu, endpoint: Endpoint) -> bool:
    """Whether that monitor is the one that libvirt made for itself and keeps."""
    own = [item for item in qmp_sockets(qemu.argv) if item.ident == "charmonitor"]
    return any(endpoint in _places(qemu.process, item) for item in own)
