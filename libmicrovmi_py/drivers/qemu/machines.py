# SPDX-License-Identifier: Apache-2.0
"""The QEMU processes of this machine: which processes are QEMUs, and what is known of each without asking it."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence

from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.drivers.qemu.commandline import (
    Group,
    QmpSocket,
    config_files,
    guest_name,
    parse_config,
    qmp_sockets,
)
from libmicrovmi_py.errors import listed
from libmicrovmi_py.transport.fds import read_regular
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.sockets import same_namespace, tcp_sockets, unix_sockets_of

_PROGRAM = re.compile(r"\.?(qemu(-[\w.+]+)*-system-[\w.+-]+|qemu-kvm|kvm|qemu)")
_OWN_FILE = re.compile(r"/(?:dev|proc/self)/fd/([0-9]+)")
_LARGEST_CONFIG = 1 << 20
_MOST_CONFIGS = 16
_MONITOR_WORDS = (b"-qmp", b"-mon", b"-readconfig")
"""One of them is on every command line that names a QMP monitor."""

_SHOWN = 100
"""Characters of a machine's name that a text repeats: whoever starts one may give it as many as he likes."""

_USERS = 1000
_SERVICES = range(61184, 65520)
"""User ids of services that systemd and Debian give out; libvirt-qemu has one of them."""


@dataclass(frozen=True, slots=True)
class Qemu:
    """A running QEMU: its process, the machine's name (``""`` without ``-name``), its command line.

    ``files`` is what the files of ``-readconfig`` say, ``unread`` which of them could not be read, and why.
    """

    process: Process
    name: str
    argv: tuple[str, ...]
    files: tuple[Group, ...] = ()
    unread: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = self.name if len(self.name) <= _SHOWN else f"{self.name[:_SHOWN]}..."
        return f"{shown or '(no name)'} (pid {self.process.pid})"

    def sockets(self) -> list[QmpSocket]:
        """Its QMP monitors that listen, as the command line and those files name them."""
        return qmp_sockets(self.argv, self.files)

    def distance(self) -> int:
        """How far its user is from us: 0 ourselves, 1 root and the system's services, 2 any other user.

        Whoever runs it under a name of his choice counts by the farther of its real and effective user.
        """
        return max((_distance(uid) for uid in self.process.uids()), default=2)


def find_qemu(pid: int) -> Qemu | None:
    """The QEMU with that process id, ``None`` if there is no such process or its program is not called QEMU."""
    process = Process.find(pid)
    return _as_qemu(process) if process and _PROGRAM.fullmatch(process.executable()) else None


def find_any(pid: int) -> Qemu | None:
    """As :func:`find_qemu`, whatever the program is called, if its command line names a QMP monitor."""
    process = Process.find(pid)
    qemu = _as_qemu(process) if process else None
    return qemu if qemu and (_PROGRAM.fullmatch(qemu.process.executable()) or qemu.sockets()) else None


def process_as_qemu(pid: int) -> Qemu | None:
    """That process as a QEMU, unchecked: for a process that serves QMP, as we have seen."""
    process = Process.find(pid)
    return _as_qemu(process) if process else None


def find_all() -> list[Qemu]:
    """Every QEMU that runs on this machine, by its program's name."""
    found = (_as_qemu(process) for process in Process.all(_PROGRAM.fullmatch))
    return [qemu for qemu in found if qemu]


def find_renamed() -> list[Qemu]:
    """Processes of other programs with a QEMU's command line, and which listen: not what started a QEMU."""
    found = (_renamed(process) for process in Process.all(lambda name: False, _MONITOR_WORDS))
    return [qemu for qemu in found if qemu]


def find_both() -> tuple[list[Qemu], list[Qemu]]:
    """:func:`find_all` and :func:`find_renamed`, by one look at each process."""
    processes = list(Process.all(_PROGRAM.fullmatch, _MONITOR_WORDS))
    known = (process for process in processes if _PROGRAM.fullmatch(process.executable()))
    by_program = [qemu for process in known if (qemu := _as_qemu(process))]
    return by_program, [qemu for process in processes if (qemu := _renamed(process))]


def _renamed(process: Process) -> Qemu | None:
    if process.pid == os.getpid() or _PROGRAM.fullmatch(process.executable()):
        return None
    qemu = _as_qemu(process)
    return qemu if qemu and qemu.sockets() and _listens(process) else None


def _listens(process: Process) -> bool:
    if any(row.listening for row in unix_sockets_of(process)):
        return True
    inodes = process.socket_inodes() or set()
    return bool(inodes) and any(row.listening and row.inode in inodes for row in tcp_sockets(process.pid))


def _as_qemu(process: Process) -> Qemu | None:
    argv = process.argv()
    if not argv:
        return None
    groups: list[Group] = []
    unread = []
    for name in config_files(argv)[:_MOST_CONFIGS]:
        try:
            groups += parse_config(_content(process, name))
        except (OSError, ValueError) as err:
            unread.append(f"{name} ({getattr(err, 'strerror', '') or err})")
    return Qemu(process, guest_name(argv, groups), tuple(argv), tuple(groups), tuple(unread))


def _content(process: Process, name: str) -> str:
    """A file as the process sees it: in its root directory, from where it works or was started."""
    error: OSError | ValueError = ValueError("not a file any more")
    for path in file_places(process, name):
        try:
            return read_regular(path, _LARGEST_CONFIG).decode(errors="surrogateescape")
        except (OSError, ValueError) as err:
            error = err
    raise error


def file_places(process: Process, name: str) -> list[str]:
    """Where a file that a process names may be for us; the likeliest place first."""
    if match := _OWN_FILE.fullmatch(name):
        return [process.path(f"fd/{match[1]}")]
    if os.path.isabs(name):
        return [prefix + name for prefix in roots(process)]
    started = [process.variable(word) for word in ("PWD", "OLDPWD")]
    folders = [prefix + folder for folder in started if folder for prefix in roots(process)]
    return [os.path.join(folder, name) for folder in (process.path("cwd"), *folders)]


def roots(process: Process) -> list[str]:
    """Prefixes of absolute paths: nothing, and first the process's own root directory if it has another one."""
    same = same_namespace(process, "mnt") and _same_file(process.path("root"), "/")
    return [""] if same else [process.path("root"), ""]


def _same_file(first: str, second: str) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


def nearest(machines: Sequence[Qemu]) -> list[Qemu]:
    """The machines of the nearest user: a machine of a stranger with the same name does not make a name ambiguous."""
    ranks = [qemu.distance() for qemu in machines]
    return [qemu for qemu, rank in zip(machines, ranks, strict=True) if rank == min(ranks)]


def listing(machines: Iterable[Qemu], text: str = "") -> str:
    """As :func:`in_order`; if there are none, with why we may not see them.

    Names that are like ``text`` come first; of equal ones those of the nearest user, then those started last.
    """
    ordered = sorted(machines, key=lambda qemu: _likely(qemu, text))
    return in_order(ordered) + ("" if ordered else _blind())


def in_order(machines: Iterable[Qemu]) -> str:
    """Machines for an error, the first eight of them: name, process and user."""
    return listed([str(qemu) + _user(qemu.process) for qemu in machines])


def _likely(qemu: Qemu, text: str) -> tuple[int, int, int]:
    return _unlike(qemu.name, text), qemu.distance(), -qemu.process.start_time


def _unlike(name: str, text: str) -> int:
    """How different a name is from ``text``: 0 if one contains the other, less the longer their common beginning is."""
    first, second = name.casefold(), text.casefold()
    if not first or not second:
        return len(second)
    if first in second or second in first:
        return 0
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return len(second) - len(list(same))


def _user(process: Process) -> str:
    uids = process.uids()
    return f" of uid {uids[-1]}" if uids else ""


def _distance(uid: int) -> int:
    if uid == os.geteuid():
        return 0
    return 1 if uid < _USERS or uid in _SERVICES else 2


def _blind() -> str:
    """Why other machines may be there that we cannot see, in parentheses; empty if we see all processes."""
    own = Process.find(os.getpid())
    if own is None:
        return " (/proc is not that of this process: mount -t proc proc /proc)"
    if own.link("ns/pid") not in ("", "pid:[4026531836]"):
        return " (this process sees only the processes of its own PID namespace)"
    return "" if Process.find(1) else " (/proc hides the processes of other users: hidepid)"
