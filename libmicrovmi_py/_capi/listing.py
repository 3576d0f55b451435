# SPDX-License-Identifier: Apache-2.0
"""Machines that were listed, as C structs. Loaded for the first list."""

from __future__ import annotations

import struct

from _libmicrovmi import ffi

from libmicrovmi_py.declare import Any
from libmicrovmi_py.errors import shortened
from libmicrovmi_py.listed import ListedMachine
from libmicrovmi_py.machine.listing import list_vms

_TEXTS = {"driver": 16, "name": 128, "uuid": 40, "uri": 512, "reason": 256}
"""The arrays of ``struct microvmi_machine`` in their order, with what they hold: a zero byte is the last."""

_LAYOUT = struct.Struct("=2IQ2IQ2I" + "".join(f"{size}s" for size in _TEXTS.values()))
_NOBODY = 0xFFFFFFFF


def fill_all(driver: str | None, target: Any, capacity: int) -> int:
    """Store the machines in structs of which each is as large as the first says; how many there are."""
    found = list_vms(driver)
    if capacity and found:
        room, place = target.struct_size, ffi.cast("char *", target)
        for index, machine in enumerate(found[:capacity]):
            ffi.buffer(place + index * room, _LAYOUT.size)[:] = _packed(machine)
    return len(found)


def _packed(machine: ListedMachine) -> bytes:
    user = _NOBODY if machine.user_id is None else machine.user_id
    numbers = (machine.driver_type, machine.process_id, user, machine.state)
    texts = (shortened(getattr(machine, name), size - 1).encode() for name, size in _TEXTS.items())
    return _LAYOUT.pack(_LAYOUT.size, *numbers, machine.memory, machine.vcpus, machine.abilities, *texts)
