# SPDX-License-Identifier: Apache-2.0
"""Variables of the environment. They count only in a process that has no more rights than the user who started it."""

from __future__ import annotations

import os
import struct

_AT_SECURE = 23
"""The key in the kernel's auxiliary vector that tells whether the program was started with rights of its own."""

_decided: bool | None = None


def variable(name: str) -> str:
    """The variable's value, ``""`` if there is none or the environment does not count."""
    return os.environ.get(name, "") if _counts() else ""


def decide(counts: bool) -> None:
    """Whether the environment counts: for the C library, which found out when it was loaded."""
    global _decided
    _decided = counts


def _counts() -> bool:
    """Not in a setuid or setgid program, nor one with file capabilities, whatever of it was given up since."""
    if _decided is None:
        same = os.geteuid() == os.getuid() and os.getegid() == os.getgid()
        decide(same and not _started_with_rights())
    return bool(_decided)


def _started_with_rights() -> bool:
    """What the kernel said when this program was started; it counts as yes where nobody can tell."""
    try:
        with open("/proc/self/auxv", "rb") as file:
            vector = file.read()
    except OSError:
        return True
    whole = len(vector) - len(vector) % struct.calcsize("@NN")
    pairs = dict(struct.iter_unpack("@NN", vector[:whole]))
    return bool(pairs.get(_AT_SECURE, 1))
