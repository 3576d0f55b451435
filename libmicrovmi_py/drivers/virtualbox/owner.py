# SPDX-License-Identifier: Apache-2.0
"""Whose a machine's shared memory is. Anybody can make files in its folder, of any name and size.

Whoever can write such an object plays the machine, and libFDP believes what it says; a client in turn writes requests
into it. So it is looked at before it is opened. A user who named the driver said what the object is; a bare name may
mean a machine of another hypervisor, and then there has to be a proof.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable

from libmicrovmi_py.errors import DriverUnavailableError, PermissionDeniedError, VmGoneError
from libmicrovmi_py.transport.processes import Process

_PROGRAM = re.compile(r"VirtualBox(VM)?|VBox[A-Za-z]+")
_INIT = 1


def check_owner(path: str, status: os.stat_result, *, named: bool) -> None:
    """Raise ``DriverUnavailableError`` or ``PermissionDeniedError`` for an object that is not to be believed.

    ``named`` is whether the user named the driver.
    """
    others = stat.S_IWOTH if named else stat.S_IWOTH | stat.S_IWGRP
    if status.st_mode & others:
        raise PermissionDeniedError(f"{path}: other users can write it, who could play the machine: chmod go-w {path}")
    ours = status.st_uid in (os.geteuid(), 0)
    if not named and not ours:
        raise DriverUnavailableError(f"{path} is user {status.st_uid}'s: say so by vmi://virtualbox/?vm_name=NAME")
    if not (named and ours) and not _is_served(status):
        advice = "vmi://virtualbox/?vm_name=NAME takes it nevertheless" if ours else "is the machine running?"
        raise DriverUnavailableError(f"{path}: no process of user {status.st_uid} has it mapped: {advice}")


def has_one_other(status: os.stat_result, processes: Iterable[Process]) -> bool:
    """Whether exactly one process but this one may have the object mapped: then that is who plays the machine.

    ``processes`` are all there are; without init not all were shown to us, and nobody knows.
    """
    try:
        others = {process.pid: process for process in processes}
        if _INIT not in others:
            return False
        others.pop(os.getpid(), None)
        return sum(may_have(process, status) for process in others.values()) == 1
    except OSError:  # we are short of something
        return False


def may_have(process: Process, status: os.stat_result) -> bool:
    """Whether a process has the object mapped; or cannot be looked into, is of a user who can open it, and not init."""
    found = _has_mapped(process, status)
    if found is not None:
        return found
    users = process.uids()
    others = status.st_mode & (stat.S_IWOTH | stat.S_IWGRP)
    return process.pid != _INIT and (not users or bool(others) or not {status.st_uid, 0}.isdisjoint(users))


def own_processes() -> list[Process]:
    """Those of VirtualBox, by their programs' names."""
    return list(Process.all(_PROGRAM.fullmatch))


def process_of(status: os.stat_result, processes: Iterable[Process]) -> Process | None:
    """The first of these processes that has the object mapped, as far as that can be told."""
    return next((process for process in processes if _has_mapped(process, status)), None)


def _is_served(status: os.stat_result) -> bool:
    """Whether a process of the owner has the object mapped; of one that may not be looked into its name has to do."""
    return any(_serves(process, status) for process in Process.all() if process.user == status.st_uid)


def _serves(process: Process, status: os.stat_result) -> bool:
    found = _has_mapped(process, status)
    return _PROGRAM.fullmatch(process.executable()) is not None if found is None else found


def _has_mapped(process: Process, status: os.stat_result) -> bool | None:
    """``None`` for a process that may not be looked into."""
    try:
        mapped = process.mappings()
    except PermissionDeniedError:
        return None
    except VmGoneError:
        return False
    return any((vma.device, vma.inode) == (status.st_dev, status.st_ino) for vma in mapped if vma.shared)
