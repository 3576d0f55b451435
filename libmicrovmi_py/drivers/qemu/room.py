# SPDX-License-Identifier: Apache-2.0
"""Whether a QEMU may write a file in memory as long as its guest's RAM without coming to harm."""

from __future__ import annotations

import os
import re

from libmicrovmi_py.drivers.qemu.orders import RefusedError
from libmicrovmi_py.transport.copy import available
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.shape import decimal

_GROUPS = "/sys/fs/cgroup"
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""What a group may take and what it takes, by the version of control groups."""

_LARGEST_LIMIT = 1 << 62
"""Version 1 tells a larger number where nothing is limited."""

_LONGEST = 1 << 16


def check_room(process: Process, size: int) -> None:
    """Raise ``RefusedError`` if its files may not grow, which would end it by a signal, or if its control group or the
    system leaves it no room for ``size`` bytes.

    What it writes counts as its own memory until it was read: usually a few MiB, but all of RAM if this process ends.
    """
    limit = re.search(r"^Max file size +(\S+)", _content(process.path("limits")), re.MULTILINE)
    if limit is None or limit[1] != "unlimited":
        raise RefusedError("QEMU's files are limited in size")
    if available() < size:
        raise RefusedError("the system has less memory left than the machine has RAM")
    for folder in _groups(process):
        for most, used in _FILES:
            room, taken = _number(f"{folder}/{most}"), _number(f"{folder}/{used}")
            if room is not None and room - (taken or 0) < size:
                raise RefusedError("QEMU's memory is limited by its control group")


def _groups(process: Process) -> list[str]:
    """The folders of the control groups that it is in, up to the root of each hierarchy."""
    folders = []
    for line in _content(process.path("cgroup")).splitlines():
        _, kinds, path = (*line.split(":", 2), "", "")[:3]
        if kinds and "memory" not in kinds.split(","):
            continue
        folder = f"{_GROUPS}/memory" if kinds else _GROUPS
        for part in path.strip("/").split("/"):
            folder = f"{folder}/{part}"
            folders.append(folder)
    return folders


def _number(path: str) -> int | None:
    """A number of bytes; ``None`` where nothing is limited, or no number told."""
    return decimal(_content(path).strip(), _LARGEST_LIMIT)


def _content(path: str) -> str:
    """The text of a file, as much as is of interest; ``""`` if it cannot be read."""
    try:
        file = OwnedFd.open(path, os.O_RDONLY)
        return os.read(file.number, _LONGEST).decode(errors="replace")
    except OSError:
        return ""
