# SPDX-License-Identifier: Apache-2.0
"""The machines that there are, of all drivers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from libmicrovmi_py.abilities import Ability, with_snapshots
from libmicrovmi_py.declare import replace
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.drivers.registry import all_drivers, find
from libmicrovmi_py.errors import MicrovmiError, escaped, logger, shortened
from libmicrovmi_py.listed import LONGEST_URI, ListedMachine, MachineState
from libmicrovmi_py.model import DriverType
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.fds import StandardStreamsHeld, check_room
from libmicrovmi_py.transport.shape import integer, text

_MOST = 1 << 16
"""Machines of one driver: more are a plugin that does not end."""

_LONGEST_NAME = 127
_LONGEST_UUID = 39
_WORD = (1 << 32) - 1
_LONG = (1 << 64) - 1

_log = logger(__name__)


def list_vms(driver: str | None = None) -> list[ListedMachine]:
    """The machines that there are now: one entry each, also of those that cannot be opened, which say why.

    ``driver``: of that one alone; some drivers tell theirs only when they are named, or have none to tell. No machine
    is disturbed, nobody else's connection taken, and every wait has a limit. Nothing is sorted but by drivers. Raises
    ``DriverUnavailableError`` for a driver that does not exist.
    """
    with StandardStreamsHeld():
        check_room()
        asked = _automatic() if driver is None else iter([find(_name(driver))])
        return [machine for kind in asked for machine in _machines(kind)]


def _automatic() -> Iterator[type[Driver]]:
    return (kind for kind in all_drivers() if kind.automatic)


def _name(driver: str) -> str:
    """The name as a URI has it, checked."""
    return Parameters(driver=driver).driver or ""


def _machines(kind: type[Driver]) -> list[ListedMachine]:
    """Those of one driver; what it raises is a line of reason, or of the log, and no more."""
    found: list[ListedMachine] = []
    try:
        for machine in itertools.islice(kind.machines(), _MOST):
            found.append(_checked(kind, machine))
    except MicrovmiError as err:
        found.append(_checked(kind, ListedMachine(kind.name, kind.type, reason=str(err))))
    except Exception as err:
        _log.warning("machines of the driver %s are left out: %s", kind.name, err)
    return found


def _checked(kind: type[Driver], machine: ListedMachine) -> ListedMachine:
    """What a driver told, as C can hold it: whatever it is made of, a driver of somebody else included.

    Names and reasons are others' texts, and printed: each is one line. Raises ``IoError`` or ``TypeError``.
    """
    if not isinstance(machine, ListedMachine):
        raise TypeError(f"{type(machine).__name__} is no ListedMachine")
    what = f"a machine that the driver {kind.name} lists"
    return replace(
        machine,
        driver=kind.name,
        driver_type=DriverType(kind.type),
        name=shortened(escaped(text(machine.name, what)), _LONGEST_NAME),
        uri=_whole(text(machine.uri, what)),
        reason=escaped(text(machine.reason, what)),
        process_id=integer(machine.process_id, what, 0, _WORD),
        user_id=None if machine.user_id is None else integer(machine.user_id, what, 0, _WORD - 1),
        state=MachineState(machine.state),
        memory=integer(machine.memory, what, 0, _LONG),
        vcpus=integer(machine.vcpus, what, 0, _WORD),
        abilities=with_snapshots(Ability(machine.abilities)),
        uuid=shortened(escaped(text(machine.uuid, what)), _LONGEST_UUID),
    )


def _whole(uri: str) -> str:
    """A URI that C can hold, ``""`` for another: a part of one may open something else."""
    return uri if len(uri) <= LONGEST_URI and uri.isascii() and uri.isprintable() else ""
