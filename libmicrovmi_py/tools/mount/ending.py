# SPDX-License-Identifier: Apache-2.0
"""Waiting until a file system is to be unmounted: somebody did it, or the machine is gone."""

from __future__ import annotations

import select
import time

from libmicrovmi_py.drivers.base import SupportsRegions
from libmicrovmi_py.errors import MicrovmiError, VmGoneError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.mount.server import Server
from libmicrovmi_py.transport.fds import OwnedFd

_LOOK = 2.0
"""Seconds between two questions to a hypervisor, where no process tells the machine's end."""
_FOREVER = 86400.0


def wait(server: Server, machine: Microvmi | None, seconds: float | None = None) -> str:
    """Wait for the end of either, or so many seconds; why it is over, ``""`` if it was unmounted or in time.

    ``machine`` is ``None`` for what is there without one.
    """
    lives = _lives(machine) if machine else []
    poll = select.poll()
    for number in (server.done, *(life.number for life in lives)):
        poll.register(number, select.POLLIN)
    end = float("inf") if seconds is None else time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        looks = _LOOK if machine is not None and not lives else _FOREVER
        found = {number for number, _ in poll.poll(min(left, looks) * 1000)}
        if server.done in found:
            return server.gone
        if found:
            return "the machine has ended"
        if machine is not None and not lives and (reason := _gone(machine)):
            return reason
    return ""


def _lives(machine: Microvmi) -> list[OwnedFd]:
    """A descriptor of each process that has memory of the machine, readable when that process has ended."""
    driver = machine.driver
    if not isinstance(driver, SupportsRegions):
        return []
    found = (region.source.reach().pidfd for region in driver.regions())
    return list({life.number: life for life in found if life is not None}.values())


def _gone(machine: Microvmi) -> str:
    """Why there is no machine any more; one that is busy, or does not answer at the moment, is there."""
    try:
        machine.memory_map()
    except VmGoneError as err:
        return str(err)
    except MicrovmiError:
        pass
    return ""
