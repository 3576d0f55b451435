# SPDX-License-Identifier: Apache-2.0
"""The files behind the shared mappings of another process, also when they have no name any more.

A privileged reader must not be talked into opening what the other process could not: a descriptor is taken only for
the very file that the process has mapped, which it can at least read, and is written only where that mapping is
writable. Names prove nothing; device and inode do, as long as the file is held open.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator

from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.processes import DELETED, Process, Vma

_NAMELESS = ("/memfd:", "/dev/zero", "/anon_hugepage", "/SYSV")
"""Texts in ``/proc/PID/maps`` that different files share, and that are no names."""


def open_backings(process: Process, vmas: Iterable[Vma]) -> dict[Vma, OwnedFd]:
    """Open the regular files that ``vmas`` map, read-only; those that cannot be reached are left out.

    The kernel's own link is tried first (it takes privileges), then the open files of the process, then the name.
    What was opened counts if the process still has it mapped afterwards: until then its inode's number could have
    become another file's. Raises ``PermissionDeniedError`` or ``VmGoneError``.
    """

    @functools.cache
    def descriptors() -> dict[str, list[str]]:
        paths: dict[str, list[str]] = {}
        for path, target in process.descriptors():
            paths.setdefault(target, []).append(path)
        return paths

    opened = {vma: _first(vma, _candidates(process, vma, descriptors)) for vma in vmas}
    found = {vma: fd for vma, fd in opened.items() if fd is not None}
    mapped = set(process.mappings((vma.start, vma.end) for vma in found)) if found else set()
    return {vma: fd for vma, fd in found.items() if vma in mapped}


def _candidates(process: Process, vma: Vma, descriptors: Callable[[], dict[str, list[str]]]) -> Iterator[str]:
    yield process.path(f"map_files/{vma.start:x}-{vma.head:x}")
    yield from descriptors().get(vma.path, ())
    if not vma.path.startswith(_NAMELESS) and not vma.path.endswith(DELETED):
        yield process.path("root") + vma.path


def _first(vma: Vma, paths: Iterator[str]) -> OwnedFd | None:
    return next((fd for path in paths if (fd := _open(path, vma)) is not None), None)


def _open(path: str, vma: Vma) -> OwnedFd | None:
    """Open for reading what was looked at before: opening a device, say, may do something."""
    try:
        found = OwnedFd.open(path, os.O_PATH)
        status = os.fstat(found.number)
        if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != (vma.device, vma.inode):
            return None
        return OwnedFd.open(f"/proc/self/fd/{found.number}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
