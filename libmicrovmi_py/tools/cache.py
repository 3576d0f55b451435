# SPDX-License-Identifier: Apache-2.0
"""Files that are worth keeping from one run to the next: in the user's cache directory, out of others' reach.

What lies there is read again without a further look, so nobody else may have written it: neither the file, nor the
folders above it.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from libmicrovmi_py.environment import variable
from libmicrovmi_py.errors import PermissionDeniedError

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def user_cache() -> Path:
    """``$XDG_CACHE_HOME``, or ``~/.cache``."""
    given = variable("XDG_CACHE_HOME")
    return Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~")) / ".cache"


def private_folder(path: Path) -> Path:
    """A folder that only this user can write; made if it is not there.

    Raises ``PermissionDeniedError``, which names the folder and the way out, if others could change what lies in it.
    """
    path = path.resolve()
    _check(next(folder for folder in (path, *path.parents) if folder.exists()))  # nothing is made in another's folder
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as err:
        raise PermissionDeniedError(f"{path} cannot be made: {err.strerror}; set XDG_CACHE_HOME") from err
    _check(path)
    return path


def _check(path: Path) -> None:
    for folder in (path, *path.parents):
        status = os.stat(folder)
        if status.st_uid not in (0, os.geteuid()):
            raise PermissionDeniedError(
                f"{folder} is another user's, who may change what lies in it: set XDG_CACHE_HOME to a folder of yours"
            )
        if status.st_mode & _OTHERS and not status.st_mode & stat.S_ISVTX:
            raise PermissionDeniedError(f"others may write {folder}: chmod go-w {folder}, or set XDG_CACHE_HOME")


def kept(path: Path) -> bool:
    """Whether a file is there that this user wrote, and nobody else can; a private folder holds it."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    mine = status.st_uid in (0, os.geteuid()) and not status.st_mode & _OTHERS
    return stat.S_ISREG(status.st_mode) and mine and status.st_size > 0


def keep(path: Path, content: bytes) -> None:
    """Write a file at once: others see all of it or nothing, also after a crash."""
    number, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with open(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
