# SPDX-License-Identifier: Apache-2.0
"""How C gets at the bytes of a source: what it has to be handed, kept alive as long as this object."""

from __future__ import annotations

from dataclasses import dataclass

from libmicrovmi_py.transport.fds import OwnedFd


@dataclass(frozen=True, slots=True)
class Reach:
    """A mapping of ours (``view``), or the memory of process ``pid`` (``fd`` is its ``/proc/PID/mem``).

    ``writable`` and ``writer`` are there once the source was opened for writing. With a ``view``, ``fd`` is the file
    behind it, if that can have holes, and ``offset`` where in the file the view begins. ``pidfd`` tells whether the
    process still runs. ``pagemap`` tells which pages it ever touched, where the others are zero.
    """

    view: memoryview | None = None
    writable: memoryview | None = None
    fd: OwnedFd | None = None
    writer: OwnedFd | None = None
    offset: int = 0
    pid: int = 0
    pidfd: OwnedFd | None = None
    pagemap: OwnedFd | None = None
