# SPDX-License-Identifier: Apache-2.0
"""Where the QMP monitors of a QEMU may be reached: from its command line, its open files and its sockets.

All of this is guesses. Whoever connects has to check that the process itself is at the other end.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator

from libmicrovmi_py.drivers.qemu.commandline import HUMAN, QmpSocket, other_monitors
from libmicrovmi_py.drivers.qemu.machines import Qemu, file_places, roots
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.transport.processes import DELETED, Process
from libmicrovmi_py.transport.sockets import TcpRow, same_namespace, tcp_sockets, unix_sockets_of, was_left
from libmicrovmi_py.transport.unixsock import Endpoint, TcpEndpoint, UnixEndpoint

_SOCKET = re.compile(r"socket:\[(\d+)\]")
_ADVICE = (
    "start QEMU with -qmp unix:/path/qmp.sock,server=on,wait=off, or name its QMP socket with qmp=PATH "
    "(its memory alone: monitor=no)"
)
_LIBVIRT = re.compile(r".*/libvirt/qemu/(?:lib/)?domain-[^/]+/monitor\.sock")
_LIBVIRTS_MONITOR = "charmonitor"
_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class _NowhereError(Exception):
    """Why a monitor on the command line cannot be reached; for the text of an error."""


def endpoints(qemu: Qemu) -> list[Endpoint]:
    """Where the QMP monitors of a QEMU may be reached, likeliest first; none if it has no monitor of any kind.

    Raises ``DriverUnavailableError`` if it has, and none can be reached, but for a machine of libvirt's.
    """
    found: list[Endpoint] = []
    reasons: list[str] = []
    for item in qemu.sockets():
        try:
            found += _places(qemu.process, item)
        except _NowhereError as err:
            reasons.append(str(err))
    if not found:
        reasons += other_monitors(qemu.argv, qemu.files)
        reasons += [f"its -readconfig {name} was not read" for name in qemu.unread]
    if reasons and not found and not is_of_libvirt(qemu):
        raise DriverUnavailableError(_unreachable(qemu, reasons))
    return _distinct(found)


def _unreachable(qemu: Qemu, reasons: list[str]) -> str:
    """Why there is no QMP monitor, and what to do."""
    if all(reason.startswith(HUMAN) for reason in reasons):
        places = "; ".join(reason.removeprefix(HUMAN).strip() for reason in reasons)
        return f"{qemu} serves only the human monitor ({places}): {_ADVICE}"
    return f"{qemu} serves no QMP monitor that can be reached ({'; '.join(reasons)}): {_ADVICE}"


def _distinct(places: Iterable[Endpoint]) -> list[Endpoint]:
    """One of those that are the same file, or the same address."""
    found: dict[object, Endpoint] = {}
    for place in places:
        key: object = place
        if isinstance(place, UnixEndpoint) and (status := _status(place.path)):
            key = (status.st_dev, status.st_ino)
        found.setdefault(key, place)
    return list(found.values())


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _places(process: Process, item: QmpSocket) -> list[Endpoint]:
    """Raises ``_NowhereError``."""
    if item.wrapped:
        raise _NowhereError(f"its QMP monitor on {item.path or item.host} is wrapped in {item.wrapped}")
    if item.fd >= 0:
        return _of_descriptor(process, item.fd)
    if item.host:
        return list(_of_ports(process, item))
    return _of_path(process, "@" + item.path if item.abstract else item.path)


def _known(process: Process, item: QmpSocket) -> list[Endpoint]:
    """As :func:`_places`, nothing for a monitor that cannot be reached."""
    try:
        return _places(process, item)
    except _NowhereError:
        return []


def _of_descriptor(process: Process, fd: int) -> list[Endpoint]:
    """The socket that somebody else made and handed over."""
    target = process.link(f"fd/{fd}")
    match = _SOCKET.fullmatch(target)
    inode = int(match[1]) if match else 0
    rows = [row for row in unix_sockets_of(process) if row.inode == inode] if inode else []
    found: list[Endpoint] = [place for row in rows for place in _of_path(process, row.path)]
    found += [_at(row) for row in _listeners(process) if row.inode == inode]
    if not found:
        why = "" if target else ", which only its user or CAP_SYS_PTRACE can read"
        raise _NowhereError(f"its QMP monitor is on descriptor {fd}{why}")
    return found


def _listeners(process: Process) -> list[TcpRow]:
    """The TCP sockets of the process that listen; none if the system does not tell."""
    inodes = process.socket_inodes()
    tables = dict.fromkeys(["self", str(process.pid)]) if inodes else {}
    rows = (row for table in tables for row in tcp_sockets(table))
    return list({row.inode: row for row in rows if row.listening and inodes and row.inode in inodes}.values())


def _at(row: TcpRow) -> TcpEndpoint:
    address, port = row.local
    return TcpEndpoint(_LOCAL.get(address, address), port)


def _of_ports(process: Process, item: QmpSocket) -> Iterator[TcpEndpoint]:
    """The ports of a range, or any, on which the process does listen: others may listen on the others."""
    if process.socket_inodes() is None:
        raise _NowhereError(
            "its QMP monitor is on a TCP port, and only its user or CAP_SYS_PTRACE can tell whose that is"
        )
    where = f"{item.host}:{item.port}" + (f" to {item.last}" if item.last else "")
    known = _ports_of_others(process)
    rows = [row for row in _listeners(process) if _fits(row.local[1], item) and row.local[1] not in known]
    if not rows:
        raise _NowhereError(f"its QMP monitor on {where} is not where it listens")
    if len({row.local[1] for row in rows}) > 1 and not item.port:
        ports = ", ".join(str(row.local[1]) for row in rows)
        raise _NowhereError(f"its QMP monitor is on one of the ports {ports}: name it with qmp=HOST:PORT")
    if not same_namespace(process, "net") and all(_is_local(_at(row).host) for row in rows):
        enter = f"nsenter -n -t {process.pid}"
        raise _NowhereError(f"its QMP monitor on {where} is in another network namespace: {enter}")
    ports_seen: set[int] = set()
    for row in sorted(rows, key=lambda row: (row.local[1], ":" in row.local[0])):
        if row.local[1] not in ports_seen:
            ports_seen.add(row.local[1])
            yield _at(row)


def _is_local(host: str) -> bool:
    return host.startswith("127.") or host == "::1"


def _fits(port: int, item: QmpSocket) -> bool:
    return not item.port or item.port <= port <= max(item.port, item.last)


def _ports_of_others(process: Process) -> set[int]:
    """Ports that the command line gives to the debugger's stub: a connection there stops the machine."""
    argv = process.argv()
    found = {1234} if "-s" in argv or "--s" in argv else set()
    for word, value in itertools.pairwise(argv):
        if word in ("-gdb", "--gdb"):
            found |= {int(port) for port in re.findall(r":([0-9]{1,5})(?=,|$)", value)}
    return found


def _of_path(process: Process, path: str) -> list[Endpoint]:
    """A path as the process sees it: in its root directory, from where it works or was started."""
    if path.startswith("@"):
        return [UnixEndpoint("\0" + path[1:], path)]
    places = file_places(process, path)
    if os.path.isabs(path):
        return [UnixEndpoint(place, path) for place in places]
    places += [os.path.join(folder, path) for folder in _folders(process)]
    found = [place for place in places if (status := _status(place)) and stat.S_ISSOCK(status.st_mode)]
    if not found:
        raise _NowhereError(f"its QMP socket {path!r} was named from a directory that is not known")
    return [UnixEndpoint(place, path) for place in dict.fromkeys(found)]


def _folders(process: Process) -> list[str]:
    """Directories in which a QEMU may have been started that has left for another: those of its files, and ours."""
    names = [target.removesuffix(DELETED) for _, target in process.descriptors()]
    folders = dict.fromkeys(os.path.dirname(name) for name in names if os.path.isabs(name))
    return [*(prefix + folder for folder in folders for prefix in roots(process)), os.getcwd()]


def bound_name(qemu: Qemu, path: str) -> str:
    """The name that QEMU gave the socket at ``path``, as its command line has it."""
    status = _status(path)
    for item in qemu.sockets():
        for place in _known(qemu.process, item):
            other = _status(place.path) if isinstance(place, UnixEndpoint) else None
            if status and other and os.path.samestat(status, other) and isinstance(place, UnixEndpoint):
                return place.bound
    return os.path.abspath(path)


def held_by_another(process: Process, endpoint: Endpoint) -> bool:
    """Whether somebody is connected to that monitor, as far as the system tells: a guess.

    Who has hung up does not count, though QEMU may not have seen it yet.
    """
    if not isinstance(endpoint, UnixEndpoint):
        return False
    rows = [row for row in unix_sockets_of(process) if row.connected and row.path == endpoint.bound]
    return any(not was_left(row.inode) for row in rows)


def is_of_libvirt(qemu: Qemu) -> bool:
    """Whether libvirt made the machine, by the name that it gives to its monitor."""
    return any(item.ident == _LIBVIRTS_MONITOR for item in qemu.sockets())


def is_libvirts(qemu: Qemu, endpoint: Endpoint) -> bool:
    """Whether that monitor is the one that libvirt made for itself and keeps."""
    if not isinstance(endpoint, UnixEndpoint):
        return False
    own = (item for item in qemu.sockets() if item.ident == _LIBVIRTS_MONITOR)
    return bool(_LIBVIRT.fullmatch(endpoint.bound)) or any(endpoint in _known(qemu.process, item) for item in own)
