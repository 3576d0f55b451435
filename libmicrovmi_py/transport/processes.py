# SPDX-License-Identifier: Apache-2.0
"""Processes as ``/proc`` shows them: command line, executable, state, sockets, memory mappings."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from libmicrovmi_py.declare import dataclass, field, replace
from libmicrovmi_py.errors import IoError, MicrovmiError, PermissionDeniedError, VmGoneError
from libmicrovmi_py.transport.fds import StandardStreamsHeld

DELETED = " (deleted)"

_STOPPED = ("T", "t")
_ENDED = ("", "Z", "X", "x")

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What says nothing of the process: we have run out of something."""


@dataclass(frozen=True, slots=True)
class Vma:
    """A line of ``/proc/PID/maps``, or several that continue each other.

    Host addresses, and the file behind them when ``inode`` is not 0. ``writable`` is whether the process may write all
    of it, which for a shared file says that it has the right to write that file. ``head`` is where the first of the
    lines ends: the kernel knows the mapping by that and by ``start``.
    """

    start: int
    end: int
    shared: bool
    writable: bool
    offset: int
    device: int
    inode: int
    path: str
    head: int = field(compare=False)

    @property
    def is_shared_file(self) -> bool:
        """Whether others who map the same file see the same bytes."""
        return self.shared and self.inode != 0

    @property
    def is_anonymous(self) -> bool:
        """Whether it is the process's own and no file's: pages that were never touched are zero."""
        return not self.shared and self.inode == 0

    def continues(self, other: Vma) -> bool:
        """Whether this mapping follows ``other``, in memory and in the same file.

        Without a file, one that may be written is no part of one that may not: QEMU has pages that nobody may touch
        behind the guest's memory.
        """
        mine = (self.shared, self.device, self.inode, self.path)
        same = mine == (other.shared, other.device, other.inode, other.path) and self.start == other.end
        if self.inode == 0:
            return same and self.writable == other.writable
        return same and self.offset == other.offset + (other.end - other.start)


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told apart from a later one with the same id by its start time."""

    pid: int
    start_time: int

    @classmethod
    def find(cls, pid: int) -> Process | None:
        """The process with that id, ``None`` if there is none or it ended and nobody has waited for it yet."""
        state, start_time, _ = _stat(pid)
        return None if state in _ENDED else cls(pid, start_time)

    @classmethod
    def all(cls) -> Iterator[Process]:
        """Every process, in ascending order; one that ends meanwhile is left out."""
        for pid in sorted(int(name) for name in names_in("/proc") if name.isdigit()):
            process = cls.find(pid)
            if process is not None:
                yield process

    def path(self, name: str) -> str:
        """The path of a file in the process's directory, such as ``maps``."""
        return f"/proc/{self.pid}/{name}"

    @property
    def alive(self) -> bool:
        """Whether it still runs; ``False`` for a zombie and when the id belongs to another process."""
        state, start_time, _ = _stat(self.pid)
        return state not in _ENDED and start_time == self.start_time

    @property
    def stopped(self) -> bool:
        """Whether a signal or a debugger stopped it."""
        return _stat(self.pid)[0] in _STOPPED

    @property
    def user(self) -> int:
        """The id of the user with whose rights it acts, -1 if it ended."""
        return (self.uids() or (-1,))[-1]

    @property
    def parent(self) -> int:
        """The id of its parent, 0 if it ended."""
        return _stat(self.pid)[2]

    def argv(self) -> list[str]:
        """The command line; empty for a kernel thread and for one that ended."""
        try:
            with StandardStreamsHeld(), open(self.path("cmdline"), "rb") as file:
                raw = file.read()
        except OSError:
            return []
        return [os.fsdecode(word) for word in raw.removesuffix(b"\0").split(b"\0")] if raw else []

    def executable(self) -> str:
        """The base name of the program it runs; that of ``argv[0]`` where the system does not tell."""
        try:
            path = os.readlink(self.path("exe"))
        except OSError:
            path = (self.argv() or [""])[0]
        return os.path.basename(path.removesuffix(DELETED))

    def link(self, name: str) -> str:
        """Where a link in the process's directory points, ``""`` if the system does not tell."""
        try:
            return os.readlink(self.path(name))
        except OSError:
            return ""

    def variable(self, name: str) -> str:
        """A variable of the environment it was started with, ``""`` if there is none or the system does not tell."""
        try:
            with StandardStreamsHeld(), open(self.path("environ"), "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            return ""
        prefix = os.fsencode(name) + b"="
        return next((os.fsdecode(word[len(prefix) :]) for word in words if word.startswith(prefix)), "")

    def descriptors(self) -> Iterator[tuple[str, str]]:
        """The path and the target of each open file; nothing if the system does not tell."""
        try:
            numbers = names_in(self.path("fd"))
        except OSError:
            return
        for number in numbers:
            yield self.path(f"fd/{number}"), self.link(f"fd/{number}")

    def socket_inodes(self) -> set[int] | None:
        """The inodes of its sockets, ``None`` if the system does not tell: a QEMU always has open files."""
        targets = [target for _, target in self.descriptors()]
        found = (target[8:-1] for target in targets if target.startswith("socket:[") and target.endswith("]"))
        return {int(inode) for inode in found if inode.isdecimal()} if any(targets) else None

    def uids(self) -> tuple[int, ...]:
        """Its real and its effective user id; none if the system does not tell."""
        try:
            with StandardStreamsHeld(), open(self.path("status"), "rb") as file:
                fields = next((line.split() for line in file if line.startswith(b"Uid:")), [])
        except OSError:
            return ()
        return tuple(int(word) for word in fields[1:3])

    def mappings(self) -> list[Vma]:
        """Its memory mappings in ascending order; neighbours that continue each other are joined into one.

        Raises ``PermissionDeniedError`` or ``VmGoneError``.
        """
        try:
            with StandardStreamsHeld(), open(self.path("maps"), "rb") as file:
                lines = file.read().decode("utf-8", "surrogateescape").split("\n")
        except PermissionError as err:
            raise self.refused("maps") from err
        except OSError as err:
            raise failed(self.pid, err) from err
        return _joined(_vma(line) for line in lines if line)

    def refused(self, name: str) -> PermissionDeniedError | VmGoneError:
        """The error for a file that was refused. A zombie refuses its own user as well: that process is gone."""
        return denied(self.path(name)) if self.alive else VmGoneError(f"process {self.pid} ended")


def names_in(folder: str) -> list[str]:
    """The names in a folder. Raises ``OSError``."""
    with StandardStreamsHeld():
        return os.listdir(folder)


def denied(path: str) -> PermissionDeniedError:
    """The error for a process that the system does not let us look into: ``path`` is one of its files in ``/proc``."""
    if _not_dumpable(path):
        return PermissionDeniedError(
            f"{path}: the operating system refused: that process changed its user or its rights after it was started "
            "(QEMU with -runas or -run-with user= does) and is not dumpable, so that CAP_SYS_PTRACE is needed whoever "
            "looks into it"
        )
    return PermissionDeniedError(
        f"{path}: the operating system refused: run as the user of that process or with CAP_SYS_PTRACE, "
        "and look at /proc/sys/kernel/yama/ptrace_scope (0 or 1 with CAP_SYS_PTRACE)"
    )


def _not_dumpable(path: str) -> bool:
    """Whether such a file belongs to root although the process does not, which is how the kernel protects it."""
    try:
        users = Process(int(path.split("/")[2]), 0).uids()
        return bool(users) and users[-1] != 0 and os.stat(path).st_uid == 0
    except (OSError, ValueError, IndexError):
        return False


def failed(pid: int, err: OSError) -> MicrovmiError:
    """The error for what the system says of a process: that it is not there, or that something is short."""
    if err.errno in _SHORTAGES:
        return IoError(f"cannot look at process {pid}: {err.strerror}")
    return VmGoneError(f"process {pid} ended")


def _stat(pid: int) -> tuple[str, int, int]:
    """State, start time and parent."""
    try:
        with StandardStreamsHeld(), open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19]), int(fields[1])
    except OSError as err:
        if err.errno in _SHORTAGES:
            raise failed(pid, err) from err
    except IndexError:
        pass
    return "", 0, 0


def _vma(line: str) -> Vma:
    span, perms, offset, device, inode, *path = line.split(None, 5)
    start, end = (int(address, 16) for address in span.split("-"))
    major, minor = device.split(":")
    number = os.makedev(int(major, 16), int(minor, 16))
    shared, writable = perms[3] == "s", perms[1] == "w"
    return Vma(start, end, shared, writable, int(offset, 16), number, int(inode), "".join(path), end)


def _joined(vmas: Iterator[Vma]) -> list[Vma]:
    result: list[Vma] = []
    for vma in vmas:
        if result and vma.continues(result[-1]):
            last = result.pop()
            vma = replace(last, end=vma.end, writable=last.writable and vma.writable)
        result.append(vma)
    return result
