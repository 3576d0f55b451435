# SPDX-License-Identifier: Apache-2.0
"""The file behind a shared mapping of another process, also when it has no name any more."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.processes import DELETED, Process, Vma

_NAMELESS = ("/memfd:", "/dev/zero", "/anon_hugepage", "/SYSV")
"""Texts in ``/proc/PID/maps`` that different files share."""


def open_backing(process: Process, vma: Vma) -> OwnedFd | None:
    """Open the regular file that ``vma`` maps, read-only; ``None`` if it cannot be reached.

    The kernel's own link is tried first (it takes privileges), then the open files of the process, then the name.
    """
    for path, trusted in _candidates(process, vma):
        fd = _open(path)
        if fd is not None and (trusted or _is(fd, vma)):
            return fd
    return None


def _candidates(process: Process, vma: Vma) -> Iterator[tuple[str, bool]]:
    for start, end in _pieces(process, vma):
        yield process.path(f"map_files/{start:x}-{end:x}"), True
    named = not vma.path.startswith(_NAMELESS)
    for path, target in list(process.descriptors()):
        if target == vma.path:
            yield path, named
    if named and not vma.path.endswith(DELETED):
        yield process.path("root") + vma.path, False


def _pieces(process: Process, vma: Vma) -> Iterator[tuple[int, int]]:
    try:
        names = os.listdir(process.path("map_files"))
    except OSError:
        return
    for name in names:
        start, _, end = name.partition("-")
        if int(start, 16) == vma.start:
            yield vma.start, int(end, 16)


def _open(path: str) -> OwnedFd | None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        return OwnedFd.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None


def _is(fd: OwnedFd, vma: Vma) -> bool:
    status = os.fstat(fd.number)
    return (status.st_dev, status.st_ino) == (vma.device, vma.inode)
