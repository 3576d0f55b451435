# SPDX-License-Identifier: Apache-2.0
"""Whether a process still runs, as a descriptor: C asks it before memory of a machine is taken for the machine's."""

from __future__ import annotations

import os

from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.processes import Process, failed


@dataclass(frozen=True, slots=True)
class Life:
    """Process ``pid``, and a pidfd of it; ``None`` where the system has no such thing."""

    pid: int
    pidfd: OwnedFd | None


def life_of(process: Process) -> Life:
    """Open a pidfd, which needs no rights. Raises ``IoError`` if this process has too many files open."""
    try:
        with StandardStreamsHeld():
            fd = OwnedFd(os.pidfd_open(process.pid))
    except AttributeError:
        return Life(process.pid, None)
    except OSError as err:
        if isinstance(short := failed(process.pid, err), IoError):
            raise short from err
        return Life(process.pid, None)
    return Life(process.pid, fd if process.alive else None)
