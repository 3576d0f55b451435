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

from libmicrovmi_py.errors import DriverUnavailableError, PermissionDeniedError
from libmicrovmi_py.transport.processes import Process

_PROGRAM = re.compile(r"VirtualBox(VM)?|VBox[A-Za-z]+")


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


def _is_served(status: os.stat_result) -> bool:
    """Whether a process of the owner has the object mapped; of one that may not be looked into its name has to do."""
    return any(_serves(process, status) for process in Process.all() if process.user == status.st_uid)


def _serves(process: Process, status: os.stat_result) -> bool:
    try:
        mapped = process.mappings()
    except PermissionDeniedError:
        return _PROGRAM.fullmatch(process.executable()) is not None
    except OSError:  # it ended
        return False
    return any((vma.device, vma.inode) == (status.st_dev, status.st_ino) for vma in mapped if vma.shared)
