# SPDX-License-Identifier: Apache-2.0
"""Processes as ``/proc`` shows them: command line, executable, state, sockets, memory mappings."""

from __future__ import annotations

import bisect
import errno
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from libmicrovmi_py.declare import dataclass, field, replace
from libmicrovmi_py.errors import IoError, MicrovmiError, PermissionDeniedError, VmGoneError
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld

DELETED = " (deleted)"

_STOPPED = ("T", "t")
_ENDED = ("", "Z", "X", "x")

_ALL = 1 << 64

_CHUNK = 1 << 16

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What says nothing of the process: we have run out of something."""


@dataclass(frozen=True, slots=True)
class Vma:
    """A line of ``/proc/PID/maps``, or several that continue each other.

    Host addresses, and the file behind them when ``inode`` is not 0. ``writable`` is whether the process may write all
    of it, which for a shared file says that it has the right to write that file. ``edges`` is where its lines end, in
    ascending order: the kernel knows the mapping by each of them.
    """

    start: int
    end: int
    shared: bool
    writable: bool
    offset: int
    device: int
    inode: int
    path: str
    edges: list[int] = field(compare=False)

    @property
    def head(self) -> int:
        """Where the first line ends."""
        return self.edges[0]

    def line(self, address: int) -> tuple[int, int]:
        """Start and end of the line that holds an address of this mapping."""
        index = bisect.bisect_right(self.edges, address)
        return self.edges[index - 1] if index else self.start, self.edges[index]

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
    def all(cls, wanted: Callable[[str], object] = lambda name: True, words: Sequence[bytes] = ()) -> Iterator[Process]:
        """Every process whose program's name is ``wanted``, in ascending order; one that ends meanwhile is left out.

        ``words``: and those in whose command line one of them occurs, whatever their programs are called. Of the others
        nothing but that is looked at: there may be thousands, of a few programs.
        """
        wants = functools.cache(lambda program: wanted(_name(program)))
        names = (name for name in names_in("/proc") if name.isdigit())
        for pid in sorted(int(name) for name in names if wants(_program(name)) or (words and _has(name, words))):
            if (process := cls.find(pid)) is not None:
                yield process

    @property
    def identity(self) -> str:
        """What no other process has, or had since the host was booted."""
        return f"process {self.pid} of {self.start_time}"

    def path(self, name: str) -> str:
        """The path of a file in the process's directory, such as ``maps``."""
        return f"/proc/{self.pid}/{name}"

    @property
    def alive(self) -> bool:
        """Whether it still runs; ``False`` for a zombie and when the id belongs to another process."""
        return self.standing is not None

    @property
    def stopped(self) -> bool:
        """Whether a signal or a debugger stopped it."""
        return self.standing is True

    @property
    def standing(self) -> bool | None:
        """:attr:`stopped`, ``None`` if it is not :attr:`alive`: both by one look."""
        state, start_time, _ = _stat(self.pid)
        return None if state in _ENDED or start_time != self.start_time else state in _STOPPED

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
            raw = _content(self.path("cmdline"))
        except OSError:
            return []
        return [os.fsdecode(word) for word in raw.removesuffix(b"\0").split(b"\0")] if raw else []

    def executable(self) -> str:
        """The base name of the program it runs; that of ``argv[0]`` where the system does not tell."""
        return _name(_program(str(self.pid)))

    def link(self, name: str) -> str:
        """Where a link in the process's directory points, ``""`` if the system does not tell."""
        try:
            return os.readlink(self.path(name))
        except OSError:
            return ""

    def variable(self, name: str) -> str:
        """A variable of the environment it was started with, ``""`` if there is none or the system does not tell."""
        try:
            words = _content(self.path("environ")).split(b"\0")
        except OSError:
            return ""
        prefix = os.fsencode(name) + b"="
        return next((os.fsdecode(word[len(prefix) :]) for word in words if word.startswith(prefix)), "")

    def descriptors(self) -> Iterator[tuple[str, str]]:
        """The path and the target of each open file; nothing if the system does not tell."""
        for number in self._numbers():
            yield self.path(f"fd/{number}"), self.link(f"fd/{number}")

    def _numbers(self) -> list[str]:
        """Those of its open files; none if the system does not tell."""
        try:
            return names_in(self.path("fd"))
        except OSError:
            return []

    def socket_inodes(self) -> set[int] | None:
        """The inodes of its sockets, ``None`` if the system does not tell: a QEMU always has open files."""
        targets = [target for _, target in self.descriptors()]
        found = (target[8:-1] for target in targets if target.startswith("socket:[") and target.endswith("]"))
        return {int(inode) for inode in found if inode.isdecimal()} if any(targets) else None

    def has_socket(self, inode: int) -> bool | None:
        """Whether the socket of that inode is among its open files, ``None`` if the system does not tell.

        Those that were opened last are looked at first.
        """
        told = False
        for number in sorted(self._numbers(), key=int, reverse=True):
            target = self.link(f"fd/{number}")
            if target == f"socket:[{inode}]":
                return True
            told = told or bool(target)
        return False if told else None

    def threads(self) -> set[int]:
        """The ids of its threads; none if it ended."""
        try:
            return {int(name) for name in names_in(self.path("task"))}
        except OSError:
            return set()

    def uids(self) -> tuple[int, ...]:
        """Its real and its effective user id; none if the system does not tell."""
        try:
            lines = _content(self.path("status")).split(b"\n")
        except OSError:
            return ()
        fields = next((line.split() for line in lines if line.startswith(b"Uid:")), [])
        return tuple(int(word) for word in fields[1:3])

    def mappings(self, spans: Iterable[tuple[int, int]] = ((0, _ALL),)) -> list[Vma]:
        """Its memory mappings in ascending order; neighbours that continue each other are joined into one.

        Those that hold something of ``spans``, each from an address up to another. Raises ``PermissionDeniedError`` or
        ``VmGoneError``.
        """
        return _joined(_within(self._maps(), spans))

    def areas(self, size: int) -> list[Vma]:
        """Its mappings of exactly ``size`` bytes that it reads and writes and does not execute.

        Each is one that the process made: unlike in :meth:`mappings`, neighbours are not joined. Raises as that does.
        """
        data = (line for line in self._maps() if line.split(None, 2)[1].startswith(b"rw-"))
        return [vma for vma in map(_vma, data) if vma.end - vma.start == size]

    def _maps(self) -> list[bytes]:
        """The lines of ``maps``. Raises ``PermissionDeniedError`` or ``VmGoneError``."""
        try:
            return _content(self.path("maps")).split(b"\n")[:-1]
        except PermissionError as err:
            raise self.refused("maps") from err
        except OSError as err:
            raise failed(self.pid, err) from err

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
        f"{path}: the operating system refused: run as the user of that process or with CAP_SYS_PTRACE "
        "and CAP_DAC_OVERRIDE (to read: CAP_DAC_READ_SEARCH), and look at /proc/sys/kernel/yama/ptrace_scope "
        "(0 or 1 with CAP_SYS_PTRACE)"
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
        fields = _content(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19]), int(fields[1])
    except OSError as err:
        if err.errno in _SHORTAGES:
            raise failed(pid, err) from err
    except IndexError:
        pass
    return "", 0, 0


def _program(pid: str) -> str:
    """The program that a process runs; ``argv[0]`` where the system does not tell.

    What has no program, a thread of the kernel's, has no command line either.
    """
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except FileNotFoundError:
        return ""
    except OSError:
        return (Process(int(pid), 0).argv() or [""])[0]


def _has(pid: str, words: Sequence[bytes]) -> bool:
    try:
        line = _content(f"/proc/{pid}/cmdline")
    except OSError:
        return False
    return any(word in line for word in words)


def _name(program: str) -> str:
    return os.path.basename(program.removesuffix(DELETED))


def _content(path: str) -> bytes:
    """All of a file in ``/proc``, without what a file object takes. Raises ``OSError``."""
    file = OwnedFd.open(path, os.O_RDONLY)
    parts = [os.read(file.number, _CHUNK)]
    while parts[-1]:
        parts.append(os.read(file.number, _CHUNK))
    return b"".join(parts)


def _within(lines: Sequence[bytes], spans: Iterable[tuple[int, int]]) -> Iterator[Vma]:
    """The mappings in those lines that hold something of ``spans``, and those that continue them."""
    vma = functools.cache(lambda index: _vma(lines[index]))
    done = 0
    for start, end in sorted(spans):
        index = max(done, bisect.bisect_right(lines, start, key=_end))
        if index == len(lines) or vma(index).start >= end:
            continue
        while index > done and vma(index).continues(vma(index - 1)):
            index -= 1
        yield vma(index)
        done = index + 1
        while done < len(lines) and (vma(done).start < end or vma(done).continues(vma(done - 1))):
            yield vma(done)
            done += 1


def _end(line: bytes) -> int:
    """Where the mapping of a line ends."""
    return int(line[line.index(b"-") + 1 : line.index(b" ")], 16)


def _vma(line: bytes) -> Vma:
    span, perms, offset, device, inode, *path = line.split(None, 5)
    start, end = (int(address, 16) for address in span.split(b"-"))
    major, minor = device.split(b":")
    number = os.makedev(int(major, 16), int(minor, 16))
    shared, writable = perms[3:4] == b"s", perms[1:2] == b"w"
    name = b"".join(path).decode("utf-8", "surrogateescape")
    return Vma(start, end, shared, writable, int(offset, 16), number, int(inode), name, [end])


def _joined(vmas: Iterator[Vma]) -> list[Vma]:
    result: list[Vma] = []
    for vma in vmas:
        if result and vma.continues(result[-1]):
            last = result.pop()
            last.edges.append(vma.end)
            vma = replace(last, end=vma.end, writable=last.writable and vma.writable)
        result.append(vma)
    return result
