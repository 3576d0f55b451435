# SPDX-License-Identifier: Apache-2.0
"""The machines of a VirtualBox with FDP, by their shared memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from libmicrovmi_py.declare import replace
from libmicrovmi_py.drivers.base import Driver, able_by_class
from libmicrovmi_py.drivers.virtualbox.abi import CHANNEL_SIZE, CPU_SIZE, DECLARATIONS
from libmicrovmi_py.drivers.virtualbox.channel import FOLDER, open_objects
from libmicrovmi_py.drivers.virtualbox.driver import OpenMachine
from libmicrovmi_py.drivers.virtualbox.owner import own_processes, process_of
from libmicrovmi_py.errors import MicrovmiError
from libmicrovmi_py.listed import ListedMachine, uri_of
from libmicrovmi_py.transport.foreign import load
from libmicrovmi_py.transport.processes import names_in


def machines(kind: type[Driver], library: str) -> Iterator[ListedMachine]:
    """One for each pair of objects of the names and the sizes that FDP makes.

    Nothing is asked: FDP answers one request at a time, for all its clients, and what it tells could only be known by
    opening the machine.
    """
    try:
        names = sorted(names_in(FOLDER))
    except OSError:
        return
    found = {name: status for name in names if (status := _status(name)) is not None}
    processes = own_processes() if found else []
    for name, status in found.items():
        process = process_of(status, processes)
        plain = ListedMachine(
            kind.name,
            kind.type,
            name,
            uri_of(kind.name, vm_name=name),
            process_id=process.pid if process else 0,
            user_id=status.st_uid,
        )
        try:
            open_objects(name, named=True)
            load((library,), DECLARATIONS)
        except MicrovmiError as err:
            yield replace(plain, reason=str(err))
        else:
            yield replace(plain, abilities=able_by_class(OpenMachine))


def _status(name: str) -> os.stat_result | None:
    """The status of a machine's channel, ``None`` for a name that has not both objects, each of its size."""
    found = []
    for path, size in ((f"{FOLDER}/{name}", CHANNEL_SIZE), (f"{FOLDER}/CPU_{name}", CPU_SIZE)):
        try:
            found.append(os.lstat(path))
        except OSError:
            return None
        if not stat.S_ISREG(found[-1].st_mode) or found[-1].st_size != size:
            return None
    return found[0]
