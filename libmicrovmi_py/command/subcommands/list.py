# SPDX-License-Identifier: Apache-2.0
"""Show the machines that there are.

Those are shown as well that cannot be opened at present, with the reason. URI is what opens this machine and no
other; most machines are opened by their name. No machine is disturbed, and none is stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.command import kit
from libmicrovmi_py.errors import listed
from libmicrovmi_py.listed import ListedMachine
from libmicrovmi_py.machine.listing import list_vms

_HEADS = ("DRIVER", "PROCESS", "USER", "STATE", "MiB", "VCPUS", "NAME", "URI")
_NUMBERS = (1, 2, 4, 5)


def arguments(parser: argparse.ArgumentParser) -> None:
    """A driver, if one is named."""
    parser.add_argument("--driver", metavar="NAME", help="the machines of this driver alone")
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """List them."""
    machines = list_vms(options.driver)
    kit.show(options, [_document(machine) for machine in machines], lambda: _lines(machines))
    return 0


def _document(machine: ListedMachine) -> dict[str, object]:
    return {
        "driver": machine.driver,
        "name": machine.name,
        "uri": machine.uri,
        "reason": machine.reason,
        "process_id": machine.process_id or None,
        "user_id": machine.user_id,
        "state": machine.state.name.lower(),
        "memory": machine.memory or None,
        "vcpus": machine.vcpus or None,
        "uuid": machine.uuid,
        "abilities": [item.name.lower() for item in Ability if item in machine.abilities and item.name],
    }


def _lines(machines: list[ListedMachine]) -> Iterator[str]:
    rows = [_row(machine) for machine in machines if machine.name or machine.process_id or machine.uri]
    if rows:
        yield from kit.table([_HEADS, *rows], _NUMBERS)
    for reason, names in _reasons(machines).items():
        yield f"{listed(names)}: {reason}"
    if not machines:
        yield "there is no machine that this user may see"


def _reasons(machines: list[ListedMachine]) -> dict[str, list[str]]:
    """What is in the way, with the machines that it is in the way of; their driver where they have no names."""
    found: dict[str, list[str]] = {}
    for machine in machines:
        if machine.reason:
            found.setdefault(machine.reason, []).append(machine.name or machine.driver)
    return found


def _row(machine: ListedMachine) -> tuple[str, ...]:
    return (
        machine.driver,
        str(machine.process_id or "-"),
        "-" if machine.user_id is None else str(machine.user_id),
        machine.state.name.lower(),
        str(machine.memory >> 20) if machine.memory else "-",
        str(machine.vcpus or "-"),
        machine.name or "-",
        machine.uri or "-",
    )
