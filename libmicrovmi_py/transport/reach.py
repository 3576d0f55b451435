# SPDX-License-Identifier: Apache-2.0
"""How C gets at the bytes of a source: what it has to be handed, kept alive as long as this object."""

from __future__ import annotations

from libmicrovmi_py.declare import Any, dataclass
from libmicrovmi_py.transport.fds import OwnedFd


@dataclass(frozen=True, slots=True)
class Reach:
    """A mapping of ours (``view``), memory of process ``pid`` (``fd`` is its ``/proc/PID/mem``), or a file (``fd``).

    ``writable`` (of a mapping) and ``writer`` are there once the source was opened for writing. With a ``view``, ``fd``
    is the file behind it, if that can have holes. ``offset`` is where in the file the source begins. ``pidfd`` tells
    whether the process whose memory it is still runs: if not, nothing is written. ``pagemap`` tells which pages it ever
    touched, where the others are zero. ``arriving`` is whether a migration has yet to bring some of them, ``awaited``
    whether it has yet to bring all: there is nothing to read. ``image`` is whether a hole of the mapped file is not to
    be touched by any read. ``mapping`` is a ``struct mvi_mapping`` of the process, which has to be there after a read.
    """

    view: memoryview | None = None
    writable: memoryview | None = None
    fd: OwnedFd | None = None
    writer: OwnedFd | None = None
    offset: int = 0
    pid: int = 0
    pidfd: OwnedFd | None = None
    pagemap: OwnedFd | None = None
    arriving: bool = False
    awaited: bool = False
    image: bool = False
    mapping: Any = None
